"""The command `explore`: its options, and where the page is."""

import socket

import pytest

from jacobian_lab import InputError
from studies.explore import explore
from studies.explore.explore import Explore, make_server, origins, url

from conftest import call

SLIPS = [
    (["--port", "0"], "--port must lie from 1 to 65535: got 0"),
    (["--port", "x"], "x"),
    (["--address", "0.0.0.0"], "--address 0.0.0.0 is not one address"),
    (["--address", "example.org"], "--address example.org is no IP address: take 127.0.0.1"),
    (["--digit", "5000"], "--digit must lie from 0 to 4999: got 5000"),
    (["--time", "-1"], "--time must be at least 0: got -1"),
    (["--seed", "-1"], "--seed must"),
    (["--device", "gpu"], "the device 'gpu' cannot be used"),
    (["--model", "unet", "--no-browser"], "no model 'unet'"),
    (["--model", "nowhere.py:make", "--no-browser"], "nowhere.py"),
]


@pytest.mark.parametrize(("words", "message"), SLIPS)
def test_slips_are_told_in_one_sentence(monkeypatch, capsys, words, message):
    status, _, err = call(monkeypatch, capsys, "explore", *words)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_without_bokeh_the_error_names_the_extra(monkeypatch, model):
    def no_module(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("jacobian_lab._require.import_module", no_module)
    with pytest.raises(InputError, match=r'pip install "jacobian-lab\[explore\]"'):
        make_server(Explore(model, browser=False))


def test_a_port_that_is_taken_is_named(model):
    pytest.importorskip("bokeh")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port} cannot be served \(the port is take"):
            make_server(Explore(model, port=port, browser=False))


def test_only_the_page_s_own_address_may_talk_to_the_server():
    assert origins(Explore()) == ["127.0.0.1:5007", "localhost:5007"]
    assert origins(Explore(address="::1", port=8000))[0] == "[::1]:8000"
    assert origins(Explore(address="192.0.2.7")) == ["192.0.2.7:5007"]
    assert url(Explore()) == "http://127.0.0.1:5007/"


def test_the_page_is_local_by_default_and_messages_are_bounded():
    from studies.explore.choice import MOST_BYTES

    assert Explore().address == "127.0.0.1"
    assert MOST_BYTES * 4 / 3 < explore.MESSAGE_BYTES < 3 * MOST_BYTES

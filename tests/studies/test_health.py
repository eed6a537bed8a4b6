"""The command `health`: one table with verdicts for any model."""

import pytest

from conftest import call


def test_a_healthy_model_passes(monkeypatch, capsys):
    words = ("health", "--model", "mnist", "--digits", "8", "--times", "500")
    status, out, err = call(monkeypatch, capsys, *words)
    assert status == 0, out + err
    for said in ("no slip found", "most negative eigenvalue", "asymmetry", "audit", "all is well"):
        assert said in out
    assert "FAIL" not in out


WRAPPED = """
import mnist
from jacobian_lab import Denoiser

def slip():
    right = mnist.load_denoiser()
    made = Denoiser(right.network, right.schedule, "epsilon", right.shape)
    made.digits = True
    return made
"""


@pytest.mark.slow
def test_a_slip_fails_and_is_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine.py").write_text(WRAPPED)
    words = ("health", "--model", f"{tmp_path}/mine.py:slip", "--digits", "8", "--times", "500")
    status, out, _ = call(monkeypatch, capsys, *words)
    assert status == 1
    assert 'the network seems to predict "v"' in out
    assert "not all is well" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x"], "health is printed and writes no folder"),
        (["--digits", "1"], "two or more clean samples"),
        (["--times", "1000"], "outside this schedule"),
    ],
)
def test_slips_of_the_command_are_named(monkeypatch, capsys, words, said):
    status, _, err = call(monkeypatch, capsys, "health", *words)
    assert status == 2
    assert said in err

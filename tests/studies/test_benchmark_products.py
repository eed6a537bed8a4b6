"""The prices of the products."""

import csv

import pytest
import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.derivative.products import Products
from studies.benchmarks.products import bare, time_in_turns
from studies.benchmarks.products_jax import InJax, plain_denoiser

from conftest import call


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
def test_the_table_names_our_ways_and_pytorchs(monkeypatch, capsys, tmp_path):
    words = ("products", "--batches", "1", "--rounds", "1", "--out", tmp_path / "run")
    status, out, _ = call(monkeypatch, capsys, "benchmark", *words)
    assert status == 0
    for line in ("J v, torch.func.jvp", "set-up, once for x_t"):
        assert line in out
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    unit = [row for row in rows if row["way"] == "one forward pass"]
    assert [row["forward_passes"] for row in unit] == ["1"]
    assert float(unit[0]["milliseconds"]) > 0
    assert all(float(row["forward_passes"]) > 0 for row in rows)


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_the_same_network_in_jax_has_the_same_products(monkeypatch, capsys, tmp_path):
    pytest.importorskip("jax")
    words = ("products", "--networks", "plain", "--jax", "--batches", "2", "--rounds", "1")
    assert call(monkeypatch, capsys, "benchmark", *words, "--out", tmp_path / "run")[0] == 0
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    units = [row["way"] for row in rows if row["forward_passes"] == "1"]
    assert units == ["one forward pass", "one forward pass, JAX"]
    assert [row["path"] for row in rows].count("JAX") == 5


def test_another_network_in_jax_is_named():
    pytest.importorskip("jax")
    denoiser, t = plain_denoiser(), 500
    x_t, v = torch.randn(1, 1, 32, 32), torch.randn(2, 1, 32, 32)
    ours = Products(denoiser, x_t, t)
    peer = InJax(denoiser, x_t, t, v)
    peer.check(ours.d, ours.jvp(v))
    with pytest.raises(InputError, match="J v of JAX differs from torch's by"):
        peer.check(ours.d, ours.jvp(1.001 * v))


def test_ways_take_turns_and_the_first_turn_only_warms_up():
    calls = []
    found = time_in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert set(found) == {"a", "b"}
    assert min(found.values()) >= 0


def test_the_bare_function_of_the_peers_is_the_denoiser():
    denoiser = mnist.load_denoiser()
    x_t = torch.randn(2, *denoiser.shape)
    assert torch.equal(bare(denoiser, x_t, 500)(x_t), denoiser(x_t, 500))

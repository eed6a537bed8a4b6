"""The same network in JAX."""

import csv

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.derivative.products import Products
from studies.benchmarks.products import AGAIN, UNIT
from studies.benchmarks.products_jax import InJax, plain_denoiser

from conftest import call


def test_the_plain_denoiser_is_the_same_each_time():
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(plain_denoiser()(x, 500), plain_denoiser()(x, 500))
    assert len(list(plain_denoiser().network.parameters())) == 2 * 12


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_the_same_network_in_jax_has_the_same_products(monkeypatch, capsys, tmp_path):
    pytest.importorskip("jax")
    words = ("products", "--networks", "plain", "--jax", "--batches", "2", "--rounds", "1")
    assert call(monkeypatch, capsys, "benchmark", *words, "--out", tmp_path / "run")[0] == 0
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    ours, theirs = [row["way"] for row in rows if row["forward_passes"] == "1"]
    assert ours in (UNIT, AGAIN)
    assert theirs == "one forward pass, JAX"
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

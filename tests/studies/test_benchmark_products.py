"""The prices of the products."""

import csv
import re

import pytest
import torch

import mnist
from studies.benchmarks.products import AGAIN, UNIT, bare, time_in_turns

from conftest import call


@pytest.mark.slow
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
def test_the_table_names_our_ways_and_pytorchs(monkeypatch, capsys, tmp_path):
    words = ("products", "--batches", "1", "--rounds", "1", "--bfloat16", "--out", tmp_path / "run")
    status, out, _ = call(monkeypatch, capsys, "benchmark", *words)
    assert status == 0
    for line in ("J v, torch.func.jvp", "set-up, once for x_t"):
        assert line in out
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    unit = [row for row in rows if row["way"] in (UNIT, AGAIN)]
    assert len(unit) == 2
    assert min(float(row["forward_passes"]) for row in unit) == 1
    assert min(float(row["milliseconds"]) for row in unit) > 0
    assert all(float(row["forward_passes"]) > 0 for row in rows)
    coarse = [re.findall(r"bfloat16, off by (.*), stated (.*)", row["way"]) for row in rows]
    for ((off, stated),) in filter(None, coarse):
        assert 1e-3 < float(off) < float(stated)
    assert sum(map(len, coarse)) == 2


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

"""The benchmark of the sampler: passes are counted, and time outside of the network is seen."""

import csv
import time

import pytest
import torch

import mnist
from studies.benchmarks.overhead import DDIM, TimedNetwork, clock_of

from conftest import call


def test_the_table_has_each_way_beside_ddim(monkeypatch, capsys, tmp_path, model):
    words = ("--model", model, "--batches", "2", "--times", "1", "--rounds", "2")
    status, _, err = call(
        monkeypatch, capsys, "benchmark", "sampler", *words, "--out", tmp_path / "run"
    )
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    found = {row["way"]: row for row in rows}
    assert float(found[DDIM]["of_DDIMs"]) == 1
    # 5 steps of two passes and one more, 11 of DDIM, 5 times of a step; half a pass for the check
    assert [float(row["passes"]) for row in rows] == [11.5] * 4
    for row in rows:
        low, middle, high = (
            float(row[f"percent_over_the_network{end}"]) for end in ("_low", "", "_high")
        )
        assert 0 < low <= middle <= high


def test_a_timed_network_is_the_network_and_tells_its_samples():
    network = TimedNetwork(mnist.load_denoiser().network, clock_of("cpu")).eval()
    x, t = torch.zeros(3, 1, 32, 32), torch.tensor([5] * 3)
    assert torch.equal(network(x, t), network.inner(x, t))
    assert network.samples == 3
    assert network.seconds > 0
    network.reset()
    assert (network.samples, network.seconds) == (0, 0)


def test_on_a_cpu_the_clock_is_the_processors():
    now = clock_of("cpu")
    started = now()
    time.sleep(0.05)
    assert now() - started < 0.04


@pytest.mark.parametrize("wrong", [("--batches", "5001"), ("--times", "0"), ("--rounds", "-1")])
def test_slips_are_named(monkeypatch, capsys, wrong):
    status, _, err = call(monkeypatch, capsys, "benchmark", "sampler", *wrong)
    assert status == 2
    assert wrong[0] in err

"""Peak memory of sampling; figures are coarse here: one batch, a small network."""

import pytest

from studies.benchmarks.memory import MemoryBenchmark, largest, peak_memory
from studies.frame.processes import STRICT

from conftest import call


@pytest.mark.slow
def test_the_inexact_sampler_needs_what_sampling_needs_and_gradient_descent_a_graph(model):
    above = {}
    for way in ("unconstrained", "inexact", "gradient"):
        before, peak = peak_memory(64, way, model, STRICT)
        assert before > 100  # PyTorch alone
        above[way] = peak - before
    assert above["inexact"] < 1.15 * above["unconstrained"]
    assert above["gradient"] > 2 * above["inexact"]


def test_the_largest_batch_is_where_the_limit_is_passed(monkeypatch):
    monkeypatch.setattr(
        "studies.benchmarks.memory.peak_memory", lambda batch, *_: (500.0, 500.0 + 2 * batch)
    )
    config = MemoryBenchmark(batches=(16, 64), limit=1.5)
    assert 485 <= largest("inexact", config, {}, 500.0, 500.0 + 2 * 64) <= 500
    # predicted wrongly by a half
    assert 485 <= largest("inexact", config, {}, 500.0, 500.0 + 3 * 64) <= 500
    assert largest("inexact", MemoryBenchmark(batches=(64,), limit=0.4), {}, 500.0, 600.0) == 0


def test_the_benchmark_prints_its_table_and_measures_anew(monkeypatch, capsys, model, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "studies.benchmarks.memory.peak_memory",
        lambda batch, way, *_: (500.0, 500.0 + len(way) * batch),
    )
    status, out, _ = call(
        monkeypatch, capsys, "benchmark", "memory", "--model", model, "--batches", "10", "100"
    )
    assert status == 0
    words = ["glibc", "as", "it", "is", "100", "inexact", "500", "1200", "700", "0.667", "0.538"]
    assert words in [line.split() for line in out.splitlines()]
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("benchmark-memory-2")
    names = {"config.json", "manifest.json", "data.nc", "SHA256SUMS", "table.csv"}
    assert {path.name for path in folder.iterdir()} == names
    again = ("benchmark", "memory", "--model", model, "--batches", "10", "100", "--out", folder)
    status, _, err = call(monkeypatch, capsys, *again)
    assert status == 2
    assert "benchmark-memory measures anew: choose another --out" in err
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batches", "0"), "--batches must be at least 1"),
        (("--limit", "0"), "--limit positive"),
        (("--model", "unet"), "no model 'unet'"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, words, message):
    status, _, err = call(monkeypatch, capsys, "benchmark", "memory", *words)
    assert status == 2
    assert message in err


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "benchmark", "memory", "--help")
    assert status == 0
    assert "Example: jacobian-lab benchmark memory" in " ".join(out.split())

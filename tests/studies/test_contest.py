"""The contest: every method on the same problems, scores as defined, runs that fail shown, and a
search on other digits.
"""

import json
import sys

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.sampler import seed_of
from mnist.problems import problem
from studies.contest import (
    contest,
)
from studies.contest.contest import FIRST, OTHERS, Contest, Entry, execute
from studies.contest.contest_report import kernel_distance
from studies.contest.peers import Passes, Peer
from studies.frame.statistics import mean_interval, rate_interval
from studies.frame.study import run

TINY = {
    "tasks": ("half",),
    "digits": 4,
    "searched": 2,
    "again": 2,
    "budgets": (6, 12),
    "longest": 3,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The data and the rows of a tiny contest between four methods."""
    out = tmp_path_factory.mktemp("contest") / "run"
    folder = run(
        contest.STUDY,
        Contest(
            methods=("inexact Newton", "inexact Newton, paper", "DDNM", "DDIM"), out=out, **TINY
        ),
    )
    with np.load(folder / "data.npz") as stored:
        data = dict(stored)
    return data, contest.STUDY.table(data)


@pytest.mark.slow
def test_each_method_runs_within_its_budget_and_with_its_authors_settings(table):
    _, rows = table
    kinds = sorted((row["method"], row["setting"]) for row in rows)
    assert kinds == sorted(
        [("inexact Newton", "searched")] * 2
        + [("inexact Newton, paper", "authors")]
        + [
            (name, setting)
            for name in ("DDNM", "DDIM")
            for setting in ("authors", "searched", "searched")
        ]
    )
    for row in rows:
        if row["setting"] == "searched":
            assert 4 <= row["evaluations"] <= 14
        else:
            assert row["steps"] == 3
        assert row["evaluations"] == row["forward"] + row["jvp"] + row["vjp"]
        assert row["failed"] == 0
        assert row["ms_per_digit"] > 0
        assert row["peak_MB"] > 100
        for key in ("residual", "psnr", "ssim", "agreement"):
            assert row[f"{key}_low"] <= row[key] <= row[f"{key}_high"]


@pytest.mark.slow
def test_its_scores_are_those_of_the_images(table):
    data, rows = table
    images, labels = (x[FIRST : FIRST + 4] for x in mnist.digits("held-out"))
    entries = [json.loads(str(entry)) for entry in data["entries"]]
    at = next(
        i
        for i, entry in enumerate(entries)
        if (entry["method"], entry["setting"]) == ("DDNM", "authors")
    )
    found = torch.from_numpy(data["shown"][at])
    error = (found - images).square().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(data["psnr"][at], 10 * np.log10(4 / error), rtol=1e-3)
    assert data["residual"][at].max() < 1e-5  # DDNM meets the known half exactly
    named = mnist.load_classifier()(found).argmax(1)
    assert (data["agreement"][at] == (named == labels).numpy()).all()
    row = next(row for row in rows if (row["method"], row["setting"]) == ("DDNM", "authors"))
    assert row["psnr"] == pytest.approx(data["psnr"][at].mean())


def test_a_run_does_not_depend_on_how_many_digits_it_has():
    entry, config = (
        Entry("random", "inexact Newton", "searched", {"travel": 1.0, "newton_steps": 1}, 2),
        Contest(),
    )
    four, two = (
        execute(entry, config, FIRST, count, 0)["images"].astype(float) for count in (4, 2)
    )
    np.testing.assert_allclose(four[:2], two, atol=5e-3)
    first, _, _ = problem("random", FIRST, 2, 0)
    other, _, _ = problem("random", OTHERS, 2, 0)
    assert (first.mask != other.mask).any()


def test_a_run_that_diverges_is_counted_as_failed(monkeypatch):
    def fails(denoiser, constraint, seeds, steps):
        if seeds[0] == seed_of(0, 7, FIRST):
            raise DivergenceError("too far", [])
        return torch.zeros(len(seeds), *denoiser.shape)

    monkeypatch.setattr(contest, "BATCH", 2)
    monkeypatch.setattr(
        contest, "CONTESTANTS", (Peer("fails", "none", fails, {}, {}, Passes(1), 1, "nobody"),)
    )
    found = execute(Entry("half", "fails", "authors", {}, 1), Contest(), FIRST, 4, 0)
    assert np.isnan(found["psnr"]).tolist() == [True, True, False, False]


def test_the_kernel_distance_tells_noise_from_digits():
    judge = mnist.load_classifier()
    images = mnist.digits("held-out")[0][:200]
    real, other = (judge.features(part).detach().numpy() for part in (images[:100], images[100:]))
    noise = torch.randn(100, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    noise = judge.features(noise).detach().numpy()
    near, spread = kernel_distance(other, real)
    far, _ = kernel_distance(noise, real)
    assert abs(near) < 5 * spread
    assert far > 10 * spread


def test_intervals_cover():
    generator = np.random.default_rng(0)
    hits = [
        low < 1 < high
        for _, low, high in (mean_interval(generator.normal(1, 2, 20)) for _ in range(400))
    ]
    assert 0.92 < np.mean(hits) < 0.98
    rates = [
        low < 0.9 < high
        for _, low, high in (
            rate_interval(int(generator.binomial(50, 0.9)), 50) for _ in range(400)
        )
    ]
    assert 0.9 < np.mean(rates) <= 0.99
    assert np.isnan(mean_interval([1.0])[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("deblur",)}, "--tasks must be of half, box"),
        ({"methods": ()}, "--methods must be of inexact Newton"),
        ({"again": 300}, "--again from 2 to --digits"),
        ({"budgets": ()}, "--budgets and --longest must be at least 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Contest(**options)


def test_a_missing_library_is_named_before_anything_is_computed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "azula", None)
    with pytest.raises(InputError, match=r"jacobian-lab\[peers\]"):
        run(contest.STUDY, Contest(methods=("DDIM", "DPS"), out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())

"""The study `directions-budget` spends what it says, chooses as it says, and measures what it
says.
"""

import csv

import numpy as np
import pytest

import mnist
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from mnist.problems import PLAIN
from studies.sampling import directions_budget
from studies.sampling.directions_budget import DirectionsBudget
from studies.sampling.newton_settings import SEARCH, describe, evaluations_per_time

from conftest import call, stored


@pytest.mark.slow
def test_a_run_spends_its_budgets_and_measures_the_samples(monkeypatch, capsys, tmp_path, model):
    tried = [(kind, newton) for kind, newtons in SEARCH.items() for newton in newtons[::4]]
    monkeypatch.setattr(directions_budget, "TRIED", tried)
    words = [
        "--model",
        model,
        "--digit",
        "4",
        "--digits",
        "3",
        "--searched",
        "1",
        "--budgets",
        "11",
        "14",
        "--exact-digits",
        "1",
        "--exact-times",
        "1",
        "--rconds",
        "0.5",
        "--task",
        "box",
        "--seed",
        "5",
        "--out",
        tmp_path / "run",
    ]
    status, _, err = call(monkeypatch, capsys, "directions-budget", *words)
    assert status == 0, err
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    settings = {describe(newton): newton for _, newton in tried}
    runs = [row for row in rows if row["part"] == "run"]
    assert [(row["direction"], row["budget"]) for row in runs] == [
        (kind, budget) for kind in SEARCH for budget in ("11", "14")
    ]
    for row in runs:
        newton, spent = settings[row["setting"]], int(row["evaluations"])
        assert newton.direction == row["direction"]
        assert spent <= int(row["budget"]) < spent + evaluations_per_time(newton)
        assert int(row["vjp"]) == (
            int(row["times"]) * newton.steps if row["direction"] == "gradient" else 0
        )
    (exact,) = [row for row in rows if row["part"] == "outside the budget"]
    assert (exact["forward"], exact["vjp"], exact["digits"]) == ("2", "1024", "1")
    data = stored(tmp_path / "run")
    seeds, denoiser, images = (
        [seed_of(5, i) for i in (4, 5, 6)],
        mnist.load_denoiser(model),
        mnist.digits("held-out")[0][4:7],
    )
    *_, last = sample(
        denoiser,
        seeded_noise(seeds, denoiser.shape),
        denoiser.schedule.times(int(runs[1]["times"])),
        PLAIN["box"](images, seeds),
        settings[runs[1]["setting"]],
    )
    np.testing.assert_allclose(data["images"][1], last.x0.numpy(), atol=1e-5)
    assert float(runs[1]["residual"]) == pytest.approx(float(last.residual.mean()), rel=1e-4)
    searched = [row for row in rows if row["part"].startswith("search")]
    assert [(row["budget"], row["setting"]) for row in searched] == [
        (budget, words) for budget in ("11", "14") for words in settings
    ]
    assert {
        (row["budget"], row["setting"]) for row in searched if row["part"] == "search, chosen"
    } == {(row["budget"], row["setting"]) for row in runs}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "quarter"}, "--task must be of half, box"),
        ({"digit": 990}, "--digits must lie from 2 to 1000 less --digit, 10: got 24"),
        ({"exact_digits": 30}, "--exact-digits from 1 to --digits"),
        ({"budgets": (10,)}, "--budgets must be one or more different numbers from 11"),
        ({"budgets": ()}, "got none"),
        ({"tolerance": 0.0}, "--tolerance must be positive"),
        ({"rconds": (1.0,)}, "in [0, 1)"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace(")", r"\)")):
        DirectionsBudget(**options)

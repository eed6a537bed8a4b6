r"""Which direction gets the error down, and which keeps the sample a digit? Five, at equal numbers
of network evaluations.

Linear inverse problems on held-out digits (by default the left half is known), without a projection
at the end. Counted are passes of the whole batch: one for the sample, and for n Newton steps at
each time

    inexact, J e, and gradient, J^T e    2 n            Krylov, k products    n (k + 1)
    identity, e                          n              exact, J^+ e          1025 n: on few digits

so that the budget buys the times. Step size and number of steps are searched on other digits, at
each budget: of the settings that meet the constraint to `tolerance` the one that the judge doubts
least. How far a sample is from the digits is the distance to the nearest real one in the judge's
features, relative to that of the true digits: 1 is real.

Half known, 24 digits: `J e` and `J^T e` keep the digit: 1.1 times as far as real ones, 23 of 24
named rightly, hardly changed from 60 evaluations to 220; `J^T e` is ahead by 1 dB of PSNR and 0.02
of SSIM, and by nothing else. Krylov gets the error down as far (0.02), to samples 1.4 times as far
from real ones, 19 or 20 named rightly; with steps of size 1 to 0.003, 2.3 times as far, and x_t
swells 9 to 37 times. The identity gets it down furthest of those chosen, to 0.008, to samples twice
as far. The exact direction, on two digits at 85 times the price of 60, misses by 0.15 with rcond
0.5, and with 0.1 leaves no digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.sampling.newton import Kind, Newton
from jacobian_lab.sampling.sampler import seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Fixed
from mnist.problems import PLAIN
from studies.frame.answer import Answer
from studies.frame.figure_text import subject
from studies.frame.models import load_model
from studies.frame.options import OnDigits, model_files
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.survey import collect
from studies.sampling.directions_budget_report import MEASURES, VARIABLES, plot, table
from studies.sampling.newton_settings import (
    SEARCH,
    TRIED,
    affordable,
    choose,
    describe,
    evaluations_per_time,
)
from studies.sampling.observed_digits import ObservedDigits

OTHERS, REAL = 1000, range(3000, 5000, 500)
"""Held-out digits of the search, from here on, and those to which distances are measured, in
batches.
"""
SHOWN = 10


@dataclass(frozen=True)
class DirectionsBudget(OnDigits):
    """Compare directions at equal network evaluations. Example: jacobian-lab directions-budget
    --digits 4 --searched 2.
    """

    task: str = "half"
    """What is known of a digit: half, box, random, super-resolution, blur."""
    digits: int = 24
    """Digits: this many, from `digit` on, up to held-out digit 999. The default run took 25 minutes
    on a busy core.
    """
    searched: int = 12
    """Digits of the search, from held-out digit 1000 on."""
    budgets: tuple[int, ...] = (60, 110, 220)
    """Network evaluations: forward passes, J v and J^T u of the whole batch together."""
    tolerance: float = 0.03
    """RMSE of the observed numbers, pixels in [-1, 1], that a setting must reach in the search to
    be chosen by the judge.
    """
    exact_digits: int = 2
    """Digits for the exact direction, which computes the dense J at every step."""
    exact_times: int = 5
    """Sampling times of the exact direction, one Newton step each."""
    rconds: tuple[float, ...] = (0.5, 0.1)
    """Exact direction: singular values of J below rcond times the largest count as zero; a run for
    each.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in PLAIN:
            raise InputError(f"--task must be of {', '.join(PLAIN)}: got {self.task}")
        if not 2 <= self.digits <= OTHERS - self.digit:
            raise InputError(
                f"--digits must lie from 2 to {OTHERS} less --digit, {OTHERS - self.digit}: got"
                f" {self.digits}"
            )
        if (
            not 1 <= self.searched <= 1000
            or not 1 <= self.exact_digits <= self.digits
            or self.exact_times < 1
        ):
            raise InputError(
                "--searched must lie from 1 to 1000, --exact-digits from 1 to --digits, and"
                f" --exact-times be at least 1: got {self.searched}, {self.exact_digits},"
                f" {self.exact_times}"
            )
        least = 1 + max(evaluations_per_time(newton) for _, newton in TRIED)
        if (
            not self.budgets
            or not all(least <= b <= 1000 for b in self.budgets)
            or len(set(self.budgets)) != len(self.budgets)
        ):
            raise InputError(
                f"--budgets must be one or more different numbers from {least}, a sampling time and"
                f" a sample, to 1000: got {' '.join(map(str, self.budgets)) or 'none'}"
            )
        if not self.tolerance > 0:
            raise InputError(f"--tolerance must be positive: got {self.tolerance}")
        if not all(0 <= rcond < 1 for rcond in self.rconds):
            raise InputError(
                f"--rconds are relative to the largest singular value, in [0, 1): got {self.rconds}"
            )

    def cells(self) -> list[tuple[int, tuple[Kind, Newton]]]:
        """Return the budgets and settings of the search, in the order of the arrays."""
        return list(product(self.budgets, TRIED))


@dataclass(frozen=True)
class Plan:
    """A run: its Newton steps, the budget for which they were chosen, 0 for none, and the sampling
    times.
    """

    newton: Newton
    budget: int
    times: int


def observe(config: DirectionsBudget, *parts: slice) -> list[ObservedDigits]:
    """Return the observations of some held-out digits, for each part of them."""
    denoiser, judge = (
        load_model(config.model, config.device),
        mnist.load_classifier(device=config.device),
    )
    digits, labels = (x.to(config.device) for x in mnist.digits("held-out"))
    with torch.no_grad():
        real = torch.cat([judge.features(digits[i : i + REAL.step]) for i in REAL])
    found = []
    for part in parts:
        seeds = [seed_of(config.seed, i) for i in range(part.start, part.stop)]
        constraint = PLAIN[config.task](digits[part], seeds)
        noise = seeded_noise(seeds, denoiser.shape, config.device)
        found.append(
            ObservedDigits(denoiser, judge, constraint, noise, digits[part], labels[part], real)
        )
    return found


def compute(config: DirectionsBudget, pieces: Pieces) -> Arrays:
    """Return the runs, their measures, (runs, digits), and paths, (runs, states), and what the
    search saw.
    """
    other, shown = observe(
        config,
        slice(OTHERS, OTHERS + config.searched),
        slice(config.digit, config.digit + config.digits),
    )
    searched = search_settings(config, other, pieces)
    plans = [
        Plan(newton, budget, affordable(newton, budget))
        for budget, (_, newton) in (config.cells()[c] for c in searched["chosen"])
    ]
    plans += [
        Plan(Newton("exact", 1, Fixed(1.0), rcond=rcond, refresh=False), 0, config.exact_times)
        for rcond in config.rconds
    ]
    few = shown.select(slice(config.exact_digits))
    work = {
        f"run-{i}": partial(solve, shown if plan.budget else few, plan)
        for i, plan in enumerate(plans)
    }
    runs = pieces.each("runs", work)
    observed = shown.constraint.pseudo_inverse(shown.constraint.y)[:SHOWN]
    return (
        searched
        | gather(runs, shown.denoiser.shape)
        | {
            "truth": shown.images[:SHOWN].cpu().numpy(),
            "observed": observed.cpu().numpy(),
            "distance_of_real": shown.distance(shown.images).cpu().numpy(),
            "direction": np.array([plan.newton.direction for plan in plans]),
            "budget": np.array([plan.budget for plan in plans]),
            "setting": np.array([describe(plan.newton) for plan in plans]),
            "tolerance": np.array(config.tolerance),
            "task": np.array(config.task),
            **subject(config),
        }
    )


def search_settings(config: DirectionsBudget, problem: ObservedDigits, pieces: Pieces) -> Arrays:
    """Return the measures of every setting at every budget, (budgets times settings, digits), and
    which are "chosen", for each direction and budget.
    """
    found = collect(
        pieces,
        "search",
        lambda budget, i: {
            key: value
            for key, value in problem.solve(TRIED[i][1], affordable(TRIED[i][1], budget)).items()
            if key in MEASURES
        },
        budget=config.budgets,
        setting=range(len(TRIED)),
    )
    saw = {key: value.reshape(-1, value.shape[-1]) for key, value in found.items()}
    cells = config.cells()
    chosen = [
        choose(
            saw,
            [c for c, (b, (of, _)) in enumerate(cells) if (of, b) == (kind, budget)],
            config.tolerance,
        )
        for kind in SEARCH
        for budget in config.budgets
    ]
    return {f"search_{key}": value for key, value in saw.items()} | {
        "search_distance_of_real": problem.distance(problem.images).cpu().numpy(),
        "search_direction": np.array([kind for _, (kind, _) in cells]),
        "search_budget": np.array([budget for budget, _ in cells]),
        "search_setting": np.array([describe(newton) for _, (_, newton) in cells]),
        "chosen": np.array(chosen),
    }


def solve(problem: ObservedDigits, plan: Plan) -> Arrays:
    """Return a run of a plan."""
    return problem.solve(plan.newton, plan.times)


def gather(runs: list[Arrays], shape: tuple[int, ...]) -> Arrays:
    """Return the measures of runs, (runs, digits), their paths, (runs, states), medians of the
    digits, and the first images; the shorter ones end in NaN.
    """
    paths = {
        key: [np.median(np.nan_to_num(run[key], nan=np.inf), 0) for run in runs]
        for key in ("residuals", "sizes")
    }
    paths["evaluations"] = [run["passes"].sum(1) for run in runs]
    images = _stack([run["images"][:SHOWN].reshape(-1) for run in runs])
    return (
        {key: _stack([run[key] for run in runs]) for key in MEASURES}
        | {key: _stack(values) for key, values in paths.items()}
        | {
            "passes": np.stack([run["passes"][-1] for run in runs]),
            "times": np.stack([run["times"] for run in runs]),
            "images": images.reshape(len(runs), -1, *shape),
            "count": np.array([len(run["residual"]) for run in runs]),
        }
    )


def _stack(values: list[Any]) -> Any:
    """Stack vectors of different lengths, the shorter ones ending in NaN."""
    longest = max(map(len, values))
    return np.stack(
        [
            np.pad(value.astype(np.float64), (0, longest - len(value)), constant_values=np.nan)
            for value in values
        ]
    )


ANSWER = Answer(
    ("direction", "budget", "setting", "residual", "psnr", "agreement", "doubt", "distance"),
    lambda row: row["part"] in ("run", "outside the budget"),
)
STUDY = Study(
    "directions-budget",
    DirectionsBudget,
    compute,
    table,
    plot,
    models=lambda config: {**model_files(config), "classifier": "classifier"},
    answer=ANSWER,
    variables=VARIABLES,
)

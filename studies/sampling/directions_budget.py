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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import mnist
from jacobian_lab import Denoiser, InputError
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.newton import Kind, Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, Fixed, Secant, StepSize
from mnist.classifier import Classifier
from studies.contest.problems import TASKS
from studies.frame.models import load_model
from studies.frame.options import OnDigits, model_files
from studies.frame.statistics import scores
from studies.frame.study import Arrays, Pieces, Study
from studies.sampling.directions_budget_report import MEASURES, plot, table

OTHERS, REAL = 1000, range(3000, 5000, 500)
"""Held-out digits of the search, from here on, and those to which distances are measured, in
batches.
"""
SHOWN = 10
SMALL, SIZES = (1, 5), (0.1, 0.2, 0.4)
SEARCH: dict[Kind, list[Newton]] = {
    "inexact": [Newton("inexact", n, Secant(c), refresh=False) for n in SMALL for c in SIZES],
    "gradient": [Newton("gradient", n, Dynamic(c), refresh=False) for n in SMALL for c in SIZES],
    "krylov": [
        Newton("krylov", 1, rule, krylov_steps=k, refresh=False)
        for k in (2, 3)
        for rule in (Dynamic(0.2), Dynamic(0.4), Fixed(1.0))
    ],
    "identity": [
        Newton("identity", n, Fixed(size), refresh=False) for n in SMALL for size in (0.1, 0.3, 1.0)
    ],
}
"""Six settings for each direction."""


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
        if self.task not in TASKS:
            raise InputError(f"--task must be of {', '.join(TASKS)}: got {self.task}")
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
        least = 1 + max(price(newton) for newtons in SEARCH.values() for newton in newtons)
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


def price(newton: Newton) -> int:
    """Return the evaluations of a time with a rule that costs nothing, without `refresh`."""
    products = {"identity": 0, "krylov": newton.krylov_steps}.get(newton.direction, 1)
    return newton.steps * (1 + products)


def describe(newton: Newton) -> str:
    """Return a setting in words."""
    rule: StepSize = newton.step_size
    size = (
        f"{rule.size:g}"
        if isinstance(rule, Fixed)
        else f"c = {rule.c:g}"
        if isinstance(rule, (Dynamic, Secant))
        else ""
    )
    extra = {"krylov": f", k = {newton.krylov_steps}", "exact": f", rcond = {newton.rcond}"}.get(
        newton.direction, ""
    )
    return f"{type(rule).__name__} {size}, n = {newton.steps}{extra}"


@dataclass(frozen=True)
class Problem:
    """Observations of some held-out digits, and who judges what is made of them."""

    denoiser: Denoiser
    judge: Classifier
    constraint: LinearConstraint
    noise: Tensor
    images: Tensor
    labels: Tensor
    real: Tensor
    """Features of real digits, none of which is observed."""

    def select(self, part: slice) -> Problem:
        """Return the problem of some of the digits."""
        return Problem(
            self.denoiser,
            self.judge,
            self.constraint.select(part),
            self.noise[part],
            self.images[part],
            self.labels[part],
            self.real,
        )

    def distance(self, images: Tensor) -> Tensor:
        """Return the distance of each image to the nearest real digit in the judge's features."""
        with torch.no_grad():
            return torch.cdist(self.judge.features(images.clamp(-1, 1)), self.real).amin(1)

    def run(self, newton: Newton, times: int) -> Arrays:
        """Sample, and return the path, (digits, states), the passes, the samples, and what they are
        worth, (digits,).
        """
        found = follow(self, newton, times)
        drawn = torch.from_numpy(found["images"]).to(self.images)
        failed = np.isnan(found["images"]).any((1, 2, 3))
        worth = scores(drawn.nan_to_num(), self.images, self.labels, self.judge) | {
            "distance": self.distance(drawn.nan_to_num()).cpu().numpy()
        }
        return (
            found
            | {key: np.where(failed, np.nan, value) for key, value in worth.items()}
            | {
                "residual": found["residuals"][:, -1],
                "size": found["sizes"].max(1),
                "times": np.array(times),
            }
        )


def follow(problem: Problem, newton: Newton, times: int) -> Arrays:
    """Sample; return each state's "residuals" and "sizes", |x_t| relative to what the true digit's
    would be, and "images".

    Where a digit diverges the others go on without it, and it has NaN from there.
    """
    schedule, square = problem.denoiser.schedule, problem.images.square().mean((1, 2, 3))
    states = times * newton.steps + 1
    residuals, sizes = (np.full((len(problem.noise), states), np.nan) for _ in range(2))
    passes = np.zeros((states, 3), dtype=int)
    images = np.full(problem.images.shape, np.nan, dtype=np.float32)
    try:
        for k, state in enumerate(
            sample(
                problem.denoiser, problem.noise, schedule.times(times), problem.constraint, newton
            )
        ):
            assert state.residual is not None
            alpha_t, sigma_t = (float(c) for c in schedule(state.t))
            size = state.x_t.square().mean((1, 2, 3)) / (alpha_t**2 * square + sigma_t**2)
            residuals[:, k], sizes[:, k] = state.residual.cpu().numpy(), size.sqrt().cpu().numpy()
            passes[k] = state.spent.forward, state.spent.jvp, state.spent.vjp
            if k == states - 1:
                images = state.x0.cpu().numpy()
    except DivergenceError:
        if len(problem.noise) > 1:
            middle = len(problem.noise) // 2
            a, b = (
                follow(problem.select(part), newton, times)
                for part in (slice(None, middle), slice(middle, None))
            )
            return {
                key: (
                    np.maximum(a[key], b[key])
                    if key == "passes"
                    else np.concatenate([a[key], b[key]])
                )
                for key in a
            }
    return {"residuals": residuals, "sizes": sizes, "passes": passes, "images": images}


def compute(config: DirectionsBudget, pieces: Pieces) -> Arrays:
    """Return the runs, their measures, (runs, digits), and paths, (runs, states), and what the
    search saw.
    """
    denoiser, judge = (
        load_model(config.model, config.device),
        mnist.load_classifier(device=config.device),
    )
    digits, labels = (x.to(config.device) for x in mnist.digits("held-out"))
    with torch.no_grad():
        real = torch.cat([judge.features(digits[i : i + REAL.step]) for i in REAL])

    def problem(first: int, count: int) -> Problem:
        part = slice(first, first + count)
        seeds = [seed_of(config.seed, i) for i in range(part.start, part.stop)]
        noise = seeded_noise(seeds, denoiser.shape, config.device)
        return Problem(
            denoiser,
            judge,
            TASKS[config.task](digits[part], seeds),
            noise,
            digits[part],
            labels[part],
            real,
        )

    other, shown = problem(OTHERS, config.searched), problem(config.digit, config.digits)
    tried = [(kind, newton) for kind, newtons in SEARCH.items() for newton in newtons]
    cells = [(budget, i) for budget in config.budgets for i in range(len(tried))]

    def searched(budget: int, newton: Newton) -> Arrays:
        return _measures(other.run(newton, (budget - 1) // price(newton)))

    rows = [
        pieces(f"search-{b}-{i}", partial(searched, b, tried[i][1]))
        for b, i in tqdm(cells, desc="search", unit="setting")
    ]
    saw = {key: np.stack([row[key] for row in rows]) for key in MEASURES}
    best = [
        choose(
            saw,
            [c for c, (b, i) in enumerate(cells) if (tried[i][0], b) == (kind, budget)],
            config.tolerance,
        )
        for kind in SEARCH
        for budget in config.budgets
    ]
    plans = [
        (tried[i][1], budget, (budget - 1) // price(tried[i][1]))
        for budget, i in (cells[c] for c in best)
    ]
    plans += [
        (Newton("exact", 1, Fixed(1.0), rcond=rcond, refresh=False), 0, config.exact_times)
        for rcond in config.rconds
    ]
    few = shown.select(slice(config.exact_digits))
    runs = [
        pieces(f"run-{i}", partial((shown if budget else few).run, newton, times))
        for i, (newton, budget, times) in enumerate(tqdm(plans, desc="runs", unit="run"))
    ]
    paths = {
        key: [np.median(np.nan_to_num(run[key], nan=np.inf), 0) for run in runs]
        for key in ("residuals", "sizes")
    }
    paths["evaluations"] = [run["passes"].sum(1) for run in runs]
    first = shown.images[:SHOWN]
    observed = shown.constraint.pseudo_inverse(shown.constraint.y)[:SHOWN]
    return (
        {key: _stack([run[key] for run in runs]) for key in MEASURES}
        | {key: _stack(values) for key, values in paths.items()}
        | {f"search_{key}": value for key, value in saw.items()}
        | {
            "passes": np.stack([run["passes"][-1] for run in runs]),
            "times": np.stack([run["times"] for run in runs]),
            "images": (
                _stack([run["images"][:SHOWN].reshape(-1) for run in runs]).reshape(
                    len(runs), -1, *denoiser.shape
                )
            ),
            "truth": first.cpu().numpy(),
            "observed": observed.cpu().numpy(),
            "distance_of_real": shown.distance(shown.images).cpu().numpy(),
            "search_distance_of_real": other.distance(other.images).cpu().numpy(),
            "direction": np.array([newton.direction for newton, _, _ in plans]),
            "budget": np.array([b for _, b, _ in plans]),
            "setting": np.array([describe(newton) for newton, _, _ in plans]),
            "count": np.array([len(run["residual"]) for run in runs]),
            "search_direction": np.array([tried[i][0] for _, i in cells]),
            "search_budget": np.array([b for b, _ in cells]),
            "search_setting": np.array([describe(tried[i][1]) for _, i in cells]),
            "chosen": np.array(best),
            "tolerance": np.array(config.tolerance),
        }
    )


def choose(saw: Arrays, settings: list[int], tolerance: float) -> int:
    """Return the setting with the least doubt of those whose mean residual is within the tolerance;
    else the least residual.
    """
    worth = {
        i: (
            np.nan_to_num(saw["residual"][i], nan=np.inf).mean(),
            np.nan_to_num(saw["doubt"][i], nan=np.inf).mean(),
        )
        for i in settings
    }
    within = [i for i in settings if worth[i][0] <= tolerance]
    return (
        min(within, key=lambda i: worth[i][1])
        if within
        else min(settings, key=lambda i: worth[i][0])
    )


def _measures(run: Arrays) -> Arrays:
    return {key: run[key] for key in MEASURES}


def _stack(values: list[Any]) -> Any:
    """Stack vectors of different lengths, the shorter ones ending in NaN."""
    longest = max(map(len, values))
    return np.stack(
        [
            np.pad(value.astype(np.float64), (0, longest - len(value)), constant_values=np.nan)
            for value in values
        ]
    )


STUDY = Study(
    "directions-budget",
    DirectionsBudget,
    compute,
    table,
    plot,
    models=lambda config: {**model_files(config), "classifier": "classifier"},
)

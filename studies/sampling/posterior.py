r"""Do samples under a linear constraint follow the posterior p(x_0 | y)? Random curves of 32
points, whose posterior is known.

Two priors, a smooth Gaussian process and a mixture of three that part in their right half; two
observations, of the left half itself and of its means over 4 points with noise; every direction of
a Newton step, and three samplers beside them: free; with the exact denoiser of the posterior, E[x_0
| x_t, y], which has the error of the sampler's steps alone; and with MMPS, what that denoiser is
where p(x_0 | x_t) is Gaussian, its covariance `sigma_t^2 / alpha_t J` by Tweedie:

    E[x_0 | x_t, y] = D + J z,   z = A^T (A J A^T + sigma^2 alpha_t / sigma_t^2)^{-1} (y - A D)

On a Gaussian D is affine and D(x_t + z) is just this: the right Newton move lies in the range of
A^T, on the known points. Of all that meet the observation it has the least `delta^T J delta`.
Directions that never leave the known points end there: e itself (identity), repeated, and GMRES on
`P J delta = e` from e, at once. The others end at the move of least |delta|: J^+ e at once, J e and
J^T e when repeated.

What is found, in posterior standard deviations of the mean, where 300 exact samples are off by
0.06. MMPS is as near as the exact denoiser, 0.03 to 0.05, and so is Krylov Newton where the
observation has no noise: 0.03 to 0.05 by GMRES(10), forward passes only, and 0.04 to 0.34 by
GMRES(3); with noise, up to 0.31 without fresh noise (eta = 0) and 0.10 with it (eta = 1), for its e
stops at the noise of the observation. The covariance and the mixture's weights are right too. e
comes close with fresh noise only, 0.05 to 0.29. J e does not sample the posterior: the paper's
steps are off by 0.3 to 1.1 without fresh noise and by 0.13 to 0.42 with it, the minimiser by up to
3.6; they favour a component of the mixture by 0.13 to 0.35 of the weight, the minimiser by up to
0.67, and shrink the spread by at most 14 % and 42 %. J^T e is the same, J being symmetric. J^+ e
with step 1 meets the observation of the Gaussian to 1e-13 at every time and is the worst of all:
the least |delta| uses directions in which x_t hardly varies, and the curve breaks where the known
half ends.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from jacobian_lab import DiscreteSchedule, InputError
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, ExactMinimiser, Fixed, Secant
from studies.frame.answer import Row
from studies.frame.figure_style import COLOURS
from studies.frame.study import Arrays, Config, Pieces, Study
from studies.sampling.random_curves import (
    OBSERVATIONS,
    ORACLES,
    SCORES,
    N,
    Problem,
    make_problem,
    moments,
    scores,
)

ETAS = (0.0, 1.0)
PATHS = 8
"""Samples that are shown."""
FREE, EXACT_DENOISER, MMPS = "free", "E[x_0 | x_t, y]", "MMPS"
WAYS: dict[str, Callable[[int], Newton] | None] = {
    EXACT_DENOISER: None,
    MMPS: None,
    FREE: None,
    "J e, dynamic": lambda steps: Newton("inexact", steps, Dynamic(0.2)),
    "J e, secant": lambda steps: Newton("inexact", steps, Secant(0.2)),
    "J e, minimiser": lambda steps: Newton("inexact", steps, ExactMinimiser()),
    "J^T e, minimiser": lambda steps: Newton("gradient", steps, ExactMinimiser()),
    "J^+ e, step 1": lambda _: Newton("exact", 1, Fixed(1.0), rcond=1e-13),
    "J^+ e, rcond 0.1, step 1": lambda _: Newton("exact", 1, Fixed(1.0), rcond=0.1),
    "GMRES(3), step 1": lambda _: Newton("krylov", 1, Fixed(1.0), krylov_steps=3),
    "GMRES(10), step 1": lambda _: Newton("krylov", 1, Fixed(1.0), krylov_steps=10),
    "e, step 1": lambda _: Newton("identity", 1, Fixed(1.0)),
    "e, minimiser": lambda steps: Newton("identity", steps, ExactMinimiser()),
}
"""The samplers, and the Newton steps with their step sizes, given how many there are at each
time.
"""
SHADES = {"Gaussian": "#0072b2", "mixture": "#d55e00"}
SHOWN = (EXACT_DENOISER, MMPS, "J e, secant", "J^+ e, step 1", "e, minimiser")


@dataclass(frozen=True)
class Posterior(Config):
    """Compare constrained samples with the exact posterior. Example: jacobian-lab posterior
    --samples 50 --curves 1.
    """

    samples: int = 300
    """Samples of each posterior."""
    exact_samples: int = 20
    """The same for J^+ e, which takes the dense J of each sample at each time."""
    curves: int = 3
    """Curves that are observed; errors are means over them."""
    steps: int = 40
    """Sampling times."""
    newton_steps: int = 5
    """Newton steps at each time; one for J^+ e and for GMRES."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.samples, self.exact_samples) < PATHS or min(self.curves, self.newton_steps) < 1:
            raise InputError(
                f"--samples and --exact-samples must be at least {PATHS}, --curves and"
                f" --newton-steps at least 1: got {self.samples}, {self.exact_samples},"
                f" {self.curves}, {self.newton_steps}"
            )
        DiscreteSchedule.linear().times(self.steps)  # an impossible number is refused here


def draw(
    problem: Problem, way: str, eta: float, seeds: list[int], config: Posterior
) -> tuple[Tensor, Arrays]:
    """Return samples, (B, n), and what they took: "residual", "worst" and "passes"; NaN if they
    diverged.
    """
    denoiser = {EXACT_DENOISER: problem.posterior.denoiser, MMPS: problem.matched}.get(
        way, problem.prior.denoiser
    )()
    make = WAYS[way]
    newton = make(config.newton_steps) if make else None
    noise = seeded_noise(seeds, denoiser.shape, dtype=torch.float64)
    x, worst, passes = torch.full_like(noise, torch.nan), 0.0 if newton else math.nan, 0
    try:
        times, constraint = (
            denoiser.schedule.times(config.steps),
            (problem.constraint if newton else None),
        )
        for state in sample(denoiser, noise, times, constraint, newton, eta=eta, seeds=seeds):
            if newton and state.residual is not None and state.step == newton.steps:
                worst = max(worst, float(state.residual.max()))
            passes = state.spent.evaluations
        x = state.x0
    except DivergenceError:
        worst = math.inf
    return x.flatten(1), {
        "residual": np.array(float(problem.constraint.residual(x).mean())),
        "worst": np.array(worst),
        "passes": np.array(passes),
    }


def compute(config: Posterior, pieces: Pieces) -> Arrays:
    """Return scores, (runs, curves, scores), floors alike, what runs took, and paths, means of the
    first curve.
    """
    problems = {
        key: [make_problem(*key, seed_of(config.seed, i)) for i in range(config.curves)]
        for key in itertools.product(ORACLES, OBSERVATIONS)
    }
    runs = [(*key, way, eta) for key in problems for way in WAYS for eta in ETAS]

    def one(key: tuple[str, str], way: str, eta: float) -> Arrays:
        count = config.exact_samples if way.startswith("J^+") else config.samples
        found: dict[str, list[Any]] = {
            "score": [],
            "floor": [],
            "residual": [],
            "worst": [],
            "passes": [],
        }
        for i, problem in enumerate(problems[key]):
            x, took = draw(
                problem, way, eta, [seed_of(config.seed, i, k) for k in range(count)], config
            )
            exact = [
                problem.posterior.sample(count, torch.Generator().manual_seed(k)) for k in range(20)
            ]
            found["score"].append(scores(problem, x))
            found["floor"].append(
                np.mean([scores(problem, drawn.flatten(1)) for drawn in exact], axis=0)
            )
            for name, value in took.items():
                found[name].append(value)
            if i == 0:
                first = {"paths": x[:PATHS].numpy()}
        return (
            {name: np.array(values) for name, values in found.items()}
            | first
            | {"count": np.array(count)}
        )

    found = [
        pieces(
            f"{oracle}-{observation}-{list(WAYS).index(way)}-{eta:g}",
            partial(one, (oracle, observation), way, eta),
        )
        for oracle, observation, way, eta in tqdm(runs, desc="posterior", unit="run")
    ]
    shown = [problems[oracle, "half"][0] for oracle in ORACLES]
    truth = [moments(problem.posterior) for problem in shown]
    return {key: np.stack([run[key] for run in found]) for key in found[0]} | {
        "runs": np.array(runs),
        "true_mean": torch.stack([mean for mean, _ in truth]).numpy(),
        "true_std": torch.stack([covariance.diagonal().sqrt() for _, covariance in truth]).numpy(),
        "true_paths": (
            torch.stack(
                [
                    problem.posterior.sample(PATHS, torch.Generator().manual_seed(0)).flatten(1)
                    for problem in shown
                ]
            ).numpy()
        ),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each prior, observation, direction and eta; errors beside those of as many
    exact samples, the floors.
    """
    rows: list[Row] = []
    for r, (oracle, observation, way, eta) in enumerate(arrays["runs"].tolist()):
        score, floor = (
            dict(zip(SCORES, arrays[key][r].mean(0).tolist(), strict=True))
            for key in ("score", "floor")
        )
        rows.append(
            {
                "prior": oracle,
                "observation": observation,
                "direction_and_step": way,
                "eta": float(eta),
                "samples": int(arrays["count"][r]),
                "passes": int(arrays["passes"][r].max()),
                "residual": float(arrays["residual"][r].mean()),
                "largest_residual_after_the_steps_of_any_time": float(arrays["worst"][r].max()),
                "mean_error": score["mean"],
                "mean_floor": floor["mean"],
                "covariance_error": score["covariance"],
                "covariance_floor": floor["covariance"],
                "spread": score["spread"],
                "weights_error": score["weights"],
                "weights_floor": floor["weights"],
            }
        )
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw samples of the first curve, its left half known, without fresh noise; below, the errors
    of all.
    """
    figure = Figure(figsize=(7.2, 6.6))
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    panels = parts[0].subplots(len(ORACLES), 1 + len(SHOWN), sharex=True, sharey="row")
    runs = [tuple(run) for run in arrays["runs"].tolist()]
    for k, oracle in enumerate(ORACLES):
        band = arrays["true_mean"][k], arrays["true_std"][k]
        _draw_curves(panels[k, 0], arrays["true_paths"][k], band, "#333333")
        for axes, way in zip(panels[k, 1:], SHOWN, strict=True):
            _draw_curves(
                axes, arrays["paths"][runs.index((oracle, "half", way, "0.0"))], band, _colour(way)
            )
        panels[k, 0].set_ylabel(f"{oracle} prior\n$x_0$")
        panels[k, 0].set_ylim(
            float((band[0] - 4 * band[1]).min()), float((band[0] + 4 * band[1]).max())
        )
    for axes, title in zip(panels[0], ("exact posterior", *map(_label, SHOWN)), strict=True):
        axes.set_title(title)
    panels[0, 0].set_xticks([0, N // 2, N])
    parts[0].supxlabel(
        rf"point; known left of the line; {PATHS} samples, $\eta$ = 0; gray: mean $\pm$ 2 standard"
        r" deviations "
        "of the posterior",
        fontsize=8,
    )
    for axes, (name, label) in zip(
        parts[1].subplots(1, 3, sharey=True),
        {
            "mean": r"$|m - m^*| \,/\, \sqrt{\mathrm{tr}\, C^*}$",
            "covariance": r"$|C - C^*|_F \,/\, |C^*|_F$",
            "weights": "total variation of the\nmixture's weights",
        }.items(),
        strict=True,
    ):
        _draw_errors(axes, arrays, runs, name)
        axes.set(xscale="linear" if name == "weights" else "log", xlabel=label)
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
    parts[1].axes[0].set_yticks(range(len(WAYS)), [_label(way) for way in WAYS])
    parts[1].axes[0].invert_yaxis()
    parts[1].legend(
        *parts[1].axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    return figure


def _draw_curves(axes: Axes, paths: Any, band: tuple[Any, Any], colour: str) -> None:
    x = np.arange(N)
    axes.fill_between(x, band[0] - 2 * band[1], band[0] + 2 * band[1], color="#dddddd", linewidth=0)
    axes.axvline(N / 2 - 0.5, color="#999999", linewidth=0.5)
    axes.plot(x, paths.T, color=colour, linewidth=0.7)


def _draw_errors(axes: Axes, arrays: Arrays, runs: list[tuple[str, ...]], name: str) -> None:
    """Draw one score of every run; the floor of as many exact samples as a tick."""
    column = SCORES.index(name)
    oracles = ORACLES if name != "weights" else ("mixture",)
    cases = list(itertools.product(oracles, OBSERVATIONS))
    for k, (oracle, observation) in enumerate(cases):
        y = np.arange(len(WAYS)) + 0.18 * (k - (len(cases) - 1) / 2)
        for eta in ETAS:
            chosen = [
                r
                for r, run in enumerate(runs)
                if run[:2] == (oracle, observation) and float(run[3]) == eta
            ]
            axes.plot(
                arrays["score"][chosen, :, column].mean(1),
                y,
                "os"[OBSERVATIONS.index(observation)],
                color=SHADES[oracle],
                markersize=3.5,
                markerfacecolor=None if eta else "none",
                markeredgewidth=0.8,
                label=rf"{oracle}, {observation}, $\eta$ = {eta:g}",
            )
        axes.plot(
            arrays["floor"][chosen, :, column].mean(1),
            y,
            "|",
            color="#999999",
            markersize=4,
            label="as many exact samples" if not k else None,
        )


def _label(way: str) -> str:
    """Return the name of a way as mathematics."""
    for plain, drawn in {
        "E[x_0 | x_t, y]": r"$E[x_0 \,|\, x_t, y]$",
        "J^T e": "$J^T e$",
        "J^+ e": "$J^+ e$",
        "J e": "$J e$",
        "e,": "$e$,",
    }.items():
        if way.startswith(plain):
            return way.replace(plain, drawn, 1)
    return way


def _colour(way: str) -> str:
    kind = {"J e": "inexact", "J^+": "exact", "J^T": "gradient"}.get(way[:3], "")
    return COLOURS.get(kind, "#cc79a7")


STUDY = Study("posterior", Posterior, compute, table, plot, models=lambda _: {})

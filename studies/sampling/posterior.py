r"""Do samples under a linear constraint follow the posterior p(x_0 | y)? Random curves of 32
points, whose posterior is known.

Two priors, a smooth Gaussian process and a mixture of three that part in their right half; two
observations, of the left half itself and of its means over 4 points with noise. Fair samples,
`Newton.fair`, are beside exact ones and two references: the exact denoiser of the posterior, E[x_0
| x_t, y], which has the error of the sampler's steps alone; and MMPS, what that denoiser is where
p(x_0 | x_t) is Gaussian, its covariance `sigma_t^2 / alpha_t J` by Tweedie, with the dense J:

    E[x_0 | x_t, y] = D + J A^T z,   (A J A^T + sigma^2 alpha_t / sigma_t^2) z = y - A D

"fair(k)" solves this by k products J v, forward passes only; fewer where fewer numbers are
observed. "likeliest" is what the contest's inexact Newton does: J e, a step that brakes, and a
temperature below 1. The others move x_t, at temperature 1, along each direction of a Newton step.

The scores: error of the mean, in standard deviations of the posterior, and of the covariance; the
weights of the mixture's components; and how many samples lie in the regions of highest density that
hold 50 and 90 % of the posterior. Exact samples, as many, tell how far these are off by chance.

What is found. fair(10) is MMPS in every score, with noise and without, and both have no other error
than the exact denoiser; fair(5) is too where four numbers are observed, and is off by 0.1 to 0.2 in
the mean where sixteen are. likeliest halves the spread of the Gaussian, and fills the 50 % region
with up to 96 % of its samples: it draws likely curves, and no fair ones. Nor do steps that move
x_t, but for GMRES on `P J delta = e` where y has no noise: any x_t whose D meets y is then right.
With noise only the x_t that was there is. J^+ e with step 1 meets the observation of the Gaussian
at every time and is the worst of all: the least |delta| uses directions in which x_t hardly varies,
and the curve breaks where the known half ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import DiscreteSchedule, InputError
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, ExactMinimiser, Fixed, Secant
from studies.frame.figure_text import subject
from studies.frame.study import Arrays, Config, Pieces, Study
from studies.frame.survey import collect
from studies.sampling.posterior_plot import ETAS, PATHS, VARIABLES, plot
from studies.sampling.posterior_table import (
    ANSWER,
    EXACT,
    EXACT_DENOISER,
    FREE,
    LIKELIEST,
    MMPS,
    table,
)
from studies.sampling.random_curves import (
    OBSERVATIONS,
    ORACLES,
    SCORES,
    CurveProblem,
    make_problem,
    mixture_moments,
    posterior_errors,
)

WAYS: dict[str, Callable[[Posterior], Newton] | None] = {
    EXACT: None,
    EXACT_DENOISER: None,
    MMPS: None,
    "fair(10)": lambda _: Newton.fair(10),
    "fair(5)": lambda _: Newton.fair(5),
    LIKELIEST: lambda config: Newton("inexact", 1, Secant(20 / config.steps), refresh=False),
    FREE: None,
    "J e, dynamic": lambda config: Newton("inexact", config.newton_steps, Dynamic(0.2)),
    "J e, minimiser": lambda config: Newton("inexact", config.newton_steps, ExactMinimiser()),
    "J^T e, minimiser": lambda config: Newton("gradient", config.newton_steps, ExactMinimiser()),
    "J^+ e, step 1": lambda _: Newton("exact", 1, Fixed(1.0), rcond=1e-13),
    "J^+ e, rcond 0.1, step 1": lambda _: Newton("exact", 1, Fixed(1.0), rcond=0.1),
    "GMRES(10), step 1": lambda _: Newton("krylov", 1, Fixed(1.0), krylov_steps=10),
    "e, step 1": lambda _: Newton("identity", 1, Fixed(1.0)),
}
"""The samplers, and how they take their Newton steps."""
SETS = 40
"""Sets of as many exact samples, which tell what errors are those of the number of samples."""
TEMPERATURE = {LIKELIEST: 0.5}


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
    steps: int = 100
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


def sample_posterior(
    problem: CurveProblem, way: str, eta: float, seeds: list[int], config: Posterior
) -> tuple[Tensor, Arrays]:
    """Return samples, (B, n), and what they took: "residual", "worst" and "passes"; NaN if one
    diverged.
    """
    if way == EXACT:
        drawn = problem.posterior.sample(len(seeds), torch.Generator().manual_seed(seeds[0]))
        return drawn.flatten(1), _took(problem, drawn)
    denoiser = {EXACT_DENOISER: problem.posterior.denoiser, MMPS: problem.matched}.get(
        way, problem.prior.denoiser
    )()
    make = WAYS[way]
    newton = make(config) if make else None
    noise = seeded_noise(seeds, denoiser.shape, dtype=torch.float64)
    x, worst, passes = torch.full_like(noise, torch.nan), 0.0 if newton else math.nan, (0.0, 0.0)
    try:
        times, constraint = (
            denoiser.schedule.times(config.steps),
            (problem.constraint if newton else None),
        )
        states = sample(
            denoiser,
            noise,
            times,
            constraint,
            newton,
            eta=eta,
            temperature=TEMPERATURE.get(way, 1.0),
            seeds=seeds,
        )
        for state in states:
            if newton and state.residual is not None and state.step == newton.steps:
                worst = max(worst, float(state.residual.max()))
            passes = state.spent.forward + state.spent.jvp, state.spent.vjp
        # those that are left are no fair sample
        x, worst = (state.x0, worst) if state.alive.all() else (x, math.inf)
    except DivergenceError:
        worst = math.inf
    return x.flatten(1), _took(problem, x, worst, passes)


def _took(
    problem: CurveProblem, x: Tensor, worst: float = math.nan, passes: tuple[float, float] = (0, 0)
) -> Arrays:
    return {
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
        for key in product(ORACLES, OBSERVATIONS)
    }
    ways = list(WAYS)
    floor = Floors(problems)
    found = collect(
        pieces,
        "posterior",
        lambda oracle, observation, way, eta: compare_with_posterior(
            problems[oracle, observation],
            ways[way],
            eta,
            config,
            partial(floor, oracle, observation),
        ),
        prior=ORACLES,
        observation=OBSERVATIONS,
        way=range(len(ways)),
        eta=ETAS,
    )
    shown = [problems[oracle, "half"][0].posterior for oracle in ORACLES]
    truth = [mixture_moments(posterior) for posterior in shown]
    exact = [
        posterior.sample(PATHS, torch.Generator().manual_seed(0)).flatten(1) for posterior in shown
    ]
    return {key: value.reshape(-1, *value.shape[4:]) for key, value in found.items()} | {
        "measure": np.array(SCORES),
        "runs": np.array(list(product(ORACLES, OBSERVATIONS, ways, ETAS))),
        "true_mean": torch.stack([mean for mean, _ in truth]).numpy(),
        "true_std": torch.stack([covariance.diagonal().sqrt() for _, covariance in truth]).numpy(),
        "true_paths": torch.stack(exact).numpy(),
        **subject(config),
        "curves": np.array(config.curves),
    }


class Floors:
    """The `exact_errors` of each problem and number of samples, computed once in a process."""

    def __init__(self, problems: dict[tuple[str, str], list[CurveProblem]]) -> None:
        self.problems = problems
        self.known: dict[tuple[str, str, int], NDArray[np.float64]] = {}

    def __call__(self, oracle: str, observation: str, count: int) -> NDArray[np.float64]:
        """Return the scores, (curves, SETS, scores)."""
        key = (oracle, observation, count)
        if key not in self.known:
            self.known[key] = exact_errors(self.problems[oracle, observation], count)
        return self.known[key]


def exact_errors(problems: list[CurveProblem], count: int) -> NDArray[np.float64]:
    """Return the scores of sets of exact samples, (curves, SETS, scores)."""
    generators = [torch.Generator().manual_seed(k) for k in range(SETS)]
    drawn = [[p.posterior.sample(count, g).flatten(1) for g in generators] for p in problems]
    return np.array(
        [[posterior_errors(p, x) for x in sets] for p, sets in zip(problems, drawn, strict=True)]
    )


def compare_with_posterior(
    problems: list[CurveProblem],
    way: str,
    eta: float,
    config: Posterior,
    floor: Callable[[int], NDArray[np.float64]],
) -> Arrays:
    """Return the scores of one sampler's samples, and what they took, (curves, ...), beside the
    `exact_errors` of as many samples, "floor".
    """
    count = config.exact_samples if way.startswith("J^+") else config.samples
    rows, paths = [], []
    for i, problem in enumerate(problems):
        seeds = [seed_of(config.seed, i, k) for k in range(count)]
        x, took = sample_posterior(problem, way, eta, seeds, config)
        rows.append(took | {"score": np.array(posterior_errors(problem, x))})
        paths.append(x[:PATHS].numpy())
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} | {
        "floor": floor(count),
        "paths": paths[0],
        "count": np.array(count),
    }


STUDY = Study(
    "posterior",
    Posterior,
    compute,
    table,
    plot,
    models=lambda _: {},
    answer=ANSWER,
    variables=VARIABLES,
)

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

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from jacobian_lab import DiscreteSchedule, InputError
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, ExactMinimiser, Fixed, Secant
from studies.frame.answer import Answer, Row
from studies.frame.figure_text import subject
from studies.frame.study import Arrays, Config, Pieces, Study
from studies.frame.survey import collect
from studies.sampling.posterior_plot import ETAS, PATHS, plot
from studies.sampling.random_curves import (
    OBSERVATIONS,
    ORACLES,
    SCORES,
    CurveProblem,
    make_problem,
    mixture_moments,
    posterior_errors,
)

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


def sample_posterior(
    problem: CurveProblem, way: str, eta: float, seeds: list[int], config: Posterior
) -> tuple[Tensor, Arrays]:
    """Return samples, (B, n), and what they took: "residual", "worst" and "passes"; NaN if one
    diverged.
    """
    denoiser = {EXACT_DENOISER: problem.posterior.denoiser, MMPS: problem.matched}.get(
        way, problem.prior.denoiser
    )()
    make = WAYS[way]
    newton = make(config.newton_steps) if make else None
    noise = seeded_noise(seeds, denoiser.shape, dtype=torch.float64)
    x, worst, passes = torch.full_like(noise, torch.nan), 0.0 if newton else math.nan, 0.0
    try:
        times, constraint = (
            denoiser.schedule.times(config.steps),
            (problem.constraint if newton else None),
        )
        for state in sample(denoiser, noise, times, constraint, newton, eta=eta, seeds=seeds):
            if newton and state.residual is not None and state.step == newton.steps:
                worst = max(worst, float(state.residual.max()))
            passes = state.spent.evaluations
        # those that are left are no fair sample
        x, worst = (state.x0, worst) if state.alive.all() else (x, math.inf)
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
        for key in product(ORACLES, OBSERVATIONS)
    }
    ways = list(WAYS)
    found = collect(
        pieces,
        "posterior",
        lambda oracle, observation, way, eta: compare_with_posterior(
            problems[oracle, observation], ways[way], eta, config
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
        "runs": np.array(list(product(ORACLES, OBSERVATIONS, ways, ETAS))),
        "true_mean": torch.stack([mean for mean, _ in truth]).numpy(),
        "true_std": torch.stack([covariance.diagonal().sqrt() for _, covariance in truth]).numpy(),
        "true_paths": torch.stack(exact).numpy(),
        **subject(config),
        "curves": np.array(config.curves),
    }


def compare_with_posterior(
    problems: list[CurveProblem], way: str, eta: float, config: Posterior
) -> Arrays:
    """Return the scores of one sampler's samples, those of exact ones, "floor", and what they took,
    (curves, ...).
    """
    count = config.exact_samples if way.startswith("J^+") else config.samples
    rows, paths = [], []
    for i, problem in enumerate(problems):
        seeds = [seed_of(config.seed, i, k) for k in range(count)]
        x, took = sample_posterior(problem, way, eta, seeds, config)
        exact = [
            problem.posterior.sample(count, torch.Generator().manual_seed(k)) for k in range(20)
        ]
        floors = [posterior_errors(problem, drawn.flatten(1)) for drawn in exact]
        score = np.array(posterior_errors(problem, x))
        rows.append(took | {"score": score, "floor": np.mean(floors, axis=0)})
        paths.append(x[:PATHS].numpy())
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} | {
        "paths": paths[0],
        "count": np.array(count),
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
                "case": f"{oracle}, {observation}, eta {float(eta):g}",
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


ANSWER = Answer(("direction_and_step", "case", "mean_error"), across="case")
STUDY = Study(
    "posterior",
    Posterior,
    compute,
    table,
    plot,
    models=lambda _: {},
    answer=ANSWER,
)

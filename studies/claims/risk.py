r"""Stein's unbiased estimate of the risk (SURE) of a denoiser, and its degrees of freedom.

With `y = x_t / alpha = x0 + tau eps`, tau = sigma / alpha, the denoiser estimates x0 from y. Stein
(1981, Ann. Statist. 9, *Estimation of the mean of a multivariate normal distribution*) estimates
its squared error without x0, and without a bias for every D that has a derivative:

    SURE = |D - y|^2 - n tau^2 + 2 tau^2 df,     df = div_y D = alpha tr J

because `E <eps, D> = tau E div_y D`. Here df, the degrees of freedom, comes from products with
random signs (Ramani, Blu, Unser 2008; for deep denoisers Soltanayev, Chun 2018, arXiv 1803.01314).
The estimate differs from the error of the same image, with its one noise, by

    SURE - |D - x0|^2 = tau^2 (|eps|^2 - n) - 2 tau (<eps, D - x0> - tau df)
    variance          = 2 n tau^4 - 8 tau^4 df + 4 tau^2 |D - x0|^2 + 4 tau^4 tr (alpha J)^2

in the mean over the noise (the second-order formula of Bellec, Zhang 2021, arXiv 1811.04121, and
`Cov(|eps|^2, <eps, f> - tau div f) = 2 tau E div f`); the variance of the random signs adds to it.

Tweedie says more, of posterior means only: `E |D - x0|^2 = tau^2 E df`. Where it holds, the
standard deviation relative to the risk is about sqrt(2 n) / df: of one image of 1,024 pixels SURE
says something where df is above 45, and nothing below.

By Stein's identity a network misses Tweedie's by `E |D - x0|^2 - tau^2 E df = E <x0 - D, y - D>`,
which `D + c (y - D)` makes 0 with the best c, and lowers the risk by the square of the gap over `E
|y - D|^2`. As this is about n tau^2, the correction gains less than 0.03 % of the risk here, which
training hardly sees, even where the gap is a tenth of the risk: the table says how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

import mnist
from jacobian_lab import (
    BatchJacobian,
    Denoiser,
    DiscreteSchedule,
    GaussianMixture,
    InputError,
    seeded_noise,
)
from mnist.evaluate import noisy_digit
from studies.claims.risk_plot import plot
from studies.claims.risk_table import findings, table
from studies.frame.answer import Answer
from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.figure_text import subject
from studies.frame.models import load_model
from studies.frame.options import OnDigits, model_files
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect

LEVELS = (10, 20, 50, 100, 200, 300, 500, 700, 900)
SMALL_SHAPE = (1, 8, 8)
"""Of the mixture on which the answer is known."""
BATCH = 32
"""Digits of a pass."""
PROBE = 7
"""Of the seeds of the random signs, so that they are not those of the noise."""


@dataclass(frozen=True)
class Risk(OnDigits):
    """Estimate the error of a denoiser without the truth. Example: jacobian-lab risk --digits 32
    --times 50 200.
    """

    digits: int = 512
    """Digits, from `digit` on, each with one noise."""
    times: tuple[int | float, ...] = LEVELS
    """Noise levels, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    probes: int = 4
    """Vectors of random signs for tr J of each digit."""
    draws: int = 4096
    """Samples of the mixture on which the answer is known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        self.check_digits()
        for name, least in (("digits", 8), ("probes", 2), ("draws", 64)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} must be at least {least}: got {getattr(self, name)}")


def compute(config: Risk, pieces: Pieces) -> Arrays:
    """Return errors, residuals and traces of each sample, on the mixture and on digits."""
    known = collect(pieces, "mixture", partial(on_known_mixture, config), time=LEVELS)
    denoiser = load_model(config.model, config.device)
    found = collect(pieces, "digits", partial(_on_digits, config, denoiser), time=config.times)
    schedule = DiscreteSchedule.linear()
    return {
        **{f"known_{name}": values for name, values in known.items()},
        **found,
        **subject(config),
        "time": np.array(config.times),
        "level": np.array(LEVELS),
        "ratio": _ratios(denoiser, config.times),
        "known_ratio": np.array([float(s / a) for a, s in map(schedule, LEVELS)]),
        "n": np.array(math.prod(denoiser.shape)),
        "known_n": np.array(math.prod(SMALL_SHAPE)),
    }


def terms_of_risk(
    denoiser: Denoiser, x0: Tensor, x_t: Tensor, t: int | float, seeds: list[int], probes: int
) -> Arrays:
    """Return for each sample of a batch its squared error, `|D - y|^2`, `|eps|^2`, and estimates
    of `df = alpha tr J`, of the variance of that estimate, and of `tr (alpha J)^2`.

    Parameters
    ----------
    denoiser : Denoiser
    x0, x_t : Tensor, shape (B, *shape)
        Clean and noisy samples.
    t : int or float
    seeds : list of int
        Of the random signs of each sample.
    probes : int
        Vectors of random signs g: `g^T J g` and `g^T J (J g)`, two products each.
    """
    alpha_t, sigma_t = map(float, denoiser.schedule(t))
    J = BatchJacobian(denoiser, x_t, t, products="exact")
    traces, squares = [], []
    for probe in range(probes):
        g = seeded_noise([PROBE * seed + probe for seed in seeds], denoiser.shape).sign().to(x_t)
        Jg = J.jvp(g)
        traces.append(_inner(g, Jg))
        squares.append(_inner(g, J.jvp(Jg)))
    df = alpha_t * torch.stack(traces)
    y, d = x_t.double() / alpha_t, J.d.double()
    missing, residual, noise = d - x0, d - y, (y - x0) * (alpha_t / sigma_t)
    return {
        "loss": _inner(missing, missing).numpy(),
        "residual": _inner(residual, residual).numpy(),
        "noise": _inner(noise, noise).numpy(),
        "df": df.mean(0).numpy(),
        "df_variance": (df.var(0) / probes).numpy(),
        "squared": (alpha_t**2 * torch.stack(squares).mean(0)).numpy(),
    }


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(1).cpu()


def _on_digits(config: Risk, denoiser: Denoiser, t: int | float) -> Arrays:
    """Return what is measured on the digits at one time, (digits,)."""
    images = mnist.digits("held-out")[0][config.digit : config.digit + config.digits]
    found: list[Arrays] = []
    for start in range(0, len(images), BATCH):
        x0 = images[start : start + BATCH].to(config.device)
        numbers = [config.digit + start + k for k in range(len(x0))]
        pairs = zip(x0, numbers, strict=True)
        # other noise at each time, so that the times are independent
        seeds = config.seed, round(1000 * t)
        x_t = torch.cat([noisy_digit(denoiser, x, t, *seeds, k) for x, k in pairs])
        found.append(terms_of_risk(denoiser, x0, x_t, t, numbers, config.probes))
    return _joined_batches(found)


def known_mixture() -> GaussianMixture:
    """Return three Gaussians in 64 dimensions, each mostly in six of them, float64."""
    g = torch.Generator().manual_seed(0)
    n = math.prod(SMALL_SHAPE)
    factors = torch.randn(3, n, 6, generator=g, dtype=torch.float64) / math.sqrt(6)
    covariances = factors @ factors.mT + 1e-2 * torch.eye(n, dtype=torch.float64)
    means = torch.randn(3, n, generator=g, dtype=torch.float64)
    return GaussianMixture(means, covariances, DiscreteSchedule.linear(), shape=SMALL_SHAPE)


def on_known_mixture(config: Risk, t: int) -> Arrays:
    """Return what is measured on draws of the mixture at one time, (draws,), and `tr Cov[x0 |
    x_t]`, whose mean is the risk.
    """
    oracle, g = known_mixture(), torch.Generator().manual_seed((config.seed + 7919 * t) % 2**63)
    denoiser, found = oracle.denoiser(), list[Arrays]()
    for start in range(0, config.draws, 512):
        seeds = list(range(start, min(start + 512, config.draws)))
        x0 = oracle.sample(len(seeds), g)
        noise = torch.randn(x0.shape, generator=g, dtype=x0.dtype)
        x_t = oracle.schedule.add_noise(x0, t, noise)
        weights, means, variances = oracle.posterior(x_t.flatten(1), t)
        mean = torch.einsum("bk,bki->bi", weights, means)
        spread = (means - mean[:, None]).square().sum(-1)
        covariance = (weights * (variances.sum(-1) + spread)).sum(1)
        parts = terms_of_risk(denoiser, x0, x_t, t, seeds, config.probes)
        found.append(parts | {"covariance": covariance.numpy()})
    return _joined_batches(found)


def _joined_batches(found: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _ratios(denoiser: Denoiser, times: tuple[int | float, ...]) -> np.ndarray:
    return np.array([float(sigma / alpha) for alpha, sigma in map(denoiser.schedule, times)])


def _described(prefix: str, dims: str) -> dict[str, Variable]:
    return {
        f"{prefix}loss": Variable(dims, "|D - x0|^2, squared error of an image"),
        f"{prefix}residual": Variable(dims, "|D - x_t / alpha|^2"),
        f"{prefix}noise": Variable(dims, "|eps|^2, n in the mean"),
        f"{prefix}df": Variable(dims, "degrees of freedom alpha tr J, by random signs"),
        f"{prefix}df_variance": Variable(dims, "variance of that estimate"),
        f"{prefix}squared": Variable(dims, "tr (alpha J)^2, by random signs"),
    }


VARIABLES = {
    **SUBJECT,
    **_described("", "time digit"),
    **_described("known_", "level draw"),
    "known_covariance": Variable("level draw", "tr Cov[x0 | x_t] of the mixture, exact"),
    "time": TIME,
    "level": Variable("level", "noise level t of the mixture"),
    "ratio": Variable("time", "sigma / alpha"),
    "known_ratio": Variable("level", "sigma / alpha"),
    "n": Variable("", "pixels of an image"),
    "known_n": Variable("", "dimensions of the mixture"),
}
STUDY = Study(
    "risk",
    Risk,
    compute,
    table,
    plot,
    models=model_files,
    answer=Answer(
        keeps=lambda row: row["of"] == "digits",
        columns=(
            "time",
            "degrees_of_freedom",
            "risk",
            "bias_less_its_part_of_mean_0",
            "deviation_of_SURE_over_risk",
            "predicted",
            "Tweedie_over_risk",
            "cost_of_the_gap_over_risk",
        ),
    ),
    variables=VARIABLES,
    findings=findings,
)

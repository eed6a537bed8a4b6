r"""A denoiser as shrinkage in a basis that depends on the image; and whether two halves of the data
teach one denoiser.

A network without biases is homogeneous, `D(x_t) = J(x_t) x_t`, and with a symmetric J it shrinks
x_t along the eigenvectors of J. The factors are those of `a J`, a = alpha_t: for a Gaussian prior
with variances l they are `a^2 l / (a^2 l + s^2)`, between 0 and 1. Measured on the model that
ships, which has biases:

    factors         eigenvalues of the symmetric part of a J
    effective rank  singular values that hold 99 % of |J|_F^2
    homogeneity     |J x - D| / |D|; also with pixels counted from black, x + a and D + 1

Then small denoisers are trained on disjoint sets of N digits, two of each size with other initial
weights, and compared on digits that neither has seen: the mean squared difference of their
outputs, over the mean of their squared errors, says which part of the error is due to the digits
and weights that training happened to have; the leading eigenvectors of their J, how far they share
a basis. Two Wiener filters of the same digits are the linear counterpart: networks that are no
better than they have not learnt what could differ, and nothing is concluded from them.

References
----------
Kadkhodaie, Guth, Simoncelli, Mallat (2024), *Generalization in diffusion models arises from
geometry-adaptive harmonic representations*, arXiv 2310.02557.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    Schedule,
    gaussian,
)
from mnist.evaluate import noisy_digit
from mnist.oracle import RIDGE
from studies.claims.shrinkage_plot import plot
from studies.claims.shrinkage_table import ANSWER, VARIABLES, findings, table
from studies.claims.small_models import (
    SMALL,
    Trains,
    filling,
    small_denoiser,
    small_recipe,
    trained,
    with_weights,
)
from studies.frame.dataset import Arrays
from studies.frame.figure_text import subject
from studies.frame.models import load_model
from studies.frame.options import fit_times, model_files
from studies.frame.study import Pieces, Study, check_times
from studies.frame.survey import collect

Array = NDArray[np.float64]
LEADING = 10
"""Eigenvectors whose span is compared."""
DRAWN = (1, 2, 3, 5, 10, 20, 40)
"""Eigenvectors that are drawn."""
ENERGY = 0.99
"""Share of |J|_F^2 that the effective rank holds."""
BATCH = 64
"""Digits of an update; smaller sets are repeated."""


@dataclass(frozen=True)
class Shrinkage(Trains):
    """Measure shrinkage by J, and whether two halves of the data teach one denoiser. Example:
    jacobian-lab shrinkage --updates 100 --tested 2 --sizes 10 100.
    """

    updates: int = 2_000
    """Updates of the weights of each denoiser, by AdamW."""
    model: str = "mnist"
    """mnist, mnist-flow, oracle or the path of a denoiser that you trained, for the factors."""
    tested: int = 8
    """Held-out digits, from 4,000 on, at which J is taken."""
    times: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels, 0 (clean) to 999 (noise); a flow takes sigma, up to 1, and the small denoisers
    the times of equal noise.
    """
    sizes: tuple[int, ...] = (10, 300, 10_000)
    """Digits that each small denoiser is trained on, at most half of those at hand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        fit_times(self, self.model)
        if not 2 <= self.tested <= 500:
            raise InputError(f"--tested must lie from 2 to 500: got {self.tested}")
        if not self.sizes or min(self.sizes) < 2:
            raise InputError(f"--sizes must be 2 or more each: got {self.sizes}")


def compute(config: Shrinkage, pieces: Pieces) -> Arrays:
    """Return factors and homogeneity of the model by time and digit, and by size how far two small
    denoisers agree.
    """
    model = load_model(config.model, config.device)
    full = mnist.digits("held-out")[0][4_000 : 4_000 + config.tested]
    factors = collect(
        pieces,
        "factors",
        lambda t, k: shrinks(model, full[k].to(config.device), t, config.seed, k),
        time=config.times,
        digit=range(config.tested),
    )
    images, _ = config.digits()
    sizes = sorted({min(size, len(images) // 2) for size in config.sizes})
    found = collect(
        pieces,
        "halves",
        partial(
            halves_at,
            trained_pairs(config, pieces, images, sizes),
            config.test_digits[: config.tested],
            config.seed,
            model.schedule,
        ),
        size=sizes,
        time=config.times,
        digit=range(config.tested),
    )
    oracle = collect(pieces, "oracle", oracle_misses_at, time=(300, 500, 700))
    return {
        **factors,
        **found,
        **{f"oracle_{name}": values for name, values in oracle.items()},
        "time": np.array(config.times),
        "size": np.array(sizes),
        "drawn": np.array(DRAWN),
        "training": np.array(
            f"{len(images):,} training digits, {config.updates:,} updates each of"
            f" {SMALL[1]}x{SMALL[2]}"
        ),
        **subject(config),
    }


def shrinks(denoiser: Denoiser, image: Tensor, t: int | float, *seeds: int) -> Arrays:
    """Return factors, effective rank and homogeneity at one noisy image, and the leading
    eigenvectors.
    """
    J = JacobianOperator(denoiser, noisy_digit(denoiser, image, t, *seeds), t)
    x, D = (part.double().cpu().numpy().ravel() for part in (J.products.x, J.products.d))
    dense = J.dense().astype(np.float64)
    values, vectors = eigenbasis(dense)
    energy = np.cumsum(np.linalg.svd(dense, compute_uv=False) ** 2)
    light, D_light = x + J.alpha_t, D + 1
    return {
        "factor": J.alpha_t * values,
        "rank": np.array(1 + np.searchsorted(energy, ENERGY * energy[-1])),
        "miss": np.array(np.linalg.norm(dense @ x - D) / np.linalg.norm(D)),
        "miss_from_black": np.array(
            np.linalg.norm(dense @ light - D_light) / np.linalg.norm(D_light)
        ),
        "asymmetry": np.array(np.linalg.norm(dense - dense.T) / np.linalg.norm(dense + dense.T)),
        "vector": vectors[:, [k - 1 for k in DRAWN]].T.astype(np.float32),
    }


def eigenbasis(dense: Array) -> tuple[Array, Array]:
    """Return eigenvalues, falling, and eigenvectors of the symmetric part."""
    values, vectors = np.linalg.eigh((dense + dense.T) / 2)
    return values[::-1], vectors[:, ::-1]


class Pair(NamedTuple):
    """Two small denoisers that were trained on disjoint digits, and these."""

    networks: tuple[Denoiser, Denoiser]
    digits: tuple[Tensor, Tensor]


def trained_pairs(
    config: Shrinkage, pieces: Pieces, images: Tensor, sizes: list[int]
) -> dict[int, Pair]:
    """Return two small denoisers of each size, each trained once."""
    order = np.random.default_rng(config.seed).permutation(len(images))
    recipes = [small_recipe(config, seed=2 * config.seed + k) for k in range(2)]
    sets = {
        (n, k): images[torch.from_numpy(order[k * n : (k + 1) * n])] for n in sizes for k in (0, 1)
    }
    work = {
        f"training-{size}-{k}": partial(trained, recipes[k], filling(digits, BATCH))
        for (size, k), digits in sets.items()
    }
    weights = dict(zip(sets, pieces.each("training", work), strict=True))
    made = {key: with_weights(small_denoiser(recipes[key[1]]), w) for key, w in weights.items()}
    return {n: Pair((made[n, 0], made[n, 1]), (sets[n, 0], sets[n, 1])) for n in sizes}


def linear_denoiser(digits: Tensor) -> Denoiser:
    """Return the posterior mean of the Gaussian with the digits' mean and covariance, with the
    ridge of the oracle of digits.
    """
    x = digits.double().flatten(1)
    S = x.T.cov() + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    return gaussian(x.mean(0), S, DiscreteSchedule.linear(), SMALL).denoiser()


def time_of_pairs(schedule: Schedule, t: int | float) -> int:
    """Return the time of the small denoisers at which the noise is that of a schedule at t."""
    alpha, sigma = schedule(t)
    return int(DiscreteSchedule.linear().time_of(sigma / alpha))


def halves_at(
    pairs: dict[int, Pair],
    test: Tensor,
    seed: int,
    schedule: Schedule,
    size: int,
    t: int | float,
    number: int,
) -> Arrays:
    """Return how far the two denoisers of a size agree at one noisy digit, and two Wiener filters;
    t is a time of the schedule.
    """
    image, pair, t = test[number], pairs[size], time_of_pairs(schedule, t)
    linear = linear_denoiser(pair.digits[0]), linear_denoiser(pair.digits[1])
    found: Arrays = {}
    for name, (first, second), clean in (
        ("network", pair.networks, image),
        ("linear", linear, image.double()),
    ):
        found |= {
            f"{name}_{key}": value
            for key, value in pair_agreement(first, second, clean, t, seed, number).items()
        }
    return found


def pair_agreement(
    first: Denoiser, second: Denoiser, clean: Tensor, t: int | float, *seeds: int
) -> Arrays:
    """Return the mean squared difference of two denoisers at a noisy image, the mean of their mean
    squared errors, and how far their leading eigenvectors span one space: |U^T V|_F^2 / k.
    """
    noisy = noisy_digit(first, clean, t, *seeds)
    Js = [JacobianOperator(denoiser, noisy, t) for denoiser in (first, second)]
    D1, D2 = (J.products.d[0].double() for J in Js)
    U, V = (eigenbasis(J.dense().astype(np.float64))[1][:, :LEADING] for J in Js)
    errors = [float((D - clean).square().mean()) for D in (D1, D2)]
    return {
        "difference": np.array(float((D1 - D2).square().mean())),
        "error": np.array(np.mean(errors)),
        "overlap": np.array(np.linalg.norm(U.T @ V) ** 2 / LEADING),
    }


def oracle_misses_at(t: int) -> Arrays:
    """Return what factors, homogeneity and effective rank miss on a Gaussian prior of zero mean,
    where they are known.
    """
    n = SMALL[1] * SMALL[2]
    variances = 2.0 * np.arange(1, n + 1) ** -1.5
    g = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q
    S = (Q * torch.from_numpy(variances)) @ Q.T
    prior = gaussian(torch.zeros(n, dtype=torch.float64), S, DiscreteSchedule.linear(), SMALL)
    image = prior.sample(1, g)[0]
    denoiser = prior.denoiser("epsilon")
    found = shrinks(denoiser, image, t, 0)
    a, s = (float(c) for c in prior.schedule(t))
    factors = a**2 * variances / (a**2 * variances + s**2)
    energy = np.cumsum(factors**2)
    return {
        "factor_error": np.array(np.abs(found["factor"] - factors).max()),
        "miss": found["miss"],
        "rank_error": np.array(
            int(found["rank"]) - 1 - int(np.searchsorted(energy, ENERGY * energy[-1]))
        ),
        "same": pair_agreement(denoiser, denoiser, image, t, 0)["overlap"],
    }


STUDY = Study(
    "shrinkage",
    Shrinkage,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
    findings=findings,
)

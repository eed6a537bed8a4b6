r"""Whether the locality of a denoiser is that of the data's Wiener filter.

The row of J at a pixel p is the sensitivity field of the denoised pixel: how it depends on the
noisy image. The best linear denoiser of data with covariance S has the field of the Wiener filter,

    J_W = a S (a^2 S + s^2 I)^{-1},   a = alpha_t, s = sigma_t

which is local as far as the data's covariance is. The claim: a trained network is local since the
data are, not since convolutions are. Here rows and columns of J at 25 pixels, averaged over digits,
are held against J_W, and against three filters that know less of the data:

    stationary     J_W of the covariance averaged over shifts: a convolution
    isotropic      the Gaussian bump whose width fits the field best, a parameter for each pixel
    untrained      J of the same network with random weights: its receptive field

Agreement is the cosine of two fields over pixels: a common scale does not count. What is drawn from
random digits has intervals by the jackknife, since fields are averaged before they are compared. A
claim is judged at the noise level where it fares worst.

On the digits the claim is true of high noise, where J hardly depends on the digit. At low noise the
network knows which digit it sees: J at a single digit is that of the few images near it, unlike the
Wiener filter, which knows one covariance for all. The mean field is then narrower and weaker than
the filter's, and a bump of one parameter fits it as well.

References
----------
Lukoianov, Yuan, Solomon, Sitzmann (2025), *Locality in image diffusion models emerges from data
statistics*, arXiv 2509.09672.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve

import mnist
from jacobian_lab import Denoiser, InputError, gaussian
from mnist.data import SHAPE
from mnist.oracle import RIDGE
from studies.claims.locality_plot import plot
from studies.claims.locality_table import ANSWER, FIELDS, FILTERS, VARIABLES, findings, table
from studies.frame.figure_text import subject
from studies.frame.models import operator_at
from studies.frame.options import model_files
from studies.frame.statistics import over_digits
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.survey import Points, Survey, collect

Array = NDArray[np.float64]
SIDE = SHAPE[-1]
PIXELS = np.array([(row, column) for row in range(8, 25, 4) for column in range(8, 25, 4)])
"""Where fields are taken: the middle 17 x 17 pixels, each fourth; beyond, digits are dark."""
PLACES = PIXELS @ np.array([SIDE, 1])
FEW = 5
"""Noisy digits of the untrained network, whose J hardly depends on them."""
WIDTHS = np.geomspace(0.2, 12, 60)
"""Widths of the isotropic filter that are tried, pixels."""


@dataclass(frozen=True)
class Locality(Survey):
    """Compare rows and columns of J with the Wiener filter of the data. Example: jacobian-lab
    locality --digits 5 --times 300 700.
    """

    digits: int = 40
    """Digits of the survey: this many, from `digit` on."""
    times: tuple[int | float, ...] = (100, 300, 500, 700, 900)
    """Noise levels of the survey, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""


def covariance_of_digits() -> Array:
    """Return the covariance of the held-out digits with the ridge of the oracle of digits,
    (n, n).
    """
    images = mnist.digits("held-out")[0].double().flatten(1).numpy()
    return np.asarray(np.cov(images.T) + RIDGE * np.eye(images.shape[1]))


def wiener(S: Array, a: float, s: float) -> Array:
    """Return J_W = a S (a^2 S + s^2 I)^{-1} by a solve, symmetric, (n, n)."""
    return np.asarray(solve(a**2 * S + s**2 * np.eye(len(S)), a * S, assume_a="pos"))


def stationary(S: Array, side: int = SIDE) -> Array:
    """Return the covariance whose entry for two pixels is the mean of S over all pairs of that
    shift, on a square of so many pixels a side.
    """
    rows, columns = np.divmod(np.arange(side**2), side)
    down, right = (p[:, None] - p[None] + side - 1 for p in (rows, columns))
    shift = down * (2 * side - 1) + right
    total = np.bincount(shift.ravel(), S.ravel(), minlength=(2 * side - 1) ** 2)
    count = np.bincount(shift.ravel(), minlength=(2 * side - 1) ** 2)
    return np.asarray((total / np.maximum(count, 1))[shift])


def bumps(width: float, side: int = SIDE, pixels: NDArray[np.int64] = PIXELS) -> Array:
    """Return Gaussian bumps of a width in pixels at the pixels, (pixels, n), each of length 1."""
    rows, columns = np.divmod(np.arange(side**2), side)
    distance2 = (rows - pixels[:, :1]) ** 2 + (columns - pixels[:, 1:]) ** 2
    return normed(np.exp(-distance2 / (2 * width**2)))


def normed(fields: Array) -> Array:
    """Return fields, (..., n), at length 1."""
    return np.asarray(fields / np.linalg.norm(fields, axis=-1, keepdims=True))


def cosines(fields: Array, others: Array) -> Array:
    """Return the cosine of each two fields, over the last axis."""
    return np.asarray((normed(fields) * normed(others)).sum(-1))


def compute(config: Locality, pieces: Pieces) -> Arrays:
    """Return mean fields, filters, agreement and widths, and what the Gaussian oracle misses."""
    points = config.points()
    if points.model.denoiser.shape != SHAPE:
        raise InputError(
            f"--model {config.model} is of samples of {points.model.denoiser.shape}: this study"
            f" takes the covariance of digits in pixels, {SHAPE}"
        )
    bare, count = untrained(points.model.denoiser), len(points.samples)
    fields, others = (
        collect(
            pieces,
            title,
            partial(fields_at, points, denoiser),
            time=config.times,
            sample=range(samples),
        )
        for title, denoiser, samples in (
            ("fields", points.model.denoiser, count),
            ("fields of random weights", bare, min(count, FEW)),
        )
    )
    S = covariance_of_digits()
    oracle = collect(pieces, "oracle", lambda t: oracle_misses(S, points, t), time=config.times)
    found = [
        compared(fields["fields"][k], others["fields"][k], S, points, t)
        for k, t in enumerate(config.times)
    ]
    return {
        **{name: np.stack([f[name] for f in found]) for name in found[0]},
        **oracle,
        "time": np.array(config.times),
        "field": np.array(FIELDS),
        "filter": np.array(FILTERS),
        "place": PIXELS,
        **subject(config),
        **points.coordinates(),
    }


def untrained(denoiser: Denoiser) -> Denoiser:
    """Return the denoiser with the weights of its layers drawn anew; those of a network without
    layers, such as an oracle, stay.
    """
    network = deepcopy(denoiser.network)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for module in network.modules():  # type: ignore[attr-defined]
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return Denoiser(network, denoiser.schedule, denoiser.prediction, denoiser.shape)


def fields_at(points: Points, denoiser: Denoiser, t: int | float, sample: int) -> Arrays:
    """Return rows and columns of J of a denoiser at the pixels, (2, pixels, n)."""
    k, seed = points.samples[sample]
    clean, number = points.inputs.clean[k], points.inputs.numbers[k]
    J = operator_at(denoiser, clean, number, t, seed)
    units = np.eye(J.shape[0], dtype=J.dtype)[:, PLACES]
    return {"fields": np.stack([(J.T @ units).T, (J @ units).T]).astype(np.float32)}


def oracle_misses(S: Array, points: Points, t: int | float) -> Arrays:
    """Return how far rows and columns of J of the Gaussian prior with covariance S lie from the
    Wiener filter's, relative to it.
    """
    schedule = points.model.denoiser.schedule
    prior = gaussian(torch.zeros(len(S), dtype=torch.float64), torch.from_numpy(S), schedule, SHAPE)
    clean = points.inputs.clean[0].cpu().double()
    J = operator_at(prior.denoiser("epsilon"), clean, 0, t, 0)
    W, units = wiener(S, J.alpha_t, J.sigma_t), np.eye(len(S))[:, PLACES]
    wanted = W[:, PLACES]
    missed = max(np.linalg.norm(A @ units - wanted) for A in (J, J.T))
    return {"oracle_error": np.array(missed / np.linalg.norm(wanted))}


def compared(trained: Array, bare: Array, S: Array, points: Points, t: int | float) -> Arrays:
    """Return how fields, (samples, 2, pixels, n), of the model agree with each filter; those of one
    digit count as their mean.

    Returns
    -------
    dict
        By the jackknife "cosine" (2, filters, digits), the mean over pixels of the cosine of the
        mean field and the filter; "error" and "width" (2, digits), its relative distance from the
        Wiener filter and its width. "filter_width" (filters,); "single" (2, digits), cosines of
        one digit's field and the Wiener filter; "mean" (2, pixels, n); "filters" (filters, pixels,
        n).
    """
    a, s = (float(c) for c in points.model.denoiser.schedule(t))
    W, shifted = (wiener(C, a, s)[PLACES] for C in (S, stationary(S)))
    digits = [k for k, _ in points.samples]
    each = over_digits(trained.astype(np.float64), digits)
    mean = each.mean(0)
    isotropic = best_bumps(mean[0])
    filters = np.stack([W, shifted, isotropic, bare[:, 0].mean(0, dtype=np.float64)])

    def figures(field: Array) -> Array:
        """Return cosines with the filters, the relative error and the width, (filters + 2,)."""
        error = np.linalg.norm(field - W) / np.linalg.norm(W)
        return np.array([*cosines(field, filters).mean(-1), error, width_of(field)])

    values = np.stack([jackknife(figures, each[:, f]) for f in range(2)])
    return {
        "cosine": values[:, : len(FILTERS)],
        "error": values[:, -2],
        "width": values[:, -1],
        "filter_width": np.array([width_of(fields) for fields in filters]),
        "single": over_digits(cosines(trained.astype(np.float64), W).mean(-1), digits).T,
        "mean": mean.astype(np.float32),
        "filters": filters.astype(np.float32),
    }


def best_bumps(field: Array) -> Array:
    """Return for each pixel the bump that agrees best with its field, (pixels, n)."""
    tried = np.stack([bumps(width) for width in WIDTHS])
    agreement = np.abs(cosines(tried, field))
    return np.asarray(tried[agreement.argmax(0), np.arange(len(field))])


def width_of(fields: Array, side: int = SIDE, pixels: NDArray[np.int64] = PIXELS) -> float:
    """Return the root mean square distance from the pixel, weighted by the field's square, mean
    over pixels, in pixels.
    """
    rows, columns = np.divmod(np.arange(side**2), side)
    distance2 = (rows - pixels[:, :1]) ** 2 + (columns - pixels[:, 1:]) ** 2
    return float(np.sqrt((normed(fields) ** 2 * distance2).sum(-1)).mean())


def jackknife(figures: Callable[[Array], Array], samples: Array) -> Array:
    """Return figures of the mean over samples, one for each that is left out, (figures, samples):
    they spread as independent samples do, and their mean is the figures of all.
    """
    count, total = len(samples), samples.sum(0)
    whole = figures(total / count)
    if count == 1:
        return np.asarray(whole[:, None])
    left = np.stack([figures((total - one) / (count - 1)) for one in samples], axis=-1)
    return np.asarray(whole[:, None] + (count - 1) * (left.mean(-1, keepdims=True) - left))


STUDY = Study(
    "locality",
    Locality,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
    findings=findings,
)

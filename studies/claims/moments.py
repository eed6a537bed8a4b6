r"""The posterior along its first principal component, beyond two moments.

Along a unit vector v the third and fourth central moments of v^T x_0 given x_t follow from the
first and second derivative of `v^T J(x_t + h v) v` in h (`jacobian_lab.posterior_moments`); the
density of largest entropy that has the four is drawn (`jacobian_lab.maximum_entropy`).

On a mixture of three Gaussians, where the posterior along v is a mixture of three in one dimension,
the moments, their stated errors and the density are held against the truth. On digits each clean
digit is one sample of its posterior: a density that says more than the Gaussian of the same mean
and variance must give the clean digits a larger likelihood, on average. The same digits under ten
Gaussians, whose posterior is known, show how much the density loses by knowing four moments only.

At high noise the network's moments are often those of no distribution: v^T D along v is then no
derivative of a log-partition function, as the mean of a posterior would be, and g has structure
that is much finer than the posterior is wide.

References
----------
Manor, Michaeli (2024), *On the posterior distribution in denoising: application to uncertainty
quantification*, arXiv 2309.13598.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import (
    ConvergenceWarning,
    Denoiser,
    Density,
    DiscreteSchedule,
    GaussianMixture,
    InputError,
    JacobianOperator,
    PosteriorMoments,
    eigenpairs,
    maximum_entropy,
    posterior_moments,
    symmetric_part,
)
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from studies.claims.moments_plot import plot
from studies.claims.moments_table import ANSWER, VARIABLES, findings, table
from studies.frame.figure_text import subject
from studies.frame.options import model_files
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.survey import Points, Survey, collect

Array = NDArray[np.float64]
Z = np.linspace(-5, 5, 401)
"""Where densities are kept, in standard deviations from the mean."""
CASES = 20
"""Noisy samples of the three Gaussians at each noise level."""
CASE = (
    "moments",
    "errors",
    "exact_moments",
    "skewness",
    "kurtosis",
    "possible",
    "modes",
    "density",
    "exact_density",
    "gain",
)
"""What is kept of each."""


@dataclass(frozen=True)
class Moments(Survey):
    """Measure the posterior along its first component beyond two moments. Example: jacobian-lab
    moments --digits 5 --times 500.
    """

    digits: int = 40
    """Digits of the survey: this many, from `digit` on."""
    times: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels of the survey, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""


class Mixture(NamedTuple):
    """A mixture of Gaussians on the line, (K,) each."""

    weights: Array
    means: Array
    variances: Array

    def moments(self) -> Array:
        """Return the mean and the central moments of orders 2 to 4, (4,)."""
        mean = float(self.weights @ self.means)
        d, s2 = self.means - mean, self.variances
        central = (s2 + d**2, d**3 + 3 * d * s2, d**4 + 6 * d**2 * s2 + 3 * s2**2)
        return np.array([mean, *(self.weights @ order for order in central)])

    def density(self, y: Array) -> Array:
        """Return the density at y, (m,)."""
        apart = (y[:, None] - self.means) ** 2 / self.variances
        return np.asarray(np.exp(-apart / 2) @ (self.weights / np.sqrt(2 * np.pi * self.variances)))


def posterior_along(oracle: GaussianMixture, x_t: Tensor, t: int | float, v: Array) -> Mixture:
    """Return the exact posterior of v^T x_0 given x_t, of shape (1, *shape), for a unit vector."""
    weights, means, variances = (
        part[0].cpu().numpy() for part in oracle.posterior(x_t.flatten(1), t)
    )
    seen = np.einsum("kij,i->kj", oracle.eigenvectors.cpu().numpy(), v)
    return Mixture(weights, means @ v, (seen**2 * variances).sum(1))


def three_gaussians(seed: int = 0) -> GaussianMixture:
    """Return a mixture of three Gaussians in 16 dimensions, of weights 0.5, 0.3 and 0.2."""
    g = torch.Generator().manual_seed(seed)
    roots = torch.randn(3, 16, 16, generator=g, dtype=torch.float64) / 4
    means = 2 * torch.randn(3, 16, generator=g, dtype=torch.float64)
    return GaussianMixture(
        means, roots @ roots.mT, DiscreteSchedule.linear(), torch.tensor([0.5, 0.3, 0.2])
    )


def compute(config: Moments, pieces: Pieces) -> Arrays:
    """Return moments, errors and densities of the model and of ten Gaussians, (2, times, samples,
    ...), and the three Gaussians', (their times, cases, ...).
    """
    points = config.points()
    if points.model.denoiser.shape != SHAPE:
        raise InputError(
            f"--model {config.model} is of samples of {points.model.denoiser.shape}: this study"
            f" compares denoisers of digits in pixels with ten Gaussians, {SHAPE}"
        )
    sources = Sources(points)
    found = collect(
        pieces,
        "moments",
        sources.along,
        source=range(2),
        time=config.times,
        sample=range(len(points.samples)),
    )
    times = (400, 550, 700)
    cases = collect(pieces, "three Gaussians", case, oracle_time=times, case=range(CASES))
    return (
        found
        | {f"oracle_{name}": values for name, values in cases.items()}
        | {
            "source": np.array(["model", "ten Gaussians"]),
            "time": np.array(config.times),
            "oracle_time": np.array(times),
            "z": Z,
            **subject(config),
            **points.coordinates(),
        }
    )


def case(t: int, number: int) -> Arrays:
    """Return what is known at one noisy sample of three Gaussians along its first component."""
    oracle = three_gaussians()
    g = torch.Generator().manual_seed(1000 * number + t)
    noise = torch.randn(1, *oracle.shape, generator=g, dtype=torch.float64)
    x_t = oracle.schedule.add_noise(oracle.sample(1, g), t, noise)
    v = np.linalg.eigh(oracle.covariance(x_t, t)[0].numpy())[1][:, -1]
    found = moments_along(oracle.denoiser(), x_t, t, v, posterior_along(oracle, x_t, t, v))
    return {name: found[name] for name in CASE}


class Sources:
    """The model in float64, and ten Gaussians fitted to digits, at the noisy digits of a survey."""

    def __init__(self, points: Points) -> None:
        self.points = points

    @cached_property
    def ten(self) -> GaussianMixture:
        """Ten Gaussians, one for each class, in float64, on the model's schedule."""
        network = load_oracle(dtype=torch.float64).network
        oracle: GaussianMixture = network.oracle  # type: ignore[attr-defined]
        oracle.schedule = self.points.model.denoiser.schedule
        return oracle

    def along(self, source: int, t: int | float, sample: int) -> Arrays:
        """Return what is known along the first component at one noisy digit: of the model, or of
        ten Gaussians.
        """
        points = self.points
        k, seed = points.samples[sample]
        clean, number = points.inputs.clean[k], points.inputs.numbers[k]
        if source:
            denoiser = self.ten.denoiser()
            x_t = noisy_digit(points.model.denoiser, clean, t, seed, number).cpu().double()
            v = first_component(JacobianOperator(denoiser, x_t, t))
            return moments_along(denoiser, x_t, t, v, posterior_along(self.ten, x_t, t, v))
        J = points.operator(t, sample)
        v = first_component(J)
        truth = float(clean.flatten().double().cpu().numpy() @ v)
        if not points.has_exact:
            return moments_along(points.model.denoiser, J.products.x, t, v, truth)
        return moments_along(points.exact.denoiser, J.products.x.cpu().double(), t, v, truth)


def first_component(J: JacobianOperator) -> Array:
    """Return the leading eigenvector of the symmetric part of J, of length 1, (n,)."""
    found = eigenpairs(symmetric_part(J), 1, "LR", symmetric=True, rtol=1e-3)
    v = np.asarray(found.vectors[:, 0], dtype=np.float64)
    # a sign that does not depend on the run
    return v / np.linalg.norm(v) * (-1 if v.sum() < 0 else 1)


def moments_along(
    denoiser: Denoiser, x_t: Tensor, t: int | float, v: Array, truth: Mixture | float
) -> Arrays:
    """Return moments, their errors and the density along a unit vector v, and how they compare.

    Parameters
    ----------
    denoiser, x_t, t
    v : array, shape (n,)
    truth : Mixture or float
        The posterior along v where it is known; else v^T x_0 of the clean image, one sample of it.

    Returns
    -------
    dict
        "gain" is how much more likely the truth is under the density than under the Gaussian of the
        same mean and variance, in nats: at the clean image, or its expectation. It is NaN where no
        density has the moments.
    """
    found = posterior_moments(denoiser, x_t, t, v)
    density = density_of(found)
    y, s = found.mean + found.deviation * Z, found.deviation
    nothing = np.full_like(Z, np.nan)
    known = {
        "exact_moments": np.full(4, np.nan),
        "exact_density": nothing,
        "clean": np.array(np.nan),
    }
    if isinstance(truth, Mixture):
        known |= {"exact_moments": truth.moments(), "exact_density": truth.density(y) * s}
    else:
        known["clean"] = np.array((truth - found.mean) / s)
    D = denoiser(x_t, t)[0].cpu().numpy()
    return known | {
        "moments": np.array([found.mean, found.variance, found.third, found.fourth]),
        "errors": np.array(found.errors),
        "skewness": np.array(found.skewness),
        "kurtosis": np.array(found.excess_kurtosis),
        "possible": np.array(found.possible),
        "modes": np.array(-1 if density is None else len(density.modes)),
        "density": nothing if density is None else density(y) * s,
        "gain": np.array(np.nan if density is None else gain_of(density, found, truth)),
        "denoised": D.astype(np.float32),
        "component": v.reshape(D.shape).astype(np.float32),
    }


def density_of(moments: PosteriorMoments) -> Density | None:
    """Return the density of largest entropy, or None where there is none with the moments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted as none
        try:
            found = maximum_entropy(moments)
        except InputError:
            return None
    return found if found.converged else None


def gain_of(density: Density, moments: PosteriorMoments, truth: Mixture | float) -> float:
    """Return the logarithm of the density less that of the Gaussian of two moments: at a sample of
    the posterior, or its expectation under a known one.
    """
    y = density.points if isinstance(truth, Mixture) else np.array([truth])
    z = (y - moments.mean) / moments.deviation
    gain = density.log(y) + z**2 / 2 + np.log(np.sqrt(2 * np.pi) * moments.deviation)
    if isinstance(truth, Mixture):
        return float(np.trapezoid(truth.density(y) * gain, y))
    return float(gain[0])


STUDY = Study(
    "moments",
    Moments,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
    findings=findings,
)

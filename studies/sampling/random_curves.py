"""Random curves of 32 points, what is observed of one, and the posterior that is then known; how
near samples come to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from jacobian_lab import Denoiser, DiscreteSchedule
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import Separable, resampling
from jacobian_lab.diffusion.oracle import GaussianMixture

N, NOISE = 32, 0.1
ORACLES, OBSERVATIONS = ("Gaussian", "mixture"), ("half", "noisy means")
SHARES = (0.5, 0.9)
"""Of the posterior, in the regions whose coverage is counted."""
SCORES = ("mean", "covariance", "spread", "weights", "coverage_50", "coverage_90")
VARIANCE, DRAWN = 0.99, 20_000
"""Share of the variance that the directions of a region have; samples that tell its bound."""


class Regions:
    """The regions of highest density that hold 50 and 90 % of a mixture.

    A region is `density >= bound`, the density that of the fewest principal directions with 99 % of
    the variance; the bound is the quantile of exact samples' densities. Of a Gaussian in q
    directions it is the ellipsoid of a chi-square quantile.

    Parameters
    ----------
    mixture : GaussianMixture
        In n dimensions; covariances may be singular in the other directions.
    """

    def __init__(self, mixture: GaussianMixture) -> None:
        values, vectors = torch.linalg.eigh(mixture_moments(mixture)[1])
        share = values.flip(0).cumsum(0) / values.sum()
        self.directions = vectors.flip(1)[:, : int((share < VARIANCE).sum()) + 1]
        self.mixture = mixture
        drawn = mixture.sample(DRAWN, torch.Generator().manual_seed(0)).flatten(1)
        self.bounds = self._log_density(drawn).quantile(1 - drawn.new_tensor(SHARES))

    def coverage(self, x: Tensor) -> list[float]:
        """Return the shares of samples, (B, n), in the regions; NaN if a sample is not finite.

        A share above the region's tells of samples that gather too near the modes, one below of
        samples that spread or stray.
        """
        density = self._log_density(x)
        inside = (density[:, None] >= self.bounds).to(x).mean(0)
        return inside.where(density.isfinite().all(), torch.nan).tolist()

    def _log_density(self, x: Tensor) -> Tensor:
        """Return the log density of x, (B, n), in the directions, up to a constant."""
        V = self.mixture.eigenvectors.mT @ self.directions
        factor = torch.linalg.cholesky(V.mT @ (self.mixture.eigenvalues[..., None] * V))
        apart = ((x[:, None] - self.mixture.means) @ self.directions)[..., None]
        far = torch.linalg.solve_triangular(factor, apart, upper=False).square().sum((2, 3))
        volume = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return torch.logsumexp(self.mixture.log_weights - far / 2 - volume, dim=1)


@dataclass(frozen=True)
class CurveProblem:
    """A prior, what is observed of a curve of it, and what is then known."""

    prior: GaussianMixture
    constraint: LinearConstraint
    A: Tensor
    y: Tensor
    posterior: GaussianMixture

    @cached_property
    def regions(self) -> Regions:
        """Return the regions of the posterior, computed once."""
        return Regions(self.posterior)

    def matched(self) -> Denoiser:
        """Return `D + J z`, `z = A^T (A J A^T + sigma^2 alpha_t / sigma_t^2)^{-1} (y - A D)`: E[x_0
        | x_t, y] were p(x_0 | x_t) a Gaussian, with the covariance that Tweedie's formula gives it.

        References
        ----------
        Rozet et al. (2024), *Learning diffusion priors from observations by expectation
        maximization*, arXiv 2405.13712 (MMPS).
        """

        def network(x: Tensor, t: Tensor) -> Tensor:
            alpha_t, sigma_t = self.prior.schedule(t[0])
            d, seen = self.prior.mean(x, t), self.A @ self.prior.jacobian(x, t)
            noise = float(self.constraint.sigma**2 * alpha_t / sigma_t**2) * torch.eye(
                len(self.y), dtype=x.dtype
            )
            z = torch.linalg.solve(seen @ self.A.T + noise, self.y - d.flatten(1) @ self.A.T)
            return d + torch.einsum("bmn,bm->bn", seen, z).reshape(d.shape)

        return Denoiser(network, self.prior.schedule, "sample", self.prior.shape)


def make_prior(name: str) -> GaussianMixture:
    """Return a prior on curves over [0, 1], in float64."""
    x = torch.linspace(0, 1, N, dtype=torch.float64)
    smooth = torch.exp(-0.5 * ((x[:, None] - x) / 0.15) ** 2)
    ridge = 1e-3 * torch.eye(N, dtype=torch.float64)
    if name == "Gaussian":
        return GaussianMixture(0 * x, smooth + ridge, DiscreteSchedule.linear())
    ramp = torch.sigmoid((x - 0.75) / 0.05)
    return GaussianMixture(
        torch.stack([1.5 * ramp, 0 * x, -1.5 * ramp]),
        torch.stack([0.1 * smooth + ridge] * 3),
        DiscreteSchedule.linear(),
        torch.tensor([0.5, 0.3, 0.2]),
    )


def make_problem(oracle: str, observation: str, seed: int) -> CurveProblem:
    """Observe one curve of a prior."""
    prior, generator = make_prior(oracle), torch.Generator().manual_seed(seed)
    x0 = prior.sample(1, generator)
    known = half(prior.shape)
    A = (
        torch.eye(N, dtype=torch.float64)[known.flatten()]
        if observation == "half"
        else resampling(N, 4)[: N // 8]
    )
    noisy = observation != "half"
    y = A @ x0.flatten()
    if noisy:
        y = y + NOISE * torch.randn(len(y), generator=generator, dtype=torch.float64)
    constraint: LinearConstraint = (
        Separable(y.reshape(1, 1, 1, -1), torch.ones(1, 1), A, NOISE)
        if noisy
        else Inpainting(x0, known)
    )
    return CurveProblem(prior, constraint, A, y, prior.conditioned(A, y, constraint.sigma))


def posterior_errors(problem: CurveProblem, x: Tensor) -> list[float]:
    """Compare samples, (B, n), with the posterior.

    Returns
    -------
    list
        In the order of SCORES: |m - m*| / sqrt(tr C*); |C - C*|_F / |C*|_F; sqrt(tr C / tr C*),
        ideally 1; the total variation between the components' weights, a sample's component by
        Bayes' rule; the share of the samples within the regions of highest density that hold 50 and
        90 % of the posterior, see `Regions`.
    """
    mean, C_true = mixture_moments(problem.posterior)
    C = torch.cov(x.T)
    weights = problem.prior.posterior(x, 0)[0].mean(0)
    return [
        float(value)
        for value in (
            (x.mean(0) - mean).norm() / C_true.trace().sqrt(),
            (C - C_true).norm() / C_true.norm(),
            (C.trace() / C_true.trace()).sqrt(),
            (weights - problem.posterior.log_weights.exp()).abs().sum() / 2,
            *problem.regions.coverage(x),
        )
    ]


def mixture_moments(mixture: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Return mean, (n,), and covariance, (n, n)."""
    weights, within = (
        mixture.log_weights.exp(),
        (mixture.eigenvectors * mixture.eigenvalues[:, None]) @ mixture.eigenvectors.mT,
    )
    mean = weights @ mixture.means
    apart = mixture.means - mean
    return mean, torch.einsum("k,kij->ij", weights, within) + torch.einsum(
        "k,ki,kj->ij", weights, apart, apart
    )

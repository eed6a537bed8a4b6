r"""Closed-form denoisers, whose Jacobian is known exactly: the truth that every numerical method is
tested against.

For the prior N(m, S) and `x_t = a x_0 + s noise` (a = alpha_t, s = sigma_t)

    D(x_t)       = m + K (x_t - a m),   K = a S (a^2 S + s^2 I)^{-1} = J
    Cov[x_0|x_t] = (s^2 / a) J                                     (Tweedie, second order)

A mixture of Gaussians has posterior weights w_k(x_t), and by the law of total covariance

    D = sum_k w_k D_k,   J = (a / s^2) (sum_k w_k (C_k + D_k D_k^T) - D D^T)

with C_k the posterior covariances of the components. J is symmetric and positive semi-definite. One
class does both: a Gaussian is a mixture of one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab import _require
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import Prediction, has_zero
from jacobian_lab.diffusion.schedule import Schedule, Time
from jacobian_lab.errors import InputError


class GaussianMixture(nn.Module):
    """A Gaussian-mixture prior with everything about its diffusion in closed form.

    Parameters
    ----------
    means : Tensor, shape (K, n) or (n,)
    covariances : Tensor, shape (K, n, n) or (n, n)
        Symmetric, positive semi-definite.
    weights : Tensor, shape (K,), optional
        Probabilities of the components; equal by default.
    schedule : Schedule
    shape : tuple of int, optional
        Shape of a sample, of n entries; by default (1, 1, n).

    Notes
    -----
    Computations run in the dtype of `means`; take float64 for a truth. Covariances are diagonalised
    once, so each noise level costs products with their eigenvectors only.
    """

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor,
        schedule: Schedule,
        weights: Tensor | None = None,
        shape: Shape | None = None,
    ) -> None:
        super().__init__()
        _require.instance("schedule", schedule, Schedule)
        if weights is not None:
            _require.finite("weights", _require.tensor("weights", weights))
        if shape is not None:
            _require.sizes("shape", shape)
        means, eigenvalues, eigenvectors = _diagonalised(means, covariances)
        count, n = means.shape
        weights = (
            torch.ones(count, device="cpu").to(means) if weights is None else weights.to(means)
        )
        if weights.shape != (count,) or not (weights > 0).all():
            raise InputError(f"weights must be {count} positive numbers: got {weights}")
        self.schedule = schedule
        self.shape: Shape = shape or (1, 1, n)
        if math.prod(self.shape) != n:
            raise InputError(f"shape {shape} has {math.prod(self.shape)} entries: expected n = {n}")
        self.means: Tensor
        self.eigenvalues: Tensor
        self.eigenvectors: Tensor
        self.log_weights: Tensor
        self.register_buffer("means", means.clone())
        self.register_buffer("eigenvalues", eigenvalues.clamp(min=0))
        self.register_buffer("eigenvectors", eigenvectors)
        self.register_buffer("log_weights", (weights / weights.sum()).log())
        self.eval()

    def posterior(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """Return the posterior of x_0 given flattened `x`, (B, n): weights (B, K), means (B, K, n),
        variances (B, K, n).

        The variances lie along `eigenvectors`: component k has the covariance `U_k
        diag(variances_k) U_k^T`.
        """
        a, s = (c.to(x).reshape(-1, 1, 1) for c in self.schedule(t))
        variances = a**2 * self.eigenvalues + s**2  # of x_t, (B or 1, K, n)
        centred = torch.einsum("kij,bki->bkj", self.eigenvectors, x[:, None] - a * self.means)
        distances = self._distances(centred, variances, a, s)
        log_density = -0.5 * (distances + variances.log()).sum(-1)
        weights = torch.softmax(self.log_weights + log_density, dim=1)
        moves = torch.einsum(
            "kij,bkj->bki", self.eigenvectors, a * self.eigenvalues / variances * centred
        )
        return weights, self.means + moves, (s**2 * self.eigenvalues / variances).expand_as(centred)

    def _distances(self, centred: Tensor, variances: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """Return `(U_k^T (x - a m_k))_i^2 / variances_ki`, (B, K, n), where a < s less the
        `|x|^2 / s^2` that all components share: its derivative is large and cancels among them.
        """
        m = torch.einsum("kij,ki->kj", self.eigenvectors, self.means)
        x, late = centred + a * m, a < s
        shared = a**2 * self.eigenvalues / torch.where(late, s, 1) ** 2 * x**2
        rest = -(shared + a * m * (2 * x - a * m)) / variances
        return torch.where(late, rest, centred**2 / variances)

    def mean(self, x_t: Tensor, t: Time) -> Tensor:
        """Return `D(x_t, t) = E[x_0 | x_t]` for `x_t` of shape (B, *shape)."""
        weights, means, _ = self.posterior(self._flat(x_t), t)
        return torch.einsum("bk,bki->bi", weights, means).reshape(x_t.shape)

    def covariance(self, x_t: Tensor, t: Time) -> Tensor:
        """Return `Cov[x_0 | x_t]`, shape (B, n, n), for `x_t` of shape (B, *shape)."""
        weights, means, variances = self.posterior(self._flat(x_t), t)
        within = torch.einsum(
            "bk,kil,bkl,kjl->bij", weights, self.eigenvectors, variances, self.eigenvectors
        )
        spread = means - torch.einsum("bk,bki->bi", weights, means)[:, None]
        return within + torch.einsum("bk,bki,bkj->bij", weights, spread, spread)

    def jacobian(self, x_t: Tensor, t: Time) -> Tensor:
        """Return `J = (alpha_t / sigma_t^2) Cov[x_0 | x_t]`, shape (B, n, n)."""
        a, s = self.schedule(t)
        if has_zero(s):
            raise InputError(f"x_t is the clean sample at t = {t}: sigma_t = 0 divides in J")
        covariance = self.covariance(x_t, t)
        return (a / s**2).to(covariance).reshape(-1, 1, 1) * covariance

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return samples of the prior, shape (count, *shape); the generator lives on the CPU."""
        count = _require.integer("count", count, 1)
        weights = self.log_weights.exp().expand(count, -1)
        return self._draw(
            weights,
            self.means.expand(count, -1, -1),
            self.eigenvalues.expand(count, -1, -1),
            generator,
        )

    def posterior_sample(self, x_t: Tensor, t: Time, generator: torch.Generator) -> Tensor:
        """Return one exact sample of p(x_0 | x_t) per row of `x_t`, shape (B, *shape).

        Parameters
        ----------
        x_t : Tensor, shape (B, *shape)
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).
        generator : torch.Generator
            On the CPU.
        """
        return self._draw(*self.posterior(self._flat(x_t), t), generator)

    def _flat(self, x_t: Tensor) -> Tensor:
        flat = _require.tensor("x_t", x_t).flatten(1)
        if flat.shape[1] != self.means.shape[1]:
            raise InputError(
                f"x_t has shape {tuple(x_t.shape)}: expected (B, {', '.join(map(str, self.shape))})"
            )
        return flat

    def _draw(
        self, weights: Tensor, means: Tensor, variances: Tensor, generator: torch.Generator
    ) -> Tensor:
        _require.instance("generator", generator, torch.Generator)
        k = torch.multinomial(weights.cpu(), 1, replacement=True, generator=generator)[:, 0].to(
            means.device
        )
        b = torch.arange(len(k), device=means.device)
        noise = torch.randn(
            means[b, k].shape, generator=generator, dtype=means.dtype, device="cpu"
        ).to(means.device)
        # the symmetric root does not depend on the eigenvectors' signs, which are LAPACK's
        V = self.eigenvectors[k]
        along = variances[b, k].sqrt() * torch.einsum("bji,bj->bi", V, noise)
        x = means[b, k] + torch.einsum("bij,bj->bi", V, along)
        return x.reshape(-1, *self.shape)

    def conditioned(self, A: Tensor, y: Tensor, sigma: float = 0.0) -> GaussianMixture:
        r"""Return the prior of what is left of x_0 after an observation `y = A x_0 + sigma noise`:
        again a mixture.

        With `G_k = S_k A^T (A S_k A^T + sigma^2 I)^{-1}` component k becomes

            N(m_k + G_k (y - A m_k), S_k - G_k A S_k)
            with weights w_k N(y; A m_k, A S_k A^T + sigma^2 I), normalised

        Its `denoiser` is `E[x_0 | x_t, y]`: sampled without a constraint, it draws from p(x_0 | y).

        Parameters
        ----------
        A : Tensor, shape (m, n)
            On flattened samples.
        y : Tensor, shape (m,)
        sigma : float
            Standard deviation of the noise; 0 for an exact observation.

        Raises
        ------
        InputError
            If the shapes do not fit, or `A S_k A^T + sigma^2 I` is singular: some of y is then
            certain beforehand.
        """
        sigma = _require.real("sigma", sigma, "[0, inf)")
        for name, given in (("A", A), ("y", y)):
            _require.tensor(name, given)
        if A.ndim != 2 or A.shape[1] != self.means.shape[1] or y.shape != A.shape[:1]:
            raise InputError(
                f"A and y have shapes {tuple(A.shape)} and {tuple(y.shape)}: expected (m,"
                f" {self.means.shape[1]}) and (m,)"
            )
        A, y = A.to(self.means), y.to(self.means)
        roots = self.eigenvectors * self.eigenvalues.sqrt()[:, None]  # S_k = R R^T
        left, values, right = torch.linalg.svd(A @ roots)
        rank, (m, n) = values.shape[1], A.shape
        # of y, along `left`; S_k - G_k A S_k would cancel where little is left of S_k
        variances = F.pad(values**2, (0, m - rank)) + sigma**2
        failed = (variances <= n * torch.finfo(y.dtype).eps * variances.amax(1, True)).any(1)
        if failed.any():
            raise InputError(
                f"A S A^T + sigma^2 I is singular for component {int(failed.nonzero()[0])} and"
                f" sigma = {sigma}: leave out redundant rows of A, or give the observation noise"
            )
        missing = torch.einsum("kij,ki->kj", left, y - self.means @ A.T)
        log_evidence = -0.5 * (missing**2 / variances + variances.log()).sum(1)
        weights = torch.softmax(self.log_weights + log_evidence, dim=0)
        along, used = roots @ right.mT, variances[:, :rank]
        moves = along[..., :rank] @ (values * missing[:, :rank] / used)[..., None]
        half = along * F.pad(sigma / used.sqrt(), (0, n - rank), value=1.0)[:, None]
        return GaussianMixture(
            self.means + moves[..., 0],
            half @ half.mT,
            self.schedule,
            weights.clamp(min=torch.finfo(weights.dtype).tiny),
            self.shape,
        )

    def denoiser(self, prediction: Prediction = "sample") -> Denoiser:
        """Return the exact posterior mean, dressed as a network of the given prediction type."""
        return Denoiser(OracleNetwork(self, prediction), self.schedule, prediction, self.shape)


def _diagonalised(means: Tensor, covariances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return means, (K, n), and the covariances' eigenvalues, (K, n), and eigenvectors, (K, n, n),
    or raise unless they are those of K Gaussians.
    """
    for name, given, least in (("means", means, 1), ("covariances", covariances, 2)):
        if _require.tensor(name, given).ndim < least:
            raise InputError(
                f"{name} has shape {tuple(given.shape)}: expected (K, n) and (K, n, n), or"
                " without K"
            )
        _require.finite(name, given)
    means = means.reshape(-1, means.shape[-1])
    covariances = covariances.reshape(-1, *covariances.shape[-2:])
    count, n = means.shape
    if covariances.shape != (count, n, n):
        raise InputError(
            f"covariances have shape {tuple(covariances.shape)}: expected {(count, n, n)} for"
            " the means"
        )
    if not torch.allclose(covariances, covariances.mT, atol=1e-6 * float(covariances.abs().max())):
        raise InputError("covariances must be symmetric")
    eigenvalues, eigenvectors = torch.linalg.eigh((covariances + covariances.mT) / 2)
    if eigenvalues.min() < -1e-6 * eigenvalues.max():
        raise InputError(
            "covariances must be positive semi-definite: got the eigenvalue"
            f" {eigenvalues.min():.3g}"
        )
    return means, eigenvalues, eigenvectors


class OracleNetwork(nn.Module):
    """The raw output, `network(x, t)`, for which the posterior mean is that of the oracle."""

    def __init__(self, oracle: GaussianMixture, prediction: Prediction) -> None:
        super().__init__()
        self.oracle = oracle
        self.bare = Denoiser(_nothing, oracle.schedule, prediction, oracle.shape)
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output, (B, *shape)."""
        return self.bare.raw(self.oracle.mean(x, t), x, t)


def _nothing(x: Tensor, _t: Tensor) -> Tensor:
    return torch.zeros_like(x)


def gaussian(
    mean: Tensor, covariance: Tensor, schedule: Schedule, shape: Shape | None = None
) -> GaussianMixture:
    """Return the oracle of a single Gaussian prior N(mean, covariance), n = len(mean); see
    `GaussianMixture`.

    Parameters
    ----------
    mean : Tensor, shape (n,)
    covariance : Tensor, shape (n, n)
        Symmetric, positive semi-definite.
    schedule : Schedule
    shape : tuple of int, optional
        Shape of a sample, of n entries; by default (1, 1, n).
    """
    return GaussianMixture(mean, covariance, schedule, shape=shape)

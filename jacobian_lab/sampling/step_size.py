r"""How far to go along a Newton direction g: lambda for each sample, `x_t <- x_t + lambda g`.

    Dynamic(c)          c / max |g|, the paper's: no entry moves by more than c        nothing
    Secant(c)           the same, but no further than where e would be zero            nothing
    PerError(c)         c / |e|, that of DPS, but no further than where e would be 0   nothing
    Fixed(size)         the same for all                                               nothing
    Spectral(c)         c / mu^2, mu the largest |eigenvalue| of J by Arnoldi     `steps` products
    ExactMinimiser()    the minimum of |e - lambda J g|, as the constraint sees it     one product
    Backtracking(c)     the first of c, c / 2, c / 4 ... (over max |g|) that helps     a pass each

A c is in units of `sqrt(alpha_t^2 + sigma_t^2)`, the size of x_t: 1 where the variance is
preserved, as in the paper, and about sigma_t where it explodes. So one c means the same step on
every schedule.

An inexact step sends e to `(I - lambda J^2) e`: it contracts an eigenvector of J with eigenvalue mu
where `|1 - lambda mu^2| < 1`. Passes are counted by the `BatchJacobian` that a rule is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.observations import widened
from jacobian_lab.diffusion.schedule import per_sample
from jacobian_lab.krylov.many_systems import ritz_values_batch
from jacobian_lab.linops.batch_jacobian import BatchJacobian


class StepSize(Protocol):
    """A rule for lambda."""

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return lambda for each sample, shape (B,), at least 0.

        Parameters
        ----------
        J : BatchJacobian
            At x_t.
        e, g : Tensor, shape (B, *shape)
            The error and the direction.
        constraint : Constraint
        progress : float
            From 0 at the first time to 1 at the last.
        """


@dataclass(frozen=True)
class Dynamic:
    """`lambda = c / max |g|`: the largest change of an entry of x_t is c, which may fall linearly
    with time.

    References
    ----------
    Graikos, Jojic, Samaras (2025), the step size of the paper's algorithm.
    """

    c: float = 0.2
    """Largest change of an entry of x_t, at the first time, in units of the size of x_t."""
    last: float | None = None
    """The same at the last time, c falling linearly; None leaves it constant."""

    def __post_init__(self) -> None:
        _require.real("c", self.c, "(0, inf)")
        if self.last is not None:
            _require.real("c at the last time", self.last, "[0, inf)")

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return c / max |g|; see `StepSize`."""
        c = self.c if self.last is None else self.c + (self.last - self.c) * progress
        return _over_largest(c, J, g)


@dataclass(frozen=True)
class Secant:
    """`lambda = min(c / max |g|, r^2)` with `r = <e, P g> / |P g|^2`, P what the constraint sees:
    `Dynamic`, with a brake.

    For the inexact direction `g = J e`: were e an eigenvector of P J, of eigenvalue mu, r would be
    1 / mu and r^2 the step that ends the error. `Dynamic` moves x_t by c however small the error
    has become, and circles around the goal; this one arrives.
    """

    c: float = 0.2
    """Largest change of an entry of x_t, in units of the size of x_t."""

    def __post_init__(self) -> None:
        _require.real("c", self.c, "(0, inf)")

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return the smaller of the two; see `StepSize`."""
        return torch.minimum(_over_largest(self.c, J, g), _ratio(e, constraint.seen(g)) ** 2)


@dataclass(frozen=True)
class PerError:
    """`lambda = min(c / |e|, r^2)`, r as in `Secant`: x_t moves by c times J on the direction of e,
    and so further where J passes more of it.

    References
    ----------
    Chung, Kim, McCann, Klasky, Ye (2023), *Diffusion posterior sampling for general noisy inverse
    problems*, whose step along J^T e is zeta / |e|; the brake is not theirs.
    """

    c: float = 4.0
    """Length of the change of x_t where |J e| = |e|, for x_t of size 1."""

    def __post_init__(self) -> None:
        _require.real("c", self.c, "(0, inf)")

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return the smaller of the two; see `StepSize`."""
        # J e is the smaller, the larger x_t is
        c = self.c * float(J.denoiser.schedule.scale(J.t)) ** 2
        size = widened(e).flatten(1).norm(dim=1)
        step = torch.where(size > 0, c / size.clamp(min=torch.finfo(size.dtype).tiny), 0)
        return torch.minimum(step, _ratio(e, constraint.seen(g)) ** 2)


@dataclass(frozen=True)
class Fixed:
    """The same lambda always; 1 is Newton's own for the exact direction."""

    size: float

    def __post_init__(self) -> None:
        _require.real("a fixed step size", self.size, "(0, inf)")

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return the size; see `StepSize`."""
        return g.new_full((len(g),), self.size)


@dataclass(frozen=True)
class Spectral:
    """`lambda = c / mu^2`, mu the largest |eigenvalue| of J at x_t by a few Arnoldi steps from the
    error.
    """

    c: float = 1.0
    """lambda mu^2: up to 2 contracts the leading eigenvector where mu is real; 1 removes it at
    once.
    """
    steps: int = 10
    """Arnoldi steps: products spent."""

    def __post_init__(self) -> None:
        _require.real("c", self.c, "(0, inf)")
        _require.integer("steps", self.steps, 1)

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return c / mu^2, and 0 where no eigenvalue was seen; see `StepSize`."""
        mu = self.mu(J, e)
        size = np.where(mu > 0, self.c / np.where(mu > 0, mu, 1) ** 2, 0)
        return torch.from_numpy(size).to(widened(g))

    def mu(self, J: BatchJacobian, e: Tensor) -> NDArray[np.float64]:
        """Return the largest |Ritz value| of each sample's J, shape (B,), an estimate of its
        largest |eigenvalue|.
        """
        return np.asarray(
            np.abs(ritz_values_batch(J.on_arrays, J.arrays(e), min(self.steps, e[0].numel()))).max(
                1
            )
        )


@dataclass(frozen=True)
class ExactMinimiser:
    """`lambda = <e, P J g> / |P J g|^2`, P what the constraint sees: the minimum of |e - lambda P J
    g|; at least 0.
    """

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return the minimiser; see `StepSize`."""
        return _ratio(e, constraint.seen(J.jvp(g)))


@dataclass(frozen=True)
class Backtracking:
    """The first of c, c / 2, c / 4 ..., over max |g|, that lowers the constraint's residual; 0 if
    none of them does.
    """

    c: float = 1.0
    """Largest change of an entry of x_t that is tried, in units of the size of x_t."""
    trials: int = 5
    """Most forward passes; samples that are content wait for the others."""

    def __post_init__(self) -> None:
        _require.real("c", self.c, "(0, inf)")
        _require.integer("trials", self.trials, 1)

    def __call__(
        self, J: BatchJacobian, e: Tensor, g: Tensor, constraint: Constraint, progress: float
    ) -> Tensor:
        """Return the first that helps; see `StepSize`."""
        before = constraint.residual(J.d)
        size, found = _over_largest(self.c, J, g), torch.zeros_like(before)
        for _ in range(self.trials):
            after = constraint.residual(J.denoise(advanced(J.x, size, g)))
            found = torch.where((found == 0) & (after < before), size, found)
            if (found > 0).all():
                break
            size = size / 2
        return found


def advanced(x: Tensor, size: Tensor, g: Tensor) -> Tensor:
    """Return `x + lambda g`, (B, *shape), in the precision of x: lambda may be beyond half's."""
    wide = widened(g)
    return x + (per_sample(size, wide) * wide).to(x.dtype)


def _ratio(e: Tensor, moved: Tensor) -> Tensor:
    """Return the minimiser of |e - r moved|, at least 0, for each sample."""
    e, moved = widened(e), widened(moved)
    size = moved.flatten(1).square().sum(1)
    return torch.where(
        size > 0, (e * moved).flatten(1).sum(1) / size.clamp(min=torch.finfo(e.dtype).tiny), 0
    ).clamp(min=0)


def _over_largest(c: float, J: BatchJacobian, g: Tensor) -> Tensor:
    c = c * float(J.denoiser.schedule.scale(J.t))
    largest = widened(g).flatten(1).abs().amax(1)
    return torch.where(largest > 0, c / largest.clamp(min=torch.finfo(largest.dtype).tiny), 0)

r"""Constraints on the clean image: `error(x0)`, the change wanted, and `residual(x0)`, how much is
missing.

One scale for all: **the error is the smallest change of x_0 that fulfils the constraint**, to first
order, in the pixels' own unit. So `x_0 + error(x_0)` fulfils a linear constraint, errors of
different constraints may be added, and an exact Newton step of size 1 is the natural one.

    observation y = A x + sigma noise   error = A^+ (y - A x_0), drawn back to where |y - A x_0|
                                        is what noise explains
    loss L(x) >= 0                      error = -(L - target) grad L / |grad L|^2,
                                        Gauss-Newton for one equation

Here are the protocol, `Constraint`, its weighted sums, and what all observations share,
`LinearConstraint`. The observations themselves are in `jacobian_lab.constraints.linear` and
`jacobian_lab.constraints.separable`, the losses in `jacobian_lab.constraints.losses`. A constraint
knows images only: no denoiser, no time, no noise.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.constraints.observations import check_range, on_device, widened
from jacobian_lab.errors import InputError


class Constraint(ABC):
    """A constraint on clean images x_0, (B, *shape); each sample by itself."""

    @abstractmethod
    def error(self, x0: Tensor) -> Tensor:
        """Return the change wanted in x_0, of its shape: the smallest that fulfils the constraint
        to first order.
        """

    @abstractmethod
    def residual(self, x0: Tensor) -> Tensor:
        """Return how much is missing, shape (B,), in the constraint's own unit; 0 is fulfilled."""

    def seen(self, change: Tensor) -> Tensor:
        """Return the part of a change of x_0 that the constraint notices: for observations `A^+ A`
        of it, else all of it.
        """
        return change

    def project(self, x0: Tensor) -> Tensor:
        """Return the nearest images that fulfil the constraint exactly, where that is known:
        noiseless observations.
        """
        raise InputError(
            f"{type(self).__name__} has no exact projection of images, {tuple(x0.shape)}: only"
            " noiseless linear constraints have one"
        )

    def select(self, index: Tensor) -> Constraint:
        """Return the constraint of some of the samples, by a boolean index, (B,).

        Here it is one that asks for all B, with copies in the places of those left out, so that it
        holds for every constraint; those that know which numbers are whose take their part.
        """
        return Part(self, index)

    def __add__(self, other: Constraint) -> Sum:
        return Sum([(1.0, self)]) + other

    def __rmul__(self, weight: float) -> Sum:
        return Sum([(1.0, self)]).__rmul__(weight)


class Part(Constraint):
    """A constraint of B samples for some of them; see `Constraint.select`."""

    def __init__(self, whole: Constraint, index: Tensor) -> None:
        self.whole, self.index = whole, index.nonzero()[:, 0]
        self._places = torch.where(index, index.cumsum(0) - 1, 0)  # of each sample among the some

    def error(self, x0: Tensor) -> Tensor:
        """Return the whole's error of these samples."""
        return self.whole.error(self._all(x0))[self.index]

    def residual(self, x0: Tensor) -> Tensor:
        """Return the whole's residual of these samples."""
        return self.whole.residual(self._all(x0))[self.index]

    def seen(self, change: Tensor) -> Tensor:
        """Return what the whole sees of these samples' changes."""
        return self.whole.seen(self._all(change))[self.index]

    def project(self, x0: Tensor) -> Tensor:
        """Return the whole's projection of these samples."""
        return self.whole.project(self._all(x0))[self.index]

    def _all(self, x0: Tensor) -> Tensor:
        return x0[self._places]


class Sum(Constraint):
    """Several constraints at once, `inpainting + 0.5 * style`: errors are added with the weights.

    The residual is the root of the weighted residuals' sum of squares. Where two constraints want
    the same change of the same pixel they want it twice: give them weights that sum to 1 there.
    """

    def __init__(self, parts: list[tuple[float, Constraint]]) -> None:
        self.parts = parts

    def error(self, x0: Tensor) -> Tensor:
        """Return the weighted sum of the errors."""
        return torch.stack([weight * part.error(x0) for weight, part in self.parts]).sum(0)

    def residual(self, x0: Tensor) -> Tensor:
        """Return the root of the sum of squares of the weighted residuals, shape (B,)."""
        each = torch.stack([weight * part.residual(x0) for weight, part in self.parts])
        return widened(each).square().sum(0).sqrt().to(each)

    def select(self, index: Tensor) -> Sum:
        """Return the sum of the parts' constraints of some of the samples."""
        return Sum([(weight, part.select(index)) for weight, part in self.parts])

    def __add__(self, other: Constraint) -> Sum:
        _require.instance("what is added to a constraint", other, Constraint)
        return Sum(self.parts + (other.parts if isinstance(other, Sum) else [(1.0, other)]))

    def __rmul__(self, weight: float) -> Sum:
        weight = _require.real("the weight of a constraint", weight, "[0, inf)")
        return Sum([(weight * inner, part) for inner, part in self.parts])


class LinearConstraint(Constraint):
    """Observations `y = A x + sigma noise`. Subclasses define `forward`, `adjoint` and
    `pseudo_inverse`.

    Parameters
    ----------
    y : Tensor, shape (B, ...) or (1, ...)
        One observation for each sample, or one for all.
    sigma : float
        Standard deviation of the noise in y, on the pixels' scale. The constraint is then that the
        root mean square of `y - A x_0` be sigma and no smaller (Morozov's discrepancy principle).
    damping : float, optional
        In `A^+ = A^T (A A^T + damping)^{-1}`: what keeps small singular values from amplifying
        noise. By default sigma^2, the Wiener filter for errors of unit variance.

    Notes
    -----
    Pixels are in [-1, 1]. A y of pixels in [0, 255] is refused, by
    `jacobian_lab.constraints.observations.check_range`; one in [0, 1] is warned of where A makes a
    constant image constant, as masks, blurs and shrinking do.
    """

    def __init__(self, y: Tensor, sigma: float = 0.0, damping: float | None = None) -> None:
        _require.finite("the observation y", _require.tensor("the observation y", y))
        self.y, self.sigma = y.clone(), _require.real("sigma", sigma, "[0, inf)")
        self.damping = (
            self.sigma**2 if damping is None else _require.real("damping", damping, "[0, inf)")
        )

    def check(self) -> None:
        """Tell of a y that is not that of pixels in [-1, 1]; subclasses call it once A is known."""
        check_range(self.y, self.forward, self.adjoint, self.sigma, self.count())

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return `A x`: (B, *shape) -> (B, ...), the shape of y."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^T y`: (B, ...) -> (B, *shape)."""

    @abstractmethod
    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Return `A^T (A A^T + damping)^{-1} y`: (B, ...) -> (B, *shape)."""

    def count(self) -> Tensor | int:
        """Return how many numbers are observed of each sample."""
        return self.y[0].numel()

    def missing(self, x0: Tensor) -> Tensor:
        """Return `y - A x_0`, shape (B, ...)."""
        self._settle(x0)
        if len(self.y) not in (1, len(x0)):
            raise InputError(
                f"there are {len(self.y)} observations for {len(x0)} samples: expected one for each"
                " or one for all"
            )
        try:
            found = self.forward(x0)
            if found.shape != (len(x0), *self.y.shape[1:]):  # the difference would repeat one
                raise RuntimeError(f"A makes {tuple(found.shape)} of them")
        except RuntimeError as error:
            raise InputError(
                f"images of shape {tuple(x0.shape)} do not give observations of shape"
                f" {tuple(self.y.shape)}: {error}"
            ) from error
        return self.y.to(x0) - found

    def error(self, x0: Tensor) -> Tensor:
        """Return `(1 - sigma / rms) A^+ (y - A x_0)`, and zero where the root mean square is below
        sigma.
        """
        missing = self.missing(x0)
        error = self.pseudo_inverse(missing)
        if not self.sigma:
            return error
        share = (1 - self.sigma / self._size(missing).clamp(min=torch.finfo(x0.dtype).tiny)).clamp(
            min=0
        )
        return error * share.reshape(-1, *[1] * (error.ndim - 1))

    def residual(self, x0: Tensor) -> Tensor:
        """Return the root mean square of `y - A x_0` over the observed numbers, shape (B,); the
        pixels' unit.
        """
        return self._size(self.missing(x0))

    def seen(self, change: Tensor) -> Tensor:
        """Return `A^+ A change`."""
        self._settle(change)
        return self.pseudo_inverse(self.forward(change))

    def project(self, x0: Tensor) -> Tensor:
        """Return `x_0 + A^+ (y - A x_0)`: the nearest images with `A x = y`.

        Raises
        ------
        InputError
            If sigma or the damping is not zero: the images then do not, or should not, reproduce y.
        """
        if self.sigma or self.damping:
            raise InputError(
                "an exact projection onto noisy observations would copy the noise (sigma"
                f" {self.sigma}, damping {self.damping}): do without, or give the constraint"
                " sigma=0"
            )
        return x0 + self.pseudo_inverse(self.missing(x0))

    def select(self, index: slice | Tensor) -> Self:
        """Return the constraint of some of the samples."""
        chosen = copy.copy(self)
        if len(self.y) > 1:
            chosen.y = self.y[on_device(index, self.y)]
        return chosen

    def _settle(self, x0: Tensor) -> None:
        """Make of y what samples of the shape of x_0 tell that it is."""

    def _size(self, missing: Tensor) -> Tensor:
        count, wide = self.count(), widened(missing)
        mean = wide.flatten(1).square().sum(1) / (
            count.to(wide) if isinstance(count, Tensor) else count
        )
        return mean.sqrt().to(missing)

r"""What is wanted of the clean image, as an object: `error(x0)`, the change wanted, and
`residual(x0)`, how much is missing.

One scale for all: **the error is the smallest change of x_0 that fulfils the constraint**, to first
order, in the pixels' own unit. So `x_0 + error(x_0)` fulfils a linear constraint, errors of
different constraints may be added, and an exact Newton step of size 1 is the natural one.

    observation y = A x + sigma noise   error = A^+ (y - A x_0), drawn back to where |y - A x_0|
                                        is what noise explains
    loss L(x) >= 0                      error = -(L - target) grad L / |grad L|^2,
                                        Gauss-Newton for one equation

Here are `Inpainting` (a mask) and `LinearMap` (any A with its adjoint); a matrix on rows and one on
columns, for `super_resolution` and `gaussian_blur`, is in `jacobian_lab.constraints.separable`,
losses are in `jacobian_lab.constraints.losses`. A constraint knows images only: no denoiser, no
time, no noise.
"""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor
from torch.nn import functional as F

from jacobian_lab.constraints.observations import Map, check_range, dot_test
from jacobian_lab.errors import ConvergenceWarning, InputError


class Constraint(ABC):
    """What is wanted of clean images x_0, (B, C, H, W); each sample by itself."""

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

    def __add__(self, other: Constraint) -> Sum:
        return Sum([(1.0, self)]) + other

    def __rmul__(self, weight: float) -> Sum:
        return Sum([(1.0, self)]).__rmul__(weight)


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
        return (
            torch.stack([weight * part.residual(x0) for weight, part in self.parts])
            .square()
            .sum(0)
            .sqrt()
        )

    def __add__(self, other: Constraint) -> Sum:
        return Sum(self.parts + (other.parts if isinstance(other, Sum) else [(1.0, other)]))

    def __rmul__(self, weight: float) -> Sum:
        if not 0 <= weight < math.inf:
            raise InputError(
                f"the weight of a constraint must be finite and at least 0: got {weight}"
            )
        return Sum([(weight * inner, part) for inner, part in self.parts])


class Linear(Constraint):
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
        if not y.is_floating_point() or not y.isfinite().all():
            raise InputError(
                f"the observation must be floating point and finite: got {y.dtype}, "
                f"{int((~torch.isfinite(y)).sum())} of {y.numel()} values not finite"
            )
        if not sigma >= 0 or not (damping is None or damping >= 0):
            raise InputError(f"sigma and damping must be at least 0: got {sigma} and {damping}")
        self.y, self.sigma = y, sigma
        self.damping = sigma**2 if damping is None else damping

    def check(self) -> None:
        """Tell of a y that is not that of pixels in [-1, 1]; subclasses call it once A is known."""
        check_range(self.y, self.forward, self.adjoint, self.sigma, self.count())

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return `A x`: (B, C, H, W) -> (B, ...), the shape of y."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^T y`: (B, ...) -> (B, C, H, W)."""

    @abstractmethod
    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Return `A^T (A A^T + damping)^{-1} y`: (B, ...) -> (B, C, H, W)."""

    def count(self) -> Tensor | int:
        """Return how many numbers are observed of each sample."""
        return self.y[0].numel()

    def missing(self, x0: Tensor) -> Tensor:
        """Return `y - A x_0`, shape (B, ...)."""
        if len(self.y) not in (1, len(x0)):
            raise InputError(
                f"there are {len(self.y)} observations for {len(x0)} samples: expected one for each"
                " or one for all"
            )
        try:
            return self.y.to(x0) - self.forward(x0)
        except RuntimeError as error:
            raise InputError(
                f"images of shape {tuple(x0.shape)} do not give observations of shape"
                f" {tuple(self.y.shape)}: {error}"
            ) from error

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
        return error * share.reshape(-1, 1, 1, 1)

    def residual(self, x0: Tensor) -> Tensor:
        """Return the root mean square of `y - A x_0` over the observed numbers, shape (B,); the
        pixels' unit.
        """
        return self._size(self.missing(x0))

    def seen(self, change: Tensor) -> Tensor:
        """Return `A^+ A change`."""
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
            chosen.y = self.y[index]
        return chosen

    def _size(self, missing: Tensor) -> Tensor:
        count = self.count()
        return (
            missing.flatten(1).square().sum(1)
            / (count.to(missing) if isinstance(count, Tensor) else count)
        ).sqrt()


class Inpainting(Linear):
    """Known pixels: A keeps those that the mask marks. Here A A^T = 1, so that `A^+ = A^T / (1 +
    damping)`.

    Parameters
    ----------
    y : Tensor, shape (B, C, H, W), or (1, C, H, W) or (C, H, W) for all samples
        The images; what the mask does not mark is ignored (it may be anything finite).
    mask : Tensor of bool, shape (C or 1, H, W) or (B, C or 1, H, W)
        True where a pixel is known; see `jacobian_lab.constraints.masks`.
    sigma : float
        See `Linear`.
    """

    def __init__(self, y: Tensor, mask: Tensor, sigma: float = 0.0) -> None:
        if mask.dtype != torch.bool:
            raise InputError(
                f"the mask must be boolean, True where a pixel is known: got {mask.dtype}; write"
                " mask > 0.5"
            )
        y = y.unsqueeze(0) if y.ndim == 3 else y
        try:
            mask, y = torch.broadcast_tensors(mask, y)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise InputError(
                f"a mask of shape {tuple(mask.shape)} does not fit images of {tuple(y.shape)}"
            ) from error
        if not mask.flatten(1).any(1).all():
            raise InputError(
                "the mask marks no pixel of a sample as known: without any there is no constraint"
            )
        self.mask = mask
        super().__init__(torch.where(mask, y, 0), sigma, damping=0.0)
        self.check()

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the unknown pixels set to zero."""
        return x * self.mask.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return y with the unknown pixels set to zero."""
        return y * self.mask.to(y)

    pseudo_inverse = adjoint

    def project(self, x0: Tensor) -> Tensor:
        """Return x_0 with the known pixels in their places, to the bit."""
        return torch.where(self.mask, self.y.to(x0), super().project(x0))

    def count(self) -> Tensor:
        """Return the number of known pixels, shape (B,)."""
        return self.mask.flatten(1).sum(1)

    def select(self, index: slice | Tensor) -> Self:
        """Return the constraint of some of the samples."""
        chosen = super().select(index)
        if len(self.mask) > 1:
            chosen.mask = self.mask[index]
        return chosen


class LinearMap(Linear):
    """Any linear A, given with its adjoint; `A^+` by conjugate gradients for least squares (CGLS).

    Parameters
    ----------
    y : Tensor, shape (B, ...) or (1, ...)
    forward, adjoint : callable
        On tensors, (B, C, H, W) -> (B, ...) and back. See `LinearMap.from_operator` for SciPy's.
    sigma, damping
        See `Linear`.
    steps : int
        Most steps of conjugate gradients.
    rtol : float
        They stop, sample by sample, at a residual r of `rtol |y|`, or, where y is not in the range
        of A, of `|A^T r| = rtol |A| |r|`.

    Raises
    ------
    InputError
        If `<A x, u> = <x, adjoint(u)>` does not hold to 1e-5 (or rounding, if coarser), for random
        u and for `u = A x` (the dot test): the adjoint is of another map, or A is not linear. It
        costs one product with A and three with the adjoint.

    References
    ----------
    Paige, Saunders (1982), *LSQR*: the method and the two rules.
    """

    def __init__(
        self,
        y: Tensor,
        forward: Map,
        adjoint: Map,
        sigma: float = 0.0,
        damping: float | None = None,
        steps: int = 200,
        rtol: float = 1e-5,
    ) -> None:
        super().__init__(y, sigma, damping)
        self._forward, self._adjoint, self.steps, self.rtol = forward, adjoint, steps, rtol
        dot_test(self.y, forward, adjoint)
        self.check()

    @classmethod
    def from_operator(
        cls,
        y: Tensor,
        A: LinearOperator,
        shape: tuple[int, int, int],
        sigma: float = 0.0,
        damping: float | None = None,
    ) -> LinearMap:
        """Make it of a SciPy operator, (m, C H W), on flattened images of `shape`; y has shape (B,
        m).
        """

        def product(operator: LinearOperator, x: Tensor) -> Tensor:
            found = operator @ x.detach().cpu().double().flatten(1).numpy().T
            return torch.from_numpy(np.ascontiguousarray(found.T)).to(x)

        return cls(
            y,
            lambda x: product(A, x),
            lambda u: product(A.T, u).reshape(-1, *shape),
            sigma,
            damping,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `A x`."""
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^T y`."""
        return self._adjoint(y)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Return the x of least `|A x - y|^2 + damping |x|^2`, and of those the smallest; y need
        not be in the range of A.

        Warns
        -----
        ConvergenceWarning
            If `steps` do not suffice.
        """

        def size(a: Tensor) -> Tensor:
            return a.flatten(1).square().sum(1)

        def times(factor: Tensor, a: Tensor) -> Tensor:
            return factor.reshape(-1, *[1] * (a.ndim - 1)) * a

        r, s = y, self._adjoint(y)
        x, p, slope = torch.zeros_like(s), s, size(s)  # slope: |A^T r - damping x|^2
        going, norm = slope > 0, torch.zeros_like(slope)
        for _ in range(self.steps if going.any() else 0):
            Ap = self._forward(p)
            curvature = size(Ap) + self.damping * size(p)
            # |A|^2 + damping, from below
            norm = torch.maximum(norm, torch.where(going, curvature / size(p), 0))
            going = going & (curvature > 0)
            step = torch.where(going, slope / curvature, 0)
            x, r, before = x + times(step, p), r - times(step, Ap), slope
            s = self._adjoint(r) - self.damping * x
            slope, left = size(s), size(r)
            going = (
                going
                & (left > self.rtol**2 * size(y))
                & (slope > self.rtol**2 * norm * (left + self.damping * size(x)))
            )
            p = s + times(torch.where(going, slope / before, 0), p)
            if not going.any():
                break
        if going.any():
            warnings.warn(
                f"A^+ by {self.steps} steps of conjugate gradients has not converged for"
                f" {int(going.sum())} of {len(y)} samples, relative residual"
                f" {float((left / size(y))[going].max()) ** 0.5:.1e}: allow more steps, a larger"
                " rtol, or damping",
                ConvergenceWarning,
                stacklevel=2,
            )
        return x


def blur(
    y: Tensor,
    kernel: Tensor,
    sigma: float = 0.0,
    damping: float | None = None,
    correlate: bool = False,
) -> LinearMap:
    """Return the constraint that x_0, blurred by a kernel, be `y`.

    Parameters
    ----------
    y : Tensor, shape (B, C, H, W)
    kernel : Tensor, shape (h, w), both odd
        The same for all channels, finite; images are continued by their mirror image.
    correlate : bool
        By default the image is convolved with the kernel, which is then the image of a point, as in
        SciPy's `convolve` and for a measured point spread function. With True it is correlated, as
        PyTorch's `conv2d` does, whose kernel is the mirror image of a convolution's. For kernels
        symmetric about their middle both are the same.
    """
    if kernel.ndim != 2 or not all(size % 2 for size in kernel.shape):
        raise InputError(
            f"the kernel must have an odd height and width: got shape {tuple(kernel.shape)}"
        )
    if not kernel.isfinite().all() or not kernel.any():
        raise InputError(
            f"the kernel must be finite and not zero everywhere: got {kernel.tolist()}"
        )
    height, width = kernel.shape
    y = y.unsqueeze(0) if y.ndim == 3 else y
    if y.shape[-2] <= height // 2 or y.shape[-1] <= width // 2:
        raise InputError(
            f"a kernel of {height}x{width} reaches beyond the mirror image of"
            f" {y.shape[-2]}x{y.shape[-1]} pixels: take a smaller one"
        )
    weights = kernel if correlate else kernel.flip(0, 1)

    def forward(x: Tensor) -> Tensor:
        padded = F.pad(
            x.flatten(0, 1).unsqueeze(1),
            (width // 2, width // 2, height // 2, height // 2),
            mode="reflect",
        )
        return F.conv2d(padded, weights.to(x)[None, None]).reshape(x.shape)

    def adjoint(u: Tensor) -> Tensor:
        return torch.func.vjp(forward, torch.zeros_like(u))[1](u)[0]

    return LinearMap(y, forward, adjoint, sigma, damping)

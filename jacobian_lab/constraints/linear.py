r"""Linear observations y = A x: known pixels, any A with its adjoint, and a blur by a kernel.

    Inpainting    A keeps the pixels of a mask:     A^+ = A^T
    LinearMap     A and A^T are given as functions: A^+ by conjugate gradients (CGLS)
    blur          a `LinearMap`: convolution with a kernel, mirrored at the edges

Observations by one matrix on rows and one on columns are in `jacobian_lab.constraints.separable`.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Self

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor
from torch.nn import functional as F

from jacobian_lab import _require
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.observations import (
    Map,
    as_images,
    dot_test,
    maps_of,
    on_device,
    widened,
)
from jacobian_lab.diffusion.schedule import per_sample
from jacobian_lab.errors import ConvergenceWarning, InputError


class Inpainting(LinearConstraint):
    """Known pixels: A keeps those that the mask marks. Here A A^T = 1, so that `A^+ = A^T / (1 +
    damping)`.

    Parameters
    ----------
    y : Tensor, shape (B, *shape), or (1, *shape) or shape for all samples
        The samples; what the mask does not mark is ignored (it may be anything finite). Whether it
        is one sample or a batch shows at the first use, by the samples x_0.
    mask : Tensor of bool
        True where an entry is known; its shape broadcasts to that of y: (C or 1, H, W) or (B, C or
        1, H, W) for images. See `jacobian_lab.constraints.masks`.
    sigma : float
        See `LinearConstraint`.
    """

    def __init__(self, y: Tensor, mask: Tensor, sigma: float = 0.0) -> None:
        _require.tensor("the observation y", y)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise InputError(
                "the mask must be boolean, True where a pixel is known: got"
                f" {_require.shown(mask)}; write mask > 0.5"
            )
        mask = mask.to(y.device, copy=True)  # which the caller may write into
        y = y.unsqueeze(0) if y.ndim in (1, 3) else y  # a guess; see _settle
        try:
            mask, y = torch.broadcast_tensors(mask, y)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise InputError(
                f"a mask of shape {tuple(mask.shape)} does not fit images of {tuple(y.shape)}"
            ) from error
        self.mask, self._settled = mask, False
        self._check_mask(every=y.ndim == 4)
        super().__init__(torch.where(mask, y, 0), sigma, damping=0.0)
        self.check()

    def _check_mask(self, every: bool) -> None:
        """Raise unless an entry is known, of every sample if that is asked."""
        if not (self.mask.flatten(1).any(1).all() if every else self.mask.any()):
            raise InputError(
                "the mask marks no pixel of a sample as known: without any there is no constraint"
            )

    def _settle(self, x0: Tensor) -> None:
        """Fit y and the mask to x_0: for one sample or a batch, as its dimensions tell."""
        y, mask = self.y, self.mask
        if not self._settled and y.ndim == x0.ndim - 1:
            y, mask = y.unsqueeze(0), mask.unsqueeze(0)
        elif not self._settled and y.ndim == x0.ndim + 1 and len(y) == 1:
            y, mask = y[0], mask[0]
        if x0.shape[1:] != y.shape[1:]:  # the mask would repeat it
            raise InputError(
                f"images of shape {tuple(x0.shape)} are not of that of y, {tuple(self.y.shape)}"
            )
        if not self._settled:
            self.y, self.mask = y, mask
            self._check_mask(every=True)
            self._settled = True

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the unknown pixels set to zero."""
        return x * self.mask.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return y with the unknown pixels set to zero."""
        return y * self.mask.to(y)

    pseudo_inverse = adjoint

    def project(self, x0: Tensor) -> Tensor:
        """Return x_0 with the known pixels in their places, to the bit."""
        self._settle(x0)
        return torch.where(self.mask.to(x0.device), self.y.to(x0), super().project(x0))

    def count(self) -> Tensor:
        """Return the number of known pixels, shape (B,)."""
        return self.mask.flatten(1).sum(1)

    def select(self, index: slice | Tensor) -> Self:
        """Return the constraint of some of the samples."""
        chosen = super().select(index)
        if len(self.mask) > 1:
            chosen.mask = self.mask[on_device(index, self.mask)]
        return chosen


class LinearMap(LinearConstraint):
    """Any linear A, given with its adjoint; `A^+` by conjugate gradients for least squares (CGLS).

    Parameters
    ----------
    y : Tensor, shape (B, ...) or (1, ...)
    forward, adjoint : callable
        On tensors, (B, *shape) -> (B, ...) and back. See `LinearMap.from_operator` for SciPy's.
    sigma, damping
        See `LinearConstraint`.
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
        costs three products with A and three with the adjoint.

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
        for name, given in (("forward", forward), ("adjoint", adjoint)):
            _require.function(name, given, "of tensors")
        self._forward, self._adjoint = forward, adjoint
        self.steps = _require.integer("steps", steps, 1)
        self.rtol = _require.real("rtol", rtol, "[0, 1)")
        self._alike = dot_test(self.y, forward, adjoint)
        self.check()

    @classmethod
    def from_operator(
        cls,
        y: Tensor,
        A: LinearOperator,
        shape: tuple[int, ...],
        sigma: float = 0.0,
        damping: float | None = None,
    ) -> LinearMap:
        """Make it of a SciPy operator, (m, n), on flattened samples of `shape`; y has shape (B,
        m).

        Parameters
        ----------
        y : Tensor, shape (B, m) or (1, m)
        A : LinearOperator, shape (m, n)
            Real, with `rmatvec` or `rmatmat`; products are computed on the CPU in float64.
        shape : tuple of int
            Shape of a sample, of n entries.
        sigma, damping
            See `LinearConstraint`.
        """
        forward, adjoint = maps_of(A, y, shape)
        return cls(y, forward, adjoint, sigma, damping)

    def forward(self, x: Tensor) -> Tensor:
        """Return `A x`."""
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^T y`."""
        return self._adjoint(y)

    def select(self, index: slice | Tensor) -> Self:
        """Return the constraint of some of the samples."""
        chosen = super().select(index)
        if not self._alike:
            mask = torch.zeros(len(self.y), dtype=torch.bool, device="cpu")
            mask[on_device(index, mask)] = True
            chosen._forward, chosen._adjoint = (
                partial(_of_some, product, mask) for product in (self._forward, self._adjoint)
            )
        return chosen

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Return the x of least `|A x - y|^2 + damping |x|^2`, and of those the smallest; y need
        not be in the range of A.

        Warns
        -----
        ConvergenceWarning
            If `steps` do not suffice.
        """
        r = widened(y)  # sums of squares are in float32 at least: half would overflow
        s = _product(self._adjoint, r, y.dtype)
        x, p, slope = 0 * s, s, _square(s)  # NaN where y is; slope: |A^T r - damping x|^2
        going, norm, whole = slope > 0, torch.zeros_like(slope), _square(r)
        for _ in range(self.steps if going.any() else 0):
            Ap = _product(self._forward, p, y.dtype)
            curvature = _square(Ap) + self.damping * _square(p)
            # |A|^2 + damping, from below
            norm = torch.maximum(norm, torch.where(going, curvature / _square(p), 0))
            going = going & (curvature > 0)
            step = torch.where(going, slope / curvature, 0)
            x, r, before = x + per_sample(step, p) * p, r - per_sample(step, Ap) * Ap, slope
            s = _product(self._adjoint, r, y.dtype) - self.damping * x
            slope, left = _square(s), _square(r)
            going = (
                going
                & (left > self.rtol**2 * whole)
                & (slope > self.rtol**2 * norm * (left + self.damping * _square(x)))
            )
            p = s + per_sample(torch.where(going, slope / before, 0), p) * p
            if not going.any():
                break
        if going.any():
            warnings.warn(
                f"A^+ by {self.steps} steps of conjugate gradients has not converged for"
                f" {int(going.sum())} of {len(y)} samples, relative residual"
                f" {float((left / whole)[going].max()) ** 0.5:.1e}: allow more steps, a larger"
                " rtol, or damping",
                ConvergenceWarning,
                stacklevel=2,
            )
        return x.to(y.dtype)


def _square(a: Tensor) -> Tensor:
    return a.flatten(1).square().sum(1)


def _product(of: Map, a: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a product, computed of entries up to 1: in half precision small ones vanish."""
    largest = a.flatten(1).abs().amax(1).clamp(min=torch.finfo(a.dtype).tiny)
    found = widened(of((a / per_sample(largest, a)).to(dtype)))
    return per_sample(largest, found) * found


def _of_some(product: Map, mask: Tensor, x: Tensor) -> Tensor:
    """Return some samples' products with maps of their own, (B,), which take all samples."""
    places = torch.where(mask, mask.cumsum(0) - 1, 0)  # of each sample among the some
    return product(x[places.to(x.device)])[mask.to(x.device)]


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
    if not isinstance(kernel, Tensor) or kernel.ndim != 2 or not all(n % 2 for n in kernel.shape):
        raise InputError(
            f"the kernel must be a tensor of odd height and width: got {_require.shown(kernel)}"
        )
    if not kernel.isfinite().all() or not kernel.any():
        raise InputError(
            f"the kernel must be finite and not zero everywhere: got {kernel.tolist()}"
        )
    height, width = kernel.shape
    y = as_images(y)
    if y.shape[-2] <= height // 2 or y.shape[-1] <= width // 2:
        raise InputError(
            f"a kernel of {height}x{width} reaches beyond the mirror image of"
            f" {y.shape[-2]}x{y.shape[-1]} pixels: take a smaller one"
        )
    weights = kernel.clone() if correlate else kernel.flip(0, 1)

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

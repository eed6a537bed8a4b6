r"""Observations by one matrix on the rows and one on the columns of an image: super-resolution, and
Gaussian blur.

How small singular values are kept from amplifying noise: `Separable` by a constant damping,
`Wiener` by one that it reads off the observations.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jacobian_lab import _require
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.observations import as_images, widened
from jacobian_lab.errors import InputError


class Separable(LinearConstraint):
    r"""One matrix on the rows and one on the columns of each channel: `A x = R x C^T`.

    With `R = U S V^T` (and C likewise) the pseudo-inverse is exact: `A^+ y = V_r (W * (U_r^T y
    U_c)) V_c^T`, `W_ij = s_i s_j / (s_i^2 s_j^2 + damping)`, zero where `s_i s_j` is below 1e-6 of
    the largest, or where it would amplify the rounding of y, in half precision, beyond y.

    Parameters
    ----------
    y : Tensor, shape (B, C, h, w) or (1, C, h, w)
    rows, columns : Tensor, shapes (h, H) and (w, W)
    sigma, damping
        See `LinearConstraint`.
    """

    def __init__(
        self,
        y: Tensor,
        rows: Tensor,
        columns: Tensor,
        sigma: float = 0.0,
        damping: float | None = None,
    ) -> None:
        super().__init__(as_images(y), sigma, damping)
        self.rows, self.columns = _matrix("rows", rows), _matrix("columns", columns)
        if tuple(y.shape[-2:]) != (len(rows), len(columns)):
            raise InputError(
                f"matrices of {tuple(rows.shape)} and {tuple(columns.shape)} observe images of"
                f" {len(rows)} x {len(columns)}: got y of shape {tuple(y.shape)}"
            )
        (self._ur, s_r, self._vr), (self._uc, s_c, self._vc) = (
            torch.linalg.svd(matrix, full_matrices=False) for matrix in (self.rows, self.columns)
        )
        self._s = s_r[:, None] * s_c
        self._weights = torch.where(
            self._s > 1e-6 * self._s.max(), self._s / (self._s**2 + self.damping), 0
        )
        self.check()

    def forward(self, x: Tensor) -> Tensor:
        """Return `R x C^T`."""
        return self.rows.to(x) @ x @ self.columns.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `R^T y C`."""
        return self.rows.to(y).T @ y @ self.columns.to(y)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Return `A^T (A A^T + damping)^{-1} y`."""
        most = 1 / (torch.finfo(y.dtype).eps * self._s.max())
        return self._filter(y, torch.where(self._weights <= most, self._weights, 0))

    def _filter(self, y: Tensor, weights: Tensor) -> Tensor:
        wide = widened(y)
        inner = weights.to(wide) * (self._ur.to(wide).T @ wide @ self._uc.to(wide))
        return (self._vr.to(wide).T @ inner @ self._vc.to(wide)).to(y.dtype)


class Wiener(Separable):
    r"""Noisy observations whose singular values differ in size, as those of a blur do: the error by
    Wiener's filter.

        e = r^2 A^T (r^2 A A^T + sigma^2)^{-1} (y - A x_0)
        r^2 = max(0, |y - A x_0|^2 - m sigma^2) / tr(A A^T)

    e is the best linear guess of what is missing in x_0, were that white with variance r^2; and r^2
    is what the m observations themselves say of it, since then `E |y - A x_0|^2 = r^2 tr(A A^T) + m
    sigma^2`. It falls as x_0 improves, so that small singular values are left alone in time, where
    a damping of sigma^2 (r = 1) goes on to amplify their noise; it is 0 where the noise explains
    all. Without noise, and for `pseudo_inverse` and `seen`, this is `Separable`.

    Parameters
    ----------
    y : Tensor, shape (B, C, h, w) or (1, C, h, w)
    rows, columns : Tensor, shapes (h, H) and (w, W)
    sigma
        See `LinearConstraint`. A damping of one's own is `Separable`'s.

    References
    ----------
    Efron, Morris (1973), *Stein's estimation rule and its competitors - an empirical Bayes
    approach*: r^2 from the data.
    """

    def __init__(self, y: Tensor, rows: Tensor, columns: Tensor, sigma: float = 0.0) -> None:
        super().__init__(y, rows, columns, sigma)

    def error(self, x0: Tensor) -> Tensor:
        """Return e, of the shape of x_0."""
        if not self.sigma:
            return super().error(x0)
        missing = self.missing(x0)
        excess = missing.double().flatten(1).square().sum(1) - missing[0].numel() * self.sigma**2
        s = self._s.to(excess)
        # all channels share one A
        r2 = excess.clamp(min=0).reshape(-1, 1, 1, 1) / (missing.shape[1] * s.square().sum())
        return self._filter(missing, r2 * s / (r2 * s**2 + self.sigma**2))


def _matrix(name: str, given: Tensor) -> Tensor:
    """Return a copy in float64, which the caller does not write into, or raise."""
    found = torch.from_numpy(_require.array(name, given).copy())
    if found.ndim != 2:
        raise InputError(f"{name} must be a matrix: got shape {tuple(found.shape)}")
    return found


def resampling(size: int, factor: int, antialias: bool = True) -> Tensor:
    """Return the matrix, (size / factor, size), that shrinks a line by a factor: bicubic, the
    filter widened by the factor.

    Parameters
    ----------
    size : int
        Pixels of the line; a multiple of the factor.
    factor : int
        At least 1.
    antialias : bool
        Widen the filter by the factor; without, a shrunk image has aliases.
    """
    if size % (factor := _require.integer("factor", factor, 1)):
        raise InputError(f"the factor must divide the side of the image, {size}: got {factor}")
    # each unit vector as a column image
    units = torch.eye(size, dtype=torch.float64, device="cpu")[:, None, :, None]
    shrunk = F.interpolate(
        units.expand(-1, -1, -1, factor),
        size=(size // factor, factor),
        mode="bicubic",
        antialias=antialias,
    )
    return shrunk[:, 0, :, 0].T


def super_resolution(y: Tensor, factor: int, sigma: float = 0.0) -> Separable:
    """Return the constraint that x_0, shrunk by the factor (bicubic, antialiased), be `y`, (B, C, H
    / factor, W / factor).

    Parameters
    ----------
    y : Tensor, shape (B, C, H / factor, W / factor)
    factor : int
        At least 1.
    sigma : float
        Standard deviation of the noise in y; see `LinearConstraint`.
    """
    height, width = as_images(y).shape[-2:]
    factor = _require.integer("factor", factor, 1)
    return Separable(
        y, resampling(height * factor, factor), resampling(width * factor, factor), sigma
    )


def shrink(x: Tensor, factor: int) -> Tensor:
    """Return images, (B, C, H, W), shrunk by the factor as `super_resolution` understands it."""
    rows, columns = (resampling(size, factor).to(x) for size in x.shape[-2:])
    return rows @ x @ columns.T


def blurring(size: int, width: float) -> Tensor:
    """Return the matrix, (size, size), that blurs a line by a Gaussian of standard deviation
    `width` pixels; edges repeat.
    """
    width = _require.real("the width of the blur, in pixels,", width, "(0, inf)")
    reach = int(np.ceil(4 * width))
    apart = torch.arange(-reach, reach + 1, dtype=torch.float64, device="cpu")
    kernel = torch.exp(-0.5 * (apart / width) ** 2)
    units = torch.eye(size, dtype=torch.float64, device="cpu")[:, None]
    lines = F.pad(units, (reach, reach), mode="replicate")
    return F.conv1d(lines, (kernel / kernel.sum())[None, None])[:, 0].T


def gaussian_blur(
    y: Tensor, width: float, sigma: float = 0.0, damping: float | None = None
) -> Separable:
    """Return the constraint that x_0, blurred by a Gaussian of standard deviation `width` pixels,
    be `y`, (B, C, H, W).

    With a damping it is a plain `Separable`; without, `Wiener` finds its own.

    Parameters
    ----------
    y : Tensor, shape (B, C, H, W)
    width : float
        Standard deviation of the Gaussian in pixels; positive.
    sigma, damping
        See `LinearConstraint`.
    """
    height, breadth = as_images(y).shape[-2:]
    rows, columns = blurring(height, width), blurring(breadth, width)
    if damping is None:
        return Wiener(y, rows, columns, sigma)
    return Separable(y, rows, columns, sigma, damping)

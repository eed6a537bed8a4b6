r"""Whether an observation y = A x, and the map A, are what they should be: told before anything is
sampled.

    check_range(y, ...)    |y|^2 / |A^T y|_1 bounds the pixels that y needs from below
    dot_test(y, ...)       <A x, u> = <x, A^T u>
    maps_of(A, ...)        A of SciPy is real, and of these sizes
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.errors import InputError

Map = Callable[[Tensor], Tensor]
LARGEST = 10.0
"""Largest pixel that an observation may need: ten times what images have, four times what latents
have.
"""
TF32 = 2**-11
"""Rounding of convolutions and matrix products in float32 on a GPU, where PyTorch may take 10
binary digits.
"""
FEWEST = 32
"""Numbers observed, from which on their signs say something."""


@torch.no_grad()
def check_range(y: Tensor, forward: Map, adjoint: Map, sigma: float, count: int | Tensor) -> None:
    """Tell of a y, (B, ...), that is not that of pixels in [-1, 1]; `count` numbers of it are
    observed, with noise sigma.

    `y = A x` needs pixels of at least `|y|^2 / |A^T y|_1`, since `|y|^2 = <A^T y, x> <= |A^T y|_1
    max|x|`: a bound for the price of one adjoint. Noise is taken off. Latents, and images of unit
    variance, stay below 10; bytes do not.

    Parameters
    ----------
    y : Tensor, shape (B, ...)
    forward, adjoint : callable
        A and A^T, (B, *shape) -> (B, ...) and back.
    sigma : float
        Standard deviation of the noise in y.
    count : int or Tensor, shape (B,)
        How many numbers of y are observed.

    Raises
    ------
    InputError
        If pixels beyond 10 are needed.

    Warns
    -----
    UserWarning
        If y fills [0, 1] and A makes a constant image of 1 constant: pixels in [0, 1], most likely.
    """
    back = adjoint(y)
    noise = 2 * sigma**2 * torch.as_tensor(count, device=y.device)
    needed = (y.double().flatten(1).square().sum(1) - noise) / back.double().flatten(1).abs().sum(1)
    if (bad := needed > LARGEST).any():  # NaN where y = 0, and no number is too large
        raise InputError(
            f"y = A x would need pixels of at least {float(needed[bad][0]):.3g} in x, expected [-1,"
            f" 1]: y lies from {float(y.min()):.3g} to {float(y.max()):.3g}. If pixels are in [0,"
            " 255], make y of x / 127.5 - 1"
        )
    of_white = forward(torch.ones_like(back))
    seen = y[of_white.expand_as(y) != 0]
    if seen.numel() < FEWEST or not (of_white - 1).abs().masked_fill(of_white == 0, 0).max() < 1e-3:
        return
    # a bicubic filter overshoots
    low, high, slack = float(seen.min()), float(seen.max()), 0.05 + 3 * sigma
    outside = float(((seen < -slack) | (seen > 1 + slack)).double().mean())
    if low <= 0.1 and high > 0.5 and slack < 0.5 and outside <= (0.005 if sigma else 0):
        warnings.warn(
            f"y lies from {low:.3g} to {high:.3g} as if pixels were in [0, 1], and they are in [-1,"
            " 1], where 0 is gray: give 2 y - 1, unless nothing in y is darker than gray",
            UserWarning,
            stacklevel=5,
        )


@torch.no_grad()
def as_images(y: Tensor) -> Tensor:
    """Return images as a batch, (B, C, H, W), or raise unless they are."""
    if not isinstance(y, Tensor) or y.ndim not in (3, 4):
        raise InputError(
            "this constraint is for images: expected y of shape (B, C, H, W) or (C, H, W), got"
            f" {tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}. LinearMap takes"
            " any A with its adjoint, of samples of any shape"
        )
    return y if y.ndim == 4 else y.unsqueeze(0)


def widened(a: Tensor) -> Tensor:
    """Return a tensor in float32 at least, for sums of squares, which half precision overflows."""
    return a.to(torch.promote_types(a.dtype, torch.float32))


def on_device(index: slice | Tensor, like: Tensor) -> slice | Tensor:
    """Return an index on the device of what it is taken from."""
    return index.to(like.device) if isinstance(index, Tensor) else index


def dot_test(y: Tensor, forward: Map, adjoint: Map) -> bool:
    """Raise unless the adjoint is that of the map, y -> images, to rounding in single precision at
    least; return whether A does to a sample alone what it does to it among all.

    Parameters
    ----------
    y : Tensor, shape (B, ...)
        Only its shape, dtype and device count.
    forward, adjoint : callable
        A and A^T, (B, *shape) -> (B, ...) and back.
    """
    generator = torch.Generator().manual_seed(0)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device="cpu").to(like)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() * b.double()).flatten(1).sum(1)

    u = random(y)
    x = random(adjoint(u))
    Ax = forward(x)
    if Ax.shape != u.shape:
        raise InputError(
            f"the adjoint makes images of shape {tuple(x.shape)} of y, and A makes"
            f" {tuple(Ax.shape)} of them: expected the shape of y, {tuple(u.shape)}"
        )
    eps = TF32 if u.is_cuda and u.dtype == torch.float32 else torch.finfo(u.dtype).eps
    tolerance = max(1e-5, 8 * eps)  # parts of A may be in single precision
    # a random u finds any fault; with A x the products are larger, and rounding hides less
    for v in (u, Ax):
        left, right = dot(Ax, v), dot(x, adjoint(v))
        if not ((left - right).abs() <= tolerance * (dot(Ax, Ax) * dot(v, v)).sqrt()).all():
            raise InputError(
                "the adjoint is not that of A, or A is not linear: <A x, u> ="
                f" {float(left[0]):.6g}, and <x, adjoint(u)> = {float(right[0]):.6g}. Make it by"
                " torch.func.vjp of A, say, or look for a kernel that is not flipped, a factor or"
                " an offset"
            )
    if len(x) == 1:
        return True
    try:
        alone = forward(x[-1:]).shape == Ax[-1:].shape
    except Exception:  # of a map that is given what it was not made for: anything
        return False
    # equal only if each sample's map is that of the next one
    others = forward(x.roll(1, 0)).roll(-1, 0)
    return alone and bool(dot(others - Ax, others - Ax).sum() <= 1e-6 * dot(Ax, Ax).sum())


def maps_of(A: LinearOperator, y: Tensor, shape: tuple[int, ...]) -> tuple[Map, Map]:
    """Return A and A^T on tensors, (B, *shape) -> (B, m) and back, of SciPy's operator on flattened
    samples, or raise unless it is real and has the sizes of y and of the samples.
    """
    try:
        operator = aslinearoperator(A)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected a LinearOperator of SciPy: got {_require.shown(A)}") from error
    if np.dtype(operator.dtype).kind == "c":
        raise InputError(
            f"A must be real: got {operator.dtype}; give real and imaginary parts apart"
        )
    if _require.tensor("the observation y", y).ndim != 2:
        raise InputError(f"y must have shape (B, m): got {tuple(y.shape)}")
    if operator.shape != (expected := (y.shape[1], math.prod(shape))):
        raise InputError(
            f"A must be of shape {expected}, for y of shape {tuple(y.shape)} and samples of shape"
            f" {tuple(shape)}: got {operator.shape}"
        )

    def product(part: LinearOperator, x: Tensor) -> Tensor:
        found = part @ x.detach().cpu().double().flatten(1).numpy().T
        return torch.from_numpy(np.ascontiguousarray(found.T)).to(x)

    return (
        lambda x: product(operator, x),
        lambda u: product(operator.T, u).reshape(-1, *shape),
    )

"""Points and directions at which a network is tested."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHTS = (1.0, 0.7, 0.5, 0.4, 0.3)
"""Weights of noise, x, a constant, a slope and a parabola in the direction of the check: all
different, lest two of them cancel.
"""


def foreign(x: Tensor) -> Tensor:
    """Return another sample, of another mean and size, to stand beside x in a batch: x from its
    last entry to its first, 1.5 times, and a constant.
    """
    turned = x.flatten(1).flip(1).reshape(x.shape)
    return 1.5 * turned + x.abs().mean()


def probe(x: Tensor) -> Tensor:
    """Return the direction of the check at each sample, shape (1, B, *shape), with entries of root
    mean square 1.

    A number that the network reads out (a norm, a mean, a maximum) makes an error of rank one in J.
    A random vector sees only 1 / sqrt(n) of it; x itself, a constant and a slope see all of it. So
    the direction mixes these with noise.
    """
    noise = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
    ).to(x.device)
    along = torch.linspace(-1, 1, x.shape[-1], dtype=torch.float64, device=x.device).expand(x.shape)
    parts = (noise, x.double(), torch.ones_like(along), along, along.square())
    mixed = torch.zeros_like(noise)
    for part, weight in zip(parts, WEIGHTS, strict=True):
        mixed = mixed + weight * unit(part.flatten(1)).reshape(x.shape)
    return (unit(mixed.flatten(1)) * x[0].numel() ** 0.5).reshape(1, *x.shape).to(x.dtype)


def beside(z: Tensor, x: Tensor) -> Tensor:
    """Return directions between z = J^T w, (K, B, *shape), and the probe at x, or its opposite, at
    an acute angle to z: a number that is read out shows nowhere along z if the rest of the network
    does not depend on it.
    """
    along, other = (unit(v.expand_as(z).flatten(0, 1).flatten(1)) for v in (z, probe(x)))
    cosine = (along * other).sum(1, keepdim=True)
    return (along + other * torch.ones_like(cosine).copysign(cosine)).reshape(z.shape)


def unit(x: Tensor) -> Tensor:
    """Return the rows of x, (m, n), at length 1 each; zeros stay."""
    return x / x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)

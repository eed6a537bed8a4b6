r"""Distributions on manifolds of known dimension in 1,024 pixels, whose posterior mean is known in
closed form.

    subspace    x0 = m + A z, z ~ N(0, I_d): flat, a Gaussian of rank d
    torus       x0 = sum_k R_k (cos(a_k) p_k + sin(a_k) q_k) with uniform angles a_k: curved, d
                circles in orthogonal planes

On a circle of radius R the posterior of the angle is von Mises with the concentration `kappa =
R |u| (alpha / sigma)^2`, where u is the part of `x_t / alpha` in its plane, so that

    D(x_t) = sum_k R_k A(kappa_k) u_k / |u_k|,     A = I_1 / I_0

with the modified Bessel functions I_0 and I_1 (Mardia, Jupp, *Directional statistics*, 2000).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jacobian_lab import Denoiser, DiscreteSchedule, Schedule, gaussian
from mnist.data import SHAPE

PIXELS = math.prod(SHAPE)


class Torus(nn.Module):
    """The posterior mean of a product of circles, `network(x, t)`.

    Parameters
    ----------
    planes : Tensor, shape (d, 2, n)
        Orthonormal pairs of vectors, orthogonal to each other.
    radii : Tensor, shape (d,)
    schedule : Schedule
    """

    def __init__(self, planes: Tensor, radii: Tensor, schedule: Schedule) -> None:
        super().__init__()
        self.planes: Tensor
        self.radii: Tensor
        self.register_buffer("planes", planes)
        self.register_buffer("radii", radii)
        self.schedule = schedule
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return E[x_0 | x_t], of the shape of x, (B, *shape)."""
        alpha_t, sigma_t = (c.to(x).reshape(-1, 1) for c in self.schedule(t))
        u = torch.einsum("kin,bn->bki", self.planes, x.flatten(1) / alpha_t)
        length = u.square().sum(-1).sqrt()
        kappa = self.radii * length * (alpha_t / sigma_t) ** 2
        mean = self.radii * torch.special.i1e(kappa) / torch.special.i0e(kappa) / length
        return torch.einsum("bk,bki,kin->bn", mean, u, self.planes).reshape(x.shape)


def torus(dimension: int, seed: int) -> tuple[Denoiser, Tensor]:
    """Return the denoiser of a random torus, float64, and a point of it, (1, 32, 32); the radii
    differ by up to a factor of 3.
    """
    g = torch.Generator().manual_seed(seed)
    frame = torch.randn(PIXELS, 2 * dimension, generator=g, dtype=torch.float64)
    planes = torch.linalg.qr(frame)[0].T.reshape(dimension, 2, PIXELS).contiguous()
    size, angles = torch.rand(2, dimension, generator=g, dtype=torch.float64)
    radii = math.sqrt(PIXELS / dimension) * (0.5 + size)
    schedule = DiscreteSchedule.linear()
    denoiser = Denoiser(Torus(planes, radii, schedule), schedule, "sample", SHAPE)
    circle = torch.stack([torch.cos(2 * math.pi * angles), torch.sin(2 * math.pi * angles)], 1)
    return denoiser, torch.einsum("k,ki,kin->n", radii, circle, planes).reshape(SHAPE)


def subspace(dimension: int, seed: int) -> tuple[Denoiser, Tensor]:
    """Return the denoiser of a random Gaussian of rank d, float64, and a draw, (1, 32, 32)."""
    g = torch.Generator().manual_seed(seed)
    factor = torch.randn(PIXELS, dimension, generator=g, dtype=torch.float64)
    mean = torch.randn(PIXELS, generator=g, dtype=torch.float64)
    covariance = factor @ factor.T / dimension
    oracle = gaussian(mean, covariance, DiscreteSchedule.linear(), SHAPE)
    return oracle.denoiser(), oracle.sample(1, g)[0]


MANIFOLDS: dict[str, Callable[[int, int], tuple[Denoiser, Tensor]]] = {
    "subspace": subspace,
    "torus": torus,
}
"""Name -> function of the dimension and a seed."""

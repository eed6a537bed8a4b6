"""The posterior mean on a torus is that of a dense sample of it, and J that of automatic
differentiation.
"""

import math

import pytest
import torch

from jacobian_lab import JacobianOperator
from studies.claims.manifolds import MANIFOLDS, PIXELS, torus

import networks
from conftest import relative


def test_the_posterior_mean_is_that_of_a_dense_sample_of_the_circle():
    denoiser, _ = torus(1, 0)
    planes, radii = denoiser.network.planes[0], denoiser.network.radii
    t, g = 900, torch.Generator().manual_seed(0)  # so much noise that the posterior is wide
    angles = 2 * math.pi * torch.arange(4000, dtype=torch.float64) / 4000
    circle = radii * torch.stack([angles.cos(), angles.sin()], 1) @ planes
    x_t = torch.randn(1, 1, 32, 32, generator=g, dtype=torch.float64)
    alpha_t, sigma_t = denoiser.schedule(t)
    distance = (x_t.flatten(1) - alpha_t * circle).square().sum(1)
    weights = torch.softmax(-distance / (2 * sigma_t**2), 0)
    assert 0.01 < float(weights.max()) * 4000 / 2 < 100  # neither flat nor a point
    assert relative(denoiser(x_t, t).flatten(), weights @ circle) < 1e-10


@pytest.mark.parametrize("kind", MANIFOLDS)
def test_a_point_lies_on_its_manifold(kind):
    denoiser, x0 = MANIFOLDS[kind](3, 1)
    alpha_t = float(denoiser.schedule(0)[0])
    # with almost no noise, a point that is on the manifold is its own posterior mean
    assert x0.numel() == PIXELS
    assert relative(denoiser(alpha_t * x0, 0), x0) < 1e-4
    off = x0 + torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).double()
    assert relative(denoiser(alpha_t * off, 0), off) > 0.3


def test_the_jacobian_of_a_torus():
    denoiser, x0 = torus(2, 0)
    x_t = denoiser.schedule.add_noise(x0[None], 300, torch.ones_like(x0)[None])
    J = JacobianOperator(denoiser, x_t, 300)
    v = torch.randn(PIXELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64).numpy()
    assert relative(J @ v, networks.truth(denoiser, x_t, 300).numpy() @ v) < 1e-9

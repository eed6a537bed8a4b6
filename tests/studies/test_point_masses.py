"""The denoiser that memorises, in closed form."""

import pytest
import torch

from jacobian_lab import DiscreteSchedule, GaussianMixture, JacobianOperator
from studies.claims.point_masses import PointMasses

SCHEDULE, SHAPE = DiscreteSchedule.linear(), (1, 3, 4)


def masses(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    return PointMasses(torch.randn(count, *SHAPE, generator=g, dtype=torch.float64), SCHEDULE)


def noisy(prior, t, seed=1):
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
    return SCHEDULE.add_noise(prior.images[:1].reshape(1, *SHAPE), t, noise)


@pytest.mark.parametrize("t", [200, 500, 900])
def test_it_is_the_mixture_of_tiny_gaussians(t):
    prior = masses(5)
    oracle = GaussianMixture(
        prior.images, 1e-12 * torch.eye(12).double().expand(5, -1, -1), SCHEDULE
    )
    x_t = noisy(prior, t)
    torch.testing.assert_close(prior.denoiser()(x_t, t), oracle.mean(x_t, t), rtol=1e-8, atol=1e-9)
    J = prior.jacobian(x_t, t)[0]
    torch.testing.assert_close(J, oracle.jacobian(x_t, t)[0], rtol=1e-6, atol=1e-7)
    products = torch.from_numpy(JacobianOperator(prior.denoiser(), x_t, t).dense())
    torch.testing.assert_close(products, J, rtol=1e-9, atol=1e-12)
    assert torch.linalg.matrix_rank(J, rtol=1e-9) < 5


def test_two_images_have_the_eigenvalue_of_their_distance():
    prior, t = masses(2), 700
    x_t = noisy(prior, t)
    alpha, sigma = SCHEDULE(t)
    w = prior.weights(x_t, t)[0, 0]
    distance = (prior.images[0] - prior.images[1]).norm()
    expected = alpha / sigma**2 * w * (1 - w) * distance**2
    values = torch.linalg.eigvalsh(prior.jacobian(x_t, t)[0])
    torch.testing.assert_close(values[-1], expected.double())
    assert values[:-1].abs().max() < 1e-12


def test_at_little_noise_it_returns_the_image_and_j_is_zero():
    prior = masses(5)
    x_t = noisy(prior, 20)
    torch.testing.assert_close(prior.denoiser()(x_t, 20).flatten(1), prior.images[:1])
    assert prior.jacobian(x_t, 20).abs().max() < 1e-6

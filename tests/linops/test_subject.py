"""What an audit measures with: the network's own part of a product, and relative sizes."""

import numpy as np
import pytest
import torch

from jacobian_lab import DiscreteSchedule, JacobianOperator
from jacobian_lab.linops.subject import TINY, Subject, apart, length, ratio

from conftest import PREDICTIONS, SHAPE, make_mixture


def subject(prediction, products="exact"):
    denoiser = make_mixture(DiscreteSchedule.linear()).denoiser(prediction)
    x_t = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Subject(JacobianOperator(denoiser, x_t, 300, products=products))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_left_of_a_product_is_the_networks_derivative(prediction):
    s = subject(prediction)
    v = np.random.default_rng(0).standard_normal((2, s.n))
    found = s.of_network(np.stack([s.J @ row for row in v]), v)
    for image, derivative in zip(s.tensor(v), found, strict=True):
        step = 1e-5 * image[None]
        expected = (s.output(s.x + step) - s.output(s.x - step)) / 2e-5
        assert apart(derivative[None], expected) < 1e-6
    assert (s.cancellation(s.J @ v[0], v[0]) == 0) == (prediction == "sample")


def test_differences_loosen_the_limits_by_what_their_check_tells():
    exact, central = subject("v"), subject("v", "central")
    assert exact.loose == 0
    assert central.loose == 10 * central.J.product_error > 0


def test_relative_sizes_know_zero():
    assert ratio(np.zeros(3), np.zeros(3)) == 0
    assert ratio(np.ones(3), np.zeros(3)) > 1e299
    assert length(np.array([3.0, 4.0])) == 5
    assert length(np.zeros(2)) == TINY
    assert apart(torch.tensor([1.0, 1.1]), torch.tensor([1.0, 1.0])) == pytest.approx(
        0.1 / 2**0.5, rel=1e-6
    )

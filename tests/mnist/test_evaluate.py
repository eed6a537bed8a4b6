"""Scores of a denoiser, against an oracle whose scores are known."""

import numpy as np
import pytest
import torch

from mnist.classifier import Classifier
from mnist.evaluate import (
    Features,
    ddim_samples,
    distances,
    health,
    health_by_products,
    noisy_digit,
    squared_errors,
)

import networks
from conftest import SCHEDULES, SHAPE, make_gaussian, relative

T = 400


@pytest.fixture
def oracle():
    return make_gaussian(SCHEDULES["linear"][0])


def test_squared_errors_are_those_of_the_posterior_mean(oracle):
    """E |x0 - D|^2 is the trace of the posterior covariance, sigma^2 / alpha tr J."""
    g = torch.Generator().manual_seed(0)
    images = oracle.sample(4000, g)
    errors = squared_errors(oracle.denoiser(), images, T, seed=0)
    alpha, sigma = (float(c) for c in oracle.schedule(T))
    J = oracle.jacobian(images[:1], T)[0]  # the same at every x_t
    expected = sigma**2 / alpha * float(J.trace()) / 12
    assert float(errors.mean()) == pytest.approx(expected, rel=0.06)


def test_squared_errors_do_not_depend_on_the_batch_size(oracle):
    images = oracle.sample(10, torch.Generator().manual_seed(0))
    whole, parts = (
        squared_errors(oracle.denoiser(), images, T, 3, batch_size) for batch_size in (250, 3)
    )
    assert relative(parts, whole) < 1e-12
    assert relative(squared_errors(oracle.denoiser(), images, T, 4), whole) > 1e-3


def test_the_seeds_fix_the_noise_at_every_time(oracle):
    image = torch.zeros(SHAPE, dtype=torch.float64)
    one, other = (noisy_digit(oracle.denoiser(), image, t, 1, 2) for t in (100, 700))
    ratio = oracle.schedule(700)[1] / oracle.schedule(100)[1]
    assert relative(other, float(ratio) * one) < 1e-12
    assert relative(noisy_digit(oracle.denoiser(), image, 100, 1, 3), one) > 0.1


def test_ddim_samples_belong_to_their_seeds():
    denoiser = networks.denoiser(dtype=torch.float32)
    together = ddim_samples(denoiser, [3, 5], 10)
    assert together.shape == (2, *networks.SHAPE)
    assert together.abs().max() <= 1
    assert relative(ddim_samples(denoiser, [5], 10)[0], together[1]) < 1e-4


def test_health_is_that_of_the_dense_jacobian():
    denoiser = networks.denoiser()
    x_t = torch.randn(networks.SHAPE, dtype=torch.float64)
    found, J = health(denoiser, x_t, 300), networks.truth(denoiser, x_t[None], 300).numpy()
    values = np.linalg.eigvalsh((J + J.T) / 2)
    assert found.trace == pytest.approx(np.trace(J))
    assert found.asymmetry == pytest.approx(np.linalg.norm(J - J.T) / np.linalg.norm(J + J.T))
    assert (found.smallest, found.largest) == pytest.approx((values[0], values[-1]))


def test_health_by_products_states_how_far_it_may_be_off(oracle):
    x_t = oracle.sample(1, torch.Generator().manual_seed(0))
    dense, found = (of(oracle.denoiser(), x_t, T) for of in (health, health_by_products))
    assert abs(found.trace - dense.trace) <= 4 * found.trace_error + 1e-10 * dense.trace
    assert found.asymmetry == pytest.approx(dense.asymmetry, abs=4 * found.asymmetry_error + 1e-10)
    assert found.largest == pytest.approx(dense.largest, rel=1e-3)
    assert found.smallest == pytest.approx(dense.smallest, abs=1e-3 * dense.largest)


def test_a_posterior_mean_is_healthy(oracle):
    found = health(oracle.denoiser(), oracle.sample(1, torch.Generator().manual_seed(0)), T)
    assert found.asymmetry < 1e-12
    assert found.smallest > -1e-12


def test_distances_are_zero_between_equal_sets_and_grow_with_the_difference():
    torch.manual_seed(0)
    classifier = Classifier(8).eval()
    images = torch.rand(60, 1, 32, 32) * 2 - 1
    others = images, (images + 0.05).clamp(-1, 1), (images + 0.8).clamp(-1, 1)
    same, near, far = (distances(classifier, images, other) for other in others)
    assert abs(same["frechet"]) < 1e-4 * far["frechet"]
    assert near["frechet"] < 0.5 * far["frechet"]
    assert near["kernel"] < far["kernel"]
    assert far["kernel_deviation"] >= 0
    # subsets that are the whole set have none but rounding
    assert near["kernel_deviation"] > 1e-5


def test_distances_leave_the_global_generator_alone():
    images, classifier = torch.rand(2, 12, 1, 32, 32), Classifier(8).eval()
    state = torch.get_rng_state()
    distances(classifier, *images)
    assert torch.equal(torch.get_rng_state(), state)


def test_features_are_the_classifier_s():
    classifier = Classifier(8).eval()
    images = torch.randn(2, 1, 32, 32)
    features = Features(classifier)
    assert torch.equal(features(images), classifier.features(images).detach())
    assert features.num_features == 32

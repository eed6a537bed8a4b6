"""A small perceptron learns what the closed form of the mixture says."""

import pytest
import torch

from mnist.recipe import DenoiserRecipe
from studies.claims.perceptron import learned, noisy_samples, perceptron_denoiser, ring
from studies.claims.small_models import with_weights


def recipe(updates):
    return DenoiserRecipe(
        updates=updates,
        batch_size=64,
        learning_rate=2e-3,
        warmup=20,
        ema_decay=0.95,
        precision="float32",
    )


@pytest.fixture(scope="module")
def trained_one():
    oracle = ring()
    return oracle, with_weights(perceptron_denoiser(oracle, 0), learned(oracle, recipe(600)))


@pytest.mark.parametrize("t", [300, 450])
def test_it_comes_near_the_posterior_mean(trained_one, t):
    oracle, denoiser = trained_one
    x_t = noisy_samples(oracle, t, 400, seed=1)
    truth = oracle.mean(x_t, t)
    error = (denoiser(x_t.float(), t) - truth).square().mean()
    assert error < 0.1 * truth.square().mean()
    untrained = (perceptron_denoiser(oracle, 0)(x_t.float(), t) - truth).square().mean()
    assert error < 0.1 * untrained


def test_the_ring_has_its_means_and_noisy_samples_their_moments():
    oracle = ring(8, 2.0, 0.1)
    torch.testing.assert_close(oracle.means.norm(dim=1), torch.full((8,), 2.0).double())
    alpha, sigma = oracle.schedule(500)
    x_t = noisy_samples(oracle, 500, 20_000, seed=0).flatten(1)
    expected = alpha**2 * (4 / 2 + 0.01) + sigma**2
    torch.testing.assert_close(x_t.var(0), expected.expand(2).to(x_t), rtol=0.05, atol=0)

r"""A small perceptron that learns to denoise the samples of a Gaussian mixture, whose denoiser and
Jacobian are known in closed form: a network beside its truth, trained in seconds.

    oracle = GaussianMixture(...)
    weights = learned(oracle, small_recipe(config, updates=1000))
    denoiser = with_weights(perceptron_denoiser(oracle, seed), weights)
    oracle.jacobian(x_t, t)     # what J of the denoiser would be if it had learned all
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jacobian_lab import BatchJacobian, Denoiser, DiscreteSchedule, GaussianMixture
from mnist.recipe import DenoiserRecipe
from mnist.tasks import Loss, denoising_loss
from mnist.unet import TimeEmbedding
from studies.claims.small_models import trained
from studies.frame.dataset import Arrays

POOL = 100_000
"""Samples of the mixture that a network is trained on: so many that none counts."""


def ring(count: int = 8, radius: float = 1.0, deviation: float = 0.1) -> GaussianMixture:
    """Return equal Gaussians on a circle in the plane, on the linear DDPM schedule, in float64."""
    angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    means = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
    covariances = deviation**2 * torch.eye(2, dtype=torch.float64).expand(count, 2, 2)
    return GaussianMixture(means, covariances, DiscreteSchedule.linear())


class Perceptron(nn.Module):
    """Three layers of SiLU with the time's embedding added to each: `(x, t) -> raw output`.

    Parameters
    ----------
    size : int
        Entries n of a sample.
    width : int
        Features of a layer; even.
    """

    def __init__(self, size: int, width: int = 64) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, width, 1.0)
        self.entry = nn.Linear(size, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.exit = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output, of the shape of `x`, for times `t` of shape (B,)."""
        e = self.time(t)
        h = nn.functional.silu(self.entry(x.flatten(1)) + e)
        for layer in self.layers:
            h = h + nn.functional.silu(layer(h) + e)
        return torch.as_tensor(self.exit(h)).reshape(x.shape)


def perceptron_denoiser(oracle: GaussianMixture, seed: int) -> Denoiser:
    """Return a denoiser with the initial weights of a seed, on the oracle's schedule."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Perceptron(oracle.means.shape[1])
    return Denoiser(network, oracle.schedule, "v", oracle.shape)


def learned(
    oracle: GaussianMixture,
    recipe: DenoiserRecipe,
    loss_of: Callable[[Denoiser], Loss] = denoising_loss,
) -> Arrays:
    """Return the weights of a perceptron trained on samples of the oracle, name -> array."""
    samples = oracle.sample(POOL, torch.Generator().manual_seed(recipe.seed)).float()
    build = partial(_of_recipe, oracle)
    return trained(recipe, samples, build, loss_of)


def _of_recipe(oracle: GaussianMixture, recipe: DenoiserRecipe) -> Denoiser:
    return perceptron_denoiser(oracle, recipe.seed)


def noisy_samples(oracle: GaussianMixture, t: int | float, count: int, seed: int) -> Tensor:
    """Return noisy samples of the oracle at time t, (count, *shape), in its precision."""
    generator = torch.Generator().manual_seed(seed)
    clean = oracle.sample(count, generator)
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return oracle.schedule.add_noise(clean, t, noise)


def dense_jacobians(denoiser: Denoiser, x_t: Tensor, t: int | float) -> NDArray[np.float64]:
    """Return J at each of a batch of samples of few entries n, (B, n, n), by n exact products."""
    J = BatchJacobian(denoiser, x_t, t, products="exact")
    n = x_t[0].numel()
    basis = torch.eye(n, dtype=x_t.dtype).reshape(n, 1, *x_t.shape[1:])
    columns = [J.jvp(e.expand_as(x_t).contiguous()).flatten(1) for e in basis]
    return np.asarray(torch.stack(columns, dim=2).double().numpy())

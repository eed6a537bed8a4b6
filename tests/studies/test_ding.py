"""DInG: its steps are the authors'."""

from itertools import pairwise

import pytest
import torch

from jacobian_lab import InputError
from studies.contest.methods.ding import DING, ding
from studies.contest.methods.seeds import SeededNoise, start_noise

from peer_checks import (
    MANY,
    SEEDS,
    check_batch,
    check_meets,
    check_price,
    check_settings,
    masked,
    oracle,
    shrunk,
)


def test_price_settings_and_batch():
    check_settings(DING)
    check_price(DING, masked(), once=-1)
    check_batch(DING, masked(0.1))


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    check_meets(DING, masked(count=MANY), schedule, 20, 0.3)
    check_meets(DING, masked(0.1, MANY), schedule, 20, 0.6)


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_its_steps_are_the_authors(sigma):
    """Their eta for a flow, "square", of the deviation of DDPM's bridge."""
    problem, denoiser, steps = masked(sigma), oracle("flow"), 5
    found = ding(denoiser, problem, SEEDS, steps)
    mask, y, level = problem.mask.double(), problem.y, max(sigma, 0.01)
    x, times = start_noise(denoiser, SEEDS), denoiser.schedule.times(steps)
    with SeededNoise(SEEDS):
        for t, s in pairwise(times):
            a = (1 - t) / (1 - s)
            eta = (s**2 / (1 - (a * s / t) ** 2)) ** 0.5
            variance = eta**2 * s**2 * (1 - (a * s / t) ** 2)
            share = ((s / t) ** 2 - variance / t**2) ** 0.5
            mean = share * x + ((1 - s) - (1 - t) * share) * denoiser(x, t)
            z = mean + variance**0.5 * torch.randn_like(x)
            noise = z + (1 - s) * (z - denoiser(z, s)) / s
            seen, spread = (1 - s) * y + s * mask * noise, (1 - s) * level
            covariance = 1 / (mask / spread**2 + 1 / variance)
            x = covariance * (mask * seen / spread**2 + mean / variance)
            x = x + covariance.sqrt() * torch.randn_like(x)
    assert torch.allclose(found, denoiser(x, times[-1]), atol=1e-9)


def test_it_knows_masks_only():
    with pytest.raises(InputError, match="masks only: got Separable"):
        ding(oracle(), shrunk(), [0], 2)

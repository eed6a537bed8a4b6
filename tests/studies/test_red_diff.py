"""RED-diff: its steps are Adam's on the authors' loss."""

import numpy as np
import pytest
import torch

from jacobian_lab.constraints.decoded import Decoded
from studies.contest.methods.noise_levels import even_steps
from studies.contest.methods.red_diff import RED_DIFF, red_diff
from studies.contest.methods.seeds import SeededNoise

from peer_checks import (
    MANY,
    SEEDS,
    SHAPE,
    check_contract,
    check_meets,
    masked,
    matrix,
    oracle,
    shrunk,
)


def test_price_settings_and_batch():
    check_contract(RED_DIFF)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(RED_DIFF, problem, schedule, 50, 0.3)


def test_its_steps_are_adams_on_the_authors_loss():
    problem, denoiser, steps = shrunk(), oracle(), 4
    rate, weight = 0.1, 0.25
    found = red_diff(denoiser, problem, SEEDS, steps, rate, weight).flatten(1)
    A, y = matrix(problem), problem.y.flatten(1)
    mu = torch.tensor(np.linalg.pinv(A.numpy()) @ y.numpy().T).T
    first, second = 0, 0
    with SeededNoise(SEEDS):
        for k, (now, _) in enumerate(even_steps(denoiser, steps), 1):
            noise = torch.randn_like(mu.reshape(3, *SHAPE))
            x = now.alpha * mu.reshape(3, *SHAPE) + now.sigma * noise
            predicted = denoiser.noise(x, denoiser(x, now.time), now.time)
            leaf = mu.clone().requires_grad_()
            fit = (y - leaf @ A.T).square().mean(1).sum() / 2
            apart = ((predicted - noise).flatten(1) * leaf).mean(1).sum()
            (fit + weight * now.sigma / now.alpha * apart).backward()
            first = 0.9 * first + 0.1 * leaf.grad
            second = 0.99 * second + 0.01 * leaf.grad**2
            step = first / (1 - 0.9**k) / ((second / (1 - 0.99**k)).sqrt() + 1e-8)
            mu = mu - rate * step
    assert torch.allclose(found, mu, atol=1e-9)


def test_latents_are_fitted_through_their_decoder():
    inner = shrunk()
    latents = Decoded(inner, lambda x: x / 2, lambda z: 2 * z, "secant")
    found = red_diff(oracle(), latents, SEEDS, 60)
    assert inner.residual(2 * found).max() < 0.1

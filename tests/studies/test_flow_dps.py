"""FlowDPS: its steps are the authors'."""

from itertools import pairwise

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.constraints.losses import Loss
from studies.contest.methods.flow_dps import FLOW_DPS, flow_dps
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
    check_settings(FLOW_DPS)
    check_price(FLOW_DPS, shrunk())
    check_batch(FLOW_DPS, masked(0.1), rate=0.1)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(FLOW_DPS, problem, schedule, 50, 0.7, rate=0.3)


@pytest.mark.parametrize(("problem", "back"), [(masked(), "adjoint"), (shrunk(), "pseudo_inverse")])
def test_its_steps_are_the_authors(problem, back):
    denoiser, steps, rate = oracle("flow"), 5, 0.2
    found = flow_dps(denoiser, problem, SEEDS, steps, rate, 4.0, 3)
    pulled = getattr(problem, back)
    times = [4 * s / (1 + 3 * s) for s in (1 - k / steps for k in range(steps))] + [0.0]
    z = start_noise(denoiser, SEEDS)
    with SeededNoise(SEEDS):
        for sigma, after in pairwise(times):
            velocity = (z - denoiser(z, sigma)) / sigma
            clean, noise = z - sigma * velocity, z + (1 - sigma) * velocity
            fitted = clean
            for _ in range(3):
                leaf = fitted.clone().requires_grad_()
                off = pulled(problem.y) - pulled(problem.forward(leaf))
                (slope,) = torch.autograd.grad(off.flatten(1).norm(dim=1).sum(), leaf)
                fitted = fitted - rate * slope
            mixed = (1 - sigma) * clean + sigma * fitted
            noise = after**0.5 * noise + (1 - after) ** 0.5 * torch.randn_like(z)
            z = mixed + after * (noise - mixed)
    assert torch.allclose(found, z, atol=1e-10)


def test_it_needs_linear_observations():
    with pytest.raises(InputError, match=r"FlowDPS needs linear .* got Loss"):
        flow_dps(oracle(), Loss(lambda x: x.flatten(1).square().sum(1)), [0], 2)

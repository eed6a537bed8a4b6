"""FlowChef: its steps are the authors'."""

import pytest
import torch

from studies.contest.methods.flow_chef import FLOW_CHEF, flow_chef
from studies.contest.methods.seeds import start_noise

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

RATE = 500 * 12 / 1024  # what the authors' is for 12 numbers


def test_price_settings_and_batch():
    check_settings(FLOW_CHEF)
    check_price(FLOW_CHEF, shrunk())
    check_batch(FLOW_CHEF, masked(0.1), rate=RATE)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(FLOW_CHEF, problem, schedule, 50, 0.3, rate=RATE)


@pytest.mark.parametrize("problem", [masked(), shrunk()])
def test_its_steps_are_the_authors(problem):
    denoiser, steps = oracle("flow"), 6
    found = flow_chef(denoiser, problem, SEEDS, steps, RATE)
    x = start_noise(denoiser, SEEDS)
    for k in range(steps):
        t = 1 - k / steps
        velocity = (x - denoiser(x, t)) / t
        if k < steps - 1:
            leaf = x.clone().requires_grad_()
            off = problem.forward(leaf - t * velocity) - problem.y
            loss = off.square().flatten(1).mean(1).sum()
            x = x - RATE * torch.autograd.grad(loss, leaf)[0]
        x = x - velocity / steps
    assert torch.allclose(found, x, atol=1e-10)

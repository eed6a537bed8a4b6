"""PnP-Flow: its steps are the authors', in their time."""

import pytest
import torch

from studies.contest.methods.pnp_flow import PNP_FLOW, pnp_flow
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
    check_contract(PNP_FLOW)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    check_meets(PNP_FLOW, masked(count=MANY), schedule, 30, 0.6)
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(PNP_FLOW, problem, schedule, 30, 0.2, power=0.0)


def test_its_steps_are_the_authors():
    """Whose time runs from 0, noise, to 1, and whose noise level, 0.05, cancels."""
    problem, denoiser, steps, rate, power, sigma = shrunk(), oracle("flow"), 5, 0.9, 0.5, 0.05
    found = pnp_flow(denoiser, problem, SEEDS, steps, rate, power, 2)
    A, y = matrix(problem), problem.y.flatten(1)
    x = (torch.ones_like(y) @ A).reshape(3, *SHAPE)
    with SeededNoise(SEEDS):
        for k in range(steps):
            t = k / steps
            slope = ((x.flatten(1) @ A.T - y) @ A / sigma**2).reshape(x.shape)
            z = x - rate * sigma**2 * (1 - t) ** power * slope
            x = torch.zeros_like(z)
            for _ in range(2):
                noisy = t * z + (1 - t) * torch.randn_like(z)
                velocity = (denoiser(noisy, 1 - t) - noisy) / (1 - t)
                x = x + (noisy + (1 - t) * velocity) / 2
    assert torch.allclose(found, x, atol=1e-10)


def test_a_ddpm_denoiser_is_run_as_the_flow_that_it_is():
    """Up to the nearest times of its table: in a finer one, nearer."""
    flow, ddpm = (pnp_flow(oracle(name), shrunk(), SEEDS, 6) for name in ("flow", "ddpm"))
    assert (flow - ddpm).norm() < 0.02 * flow.norm()

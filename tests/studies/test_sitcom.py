"""SITCOM: its steps of Adam, and where they stop."""

import numpy as np
import pytest
import torch

from studies.contest.methods.noise_levels import level
from studies.contest.methods.sitcom import SITCOM, fitted

from peer_checks import (
    MANY,
    SHAPE,
    check_contract,
    check_meets,
    matrix,
    oracle,
    shrunk,
)


def test_price_settings_and_batch():
    check_contract(SITCOM)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    check_meets(SITCOM, shrunk(count=MANY), schedule, 8, 0.3, rate=0.1, inner=10)


def test_its_steps_are_adams_on_the_papers_loss():
    problem, denoiser = shrunk(), oracle()
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rate, inner, weight, now = 0.05, 5, 0.3, level(oracle(), 300)
    found = fitted(denoiser, problem, x, now, rate, inner, weight).flatten(1).numpy()
    A, y = matrix(problem).numpy(), problem.y.flatten(1).numpy()
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    offset = denoiser(zero, 300).flatten().numpy()
    units = torch.eye(12, dtype=torch.float64).reshape(12, *SHAPE)
    K = denoiser(units, 300).flatten(1).numpy() - offset  # rows: D is affine
    v, first, second = x.flatten(1).numpy(), 0, 0
    start = v
    for k in range(1, inner + 1):
        D = v @ K + offset
        inside = np.abs(D) <= 1
        pulled = 2 * (np.clip(D, -1, 1) @ A.T - y) @ A * inside
        gradient = pulled @ K.T + 2 * weight * (v - start)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        step = first / (1 - 0.9**k) / (np.sqrt(second / (1 - 0.999**k)) + 1e-8)
        v = v - rate * step
    np.testing.assert_allclose(found, np.clip(v @ K + offset, -1, 1), rtol=1e-8)

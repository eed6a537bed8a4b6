"""CLAMP: its correction solves the paper's system."""

import numpy as np
import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.constraints.losses import Loss
from studies.contest.methods.clamp import CLAMP, clamp_langevin, newton_correction
from studies.contest.methods.noise_levels import level

from peer_checks import (
    MANY,
    SHAPE,
    check_contract,
    check_meets,
    masked,
    matrix,
    oracle,
    shrunk,
)


class Bent:
    """Observations A x + (A x)^2 / 4, and their matrix at a point."""

    def __init__(self, problem):
        self.inner, self.y = problem, problem.y

    def forward(self, x):
        seen = self.inner.forward(x)
        return seen + seen.square() / 4

    def missing(self, x):
        return self.y - self.forward(x)


def test_price_settings_and_batch():
    check_contract(CLAMP)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(CLAMP, problem, schedule, 20, 0.5)


@pytest.mark.parametrize("bent", [False, True])
def test_its_correction_solves_the_system(bent):
    problem, denoiser, now = shrunk(), oracle(), level(oracle(), 400)
    A, y = matrix(problem).numpy(), problem.y.flatten(1).numpy()
    g = torch.Generator().manual_seed(0)
    x = now.ratio * torch.randn(3, *SHAPE, generator=g, dtype=torch.float64)
    damping, tau, s = 2.0, 0.1, 0.8 * now.ratio
    given = Bent(problem) if bent else problem
    D, found = newton_correction(denoiser, given, x, now, s, damping, 12, tau)
    units = torch.eye(12, dtype=torch.float64).reshape(12, *SHAPE)
    offset = now.mean(denoiser, torch.zeros_like(units), now.alpha)
    J = (now.mean(denoiser, units, now.alpha) - offset).flatten(1).T.numpy()
    for i in range(3):
        clean, point = D[i].flatten().numpy(), x[i].flatten().numpy()
        seen = A @ clean
        At, forward = (A * (1 + seen / 2)[:, None], seen + seen**2 / 4) if bent else (A, seen)
        c = J.T @ At.T @ (forward - y[i])
        off = point - clean
        direction = off / np.linalg.norm(off)
        kappa = np.linalg.norm(off) / np.linalg.norm(c) / s**2
        system = J.T @ At.T @ At / tau**2 + kappa * (
            damping * np.eye(12) + np.outer(direction, direction)
        )
        np.testing.assert_allclose(
            found[i].flatten(), np.linalg.solve(system, -c / tau**2), rtol=1e-6, atol=1e-9
        )


def test_it_needs_observations():
    with pytest.raises(InputError, match="of observations: got Loss"):
        clamp_langevin(oracle(), Loss(lambda x: x.flatten(1).square().sum(1)), [0], 2)

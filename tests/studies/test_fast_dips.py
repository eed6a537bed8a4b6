"""FAST-DIPS: steps of the best length, onto the ball around y."""

import numpy as np
import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.constraints.losses import Loss
from studies.contest.methods.fast_dips import FAST_DIPS, admm_steps, descended, fast_dips

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

G = torch.Generator().manual_seed(0)
X, X0 = (torch.randn(3, *SHAPE, generator=G, dtype=torch.float64) for _ in range(2))


class NotKnownLinear:
    """Linear observations that hide it."""

    def __init__(self, problem):
        self.y, self.forward, self.missing = problem.y, problem.forward, problem.missing


def test_price_settings_and_batch():
    check_contract(FAST_DIPS)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(FAST_DIPS, problem, schedule, 20, 0.5)


def test_a_step_has_the_best_length():
    problem, r2, rho = shrunk(), 0.5, 7.0
    A, b = matrix(problem).numpy(), problem.y + 0.2
    x, x0, c = X.flatten(1).numpy(), X0.flatten(1).numpy(), b.flatten(1).numpy()
    found = descended(problem, X, X0, b, r2, rho).flatten(1).numpy()
    for i in range(3):
        g = (x[i] - x0[i]) / r2 + rho * A.T @ (A @ x[i] - c[i])
        hessian = np.eye(12) / r2 + rho * A.T @ A
        length = g @ g / (g @ hessian @ g)  # of steepest descent on a quadratic
        np.testing.assert_allclose(found[i], x[i] - min(length, 1) * g, rtol=1e-9)


def test_admm_is_the_authors():
    problem, r2, rho, epsilon = shrunk(), 0.4, 200.0, 0.05
    A, y = matrix(problem).numpy(), problem.y.flatten(1).numpy()
    found = admm_steps(problem, X0, r2, rho, 3, 2, epsilon).flatten(1).numpy()
    for i in range(3):
        x = x0 = X0.flatten(1).numpy()[i]
        u, v = 0, A @ x0
        for _ in range(3):
            b = v - u
            for _ in range(2):
                g = (x - x0) / r2 + rho * A.T @ (A @ x - b)
                Ag = A @ g
                above = (x - x0) @ g / r2 + rho * (A @ x - b) @ Ag
                x = x - above / (g @ g / r2 + rho * Ag @ Ag + 1e-12) * g
            w = A @ x + u
            off = w - y[i]
            length = np.linalg.norm(off)
            v = w if length <= epsilon else y[i] + epsilon / length * off
            u = u + A @ x - v
        np.testing.assert_allclose(found[i], x, rtol=1e-8)


def test_many_steps_end_at_the_nearest_image_in_the_ball():
    problem, epsilon = masked(), 0.3
    found = admm_steps(problem, X0, 1.0, 5.0, 300, 3, epsilon)
    off = problem.y - problem.forward(X0)
    length = off.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    nearest = X0 + (1 - epsilon / length).clamp(min=0) * off
    assert (found - nearest).abs().max() < 1e-6


def test_observations_that_are_not_known_to_be_linear_are_differentiated():
    problem = shrunk()
    straight = admm_steps(problem, X0, 0.4, 20.0, 3, 2, 0.05)
    around = admm_steps(NotKnownLinear(problem), X0, 0.4, 20.0, 3, 2, 0.05)
    assert torch.allclose(straight, around, atol=1e-8)
    with pytest.raises(InputError, match="needs observations, got Loss"):
        fast_dips(oracle(), Loss(lambda x: x.flatten(1).square().sum(1)), [0], 2)

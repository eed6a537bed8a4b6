"""DAPS: its Langevin steps have the law they should, and its samples the mean of the posterior."""

import numpy as np
import pytest
import torch

from jacobian_lab.constraints.decoded import Decoded
from studies.contest.methods.daps import DAPS, LATENT_DAPS, daps, langevin

from peer_checks import (
    MANY,
    SHAPE,
    check_batch,
    check_meets,
    check_price,
    check_settings,
    masked,
    matrix,
    oracle,
    prior,
    shrunk,
)

FEW = {"inner": 20}


def test_price_settings_and_batch():
    for peer in (DAPS, LATENT_DAPS):
        check_settings(peer)
        check_price(peer, shrunk(), **FEW)
        check_batch(peer, masked(0.1), **FEW)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(DAPS, problem, schedule, 10, 0.2)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_langevins_steps_are_the_papers(momentum):
    problem, g = shrunk(0.1), np.random.default_rng(0)
    A, y = matrix(problem).numpy(), problem.y.flatten(1).numpy()
    hat = g.normal(size=(3, 12))
    r, tau, eta, steps = 0.7, 0.3, 0.01, 4
    torch.manual_seed(3)
    found = langevin(problem, torch.tensor(hat).reshape(3, *SHAPE), r, tau, eta, steps, momentum)
    torch.manual_seed(3)
    draw = lambda: torch.randn_like(torch.tensor(hat).reshape(3, *SHAPE)).flatten(1).numpy()  # noqa: E731
    z, v = hat, draw() if momentum else np.zeros_like(hat)
    for _ in range(steps):
        score = (hat - z) / r**2 + (y - z @ A.T) @ A / tau**2
        if momentum:
            v = momentum * v + np.sqrt(eta) * score + np.sqrt(2 * (1 - momentum)) * draw()
            z = z + np.sqrt(eta) * v
        else:
            z = z + eta * score + np.sqrt(2 * eta) * draw()
    np.testing.assert_allclose(found.flatten(1).numpy(), z, rtol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_langevins_law_is_the_product_of_both_gaussians(momentum):
    problem = shrunk().select(slice(0, 1))
    r, tau, eta, count = 0.6, 0.5, 0.01, 3000
    A, hat = matrix(problem), torch.full((count, *SHAPE), 0.3, dtype=torch.float64)
    torch.manual_seed(0)
    found = langevin(problem, hat, r, tau, eta, 300, momentum).flatten(1)
    precision = torch.eye(12) / r**2 + A.T @ A / tau**2
    mean = torch.linalg.solve(
        precision, hat[0].flatten() / r**2 + A.T @ problem.y.flatten() / tau**2
    )
    assert (found.mean(0) - mean).abs().max() < 0.05
    wanted = torch.linalg.inv(precision)
    assert (found.T.cov() - wanted).norm() < 0.1 * wanted.norm()


def test_samples_have_the_posteriors_mean():
    problem, count = shrunk(0.2).select(slice(0, 1)), 400
    posterior = prior().conditioned(matrix(problem), problem.y.flatten(), 0.2)
    found = daps(oracle(), problem, range(count), 20, rate=2e-2, ode=3, tau=0.2, inner=40)
    off, start = (
        mean - posterior.means[0] for mean in (found.flatten(1).mean(0), prior().means[0])
    )
    assert off.norm() < 0.5 * start.norm()


def test_latents_are_fitted_through_their_decoder():
    inner = masked(0.1)
    problem = Decoded(inner, lambda x: x / 2, lambda z: 2 * z, "secant")
    found = daps(oracle(), problem, [0, 1, 2], 10, rate=2e-5)
    assert inner.residual(2 * found).max() < 0.05

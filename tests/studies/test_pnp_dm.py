"""PnP-DM: both draws have their law, and so has their alternation."""

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.constraints.losses import Loss
from studies.contest.methods.pnp_dm import PNP_DM, likelihood_draw, pnp_dm, prior_draw

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

COUNT = 4000


def moments(x):
    x = x.flatten(1)
    return x.mean(0), x.T.cov()


def test_price_settings_and_batch():
    check_settings(PNP_DM)
    check_price(PNP_DM, shrunk())
    check_batch(PNP_DM, masked(0.1), inner=3)


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_it_meets_observations(schedule):
    for problem in (masked(count=MANY), shrunk(0.05, MANY)):
        check_meets(PNP_DM, problem, schedule, 30, 0.6, last=0.1, inner=3, decay=0.8)


@pytest.mark.parametrize("problem", [masked().select(slice(0, 1)), shrunk().select(slice(0, 1))])
def test_the_likelihoods_draw_has_its_law(problem):
    sigma, rho = 0.2, 0.5
    x = torch.full((COUNT, *SHAPE), 0.4, dtype=torch.float64)
    torch.manual_seed(0)
    mean, covariance = moments(likelihood_draw(problem, x, sigma, rho))
    A, y = matrix(problem), problem.y.flatten()
    wanted = torch.linalg.inv(A.T @ A / sigma**2 + torch.eye(12) / rho**2)
    centre = wanted @ (A.T @ y / sigma**2 + x[0].flatten() / rho**2)
    assert (mean - centre).abs().max() < 0.03
    assert (covariance - wanted).norm() < 0.06 * wanted.norm()


@pytest.mark.parametrize("schedule", ["ddpm", "flow"])
def test_the_priors_draw_has_its_law(schedule):
    rho, gaussian = 0.4, prior(schedule)
    z = torch.full((COUNT, *SHAPE), 0.4, dtype=torch.float64)
    torch.manual_seed(0)
    mean, covariance = moments(prior_draw(oracle(schedule), z, rho, 150))
    S = gaussian.conditioned(torch.eye(12, dtype=torch.float64), z[0].flatten(), rho)
    wanted = (S.eigenvectors[0] * S.eigenvalues[0]) @ S.eigenvectors[0].T
    assert (mean - S.means[0]).abs().max() < 0.03
    assert (covariance - wanted).norm() < 0.1 * wanted.norm()


def test_their_alternation_samples_the_posterior_of_a_wider_likelihood():
    """With rho fixed x has the posterior of y = A x + noise of covariance sigma^2 + rho^2 A A^T."""
    problem, sigma, rho = masked(0.2).select(slice(0, 1)), 0.2, 0.3
    torch.manual_seed(0)
    x = torch.zeros(1000, *SHAPE, dtype=torch.float64)
    for _ in range(10):
        x = prior_draw(oracle(), likelihood_draw(problem, x, sigma, rho), rho, 60)
    mean, covariance = moments(x)
    # A A^T = 1 on what is known
    known = matrix(problem)[problem.mask.flatten()]
    y = problem.y.flatten()[problem.mask.flatten()]
    posterior = prior().conditioned(known, y, (sigma**2 + rho**2) ** 0.5)
    wanted = (posterior.eigenvectors[0] * posterior.eigenvalues[0]) @ posterior.eigenvectors[0].T
    assert (mean - posterior.means[0]).norm() < 0.1 * wanted.trace().sqrt()
    assert (covariance - wanted).norm() < 0.2 * wanted.norm()


def test_it_needs_linear_observations():
    with pytest.raises(InputError, match=r"PnP-DM needs linear .* got Loss"):
        pnp_dm(oracle(), Loss(lambda x: x.flatten(1).square().sum(1)), [0], 2)

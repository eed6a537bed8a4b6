"""Random curves: what an observation tells of one, and how samples are compared with it."""

import numpy as np
import pytest
import scipy.stats
import torch

from jacobian_lab import DiscreteSchedule
from jacobian_lab.diffusion.oracle import GaussianMixture
from studies.sampling import (
    random_curves as curves,
)

from conftest import relative


@pytest.mark.parametrize("observation", curves.OBSERVATIONS)
def test_on_a_gaussian_the_matched_denoiser_is_the_posteriors(observation):
    problem = curves.make_problem("Gaussian", observation, 0)
    x_t = torch.randn(
        3, 1, 1, curves.N, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    for t in (50, 500, 900):
        assert relative(problem.matched()(x_t, t), problem.posterior.mean(x_t, t)) < 1e-6


def test_scores_are_near_zero_for_exact_samples_and_not_for_others():
    problem = curves.make_problem("mixture", "half", 0)
    g = torch.Generator().manual_seed(0)
    mean, covariance, spread, weights, half, most = curves.posterior_errors(
        problem, problem.posterior.sample(20_000, g).flatten(1)
    )
    assert max(mean, covariance, weights) < 0.03
    assert spread == pytest.approx(1, abs=0.02)
    # of 20,000 samples, against a bound of as many others
    assert half == pytest.approx(0.5, abs=4 * (0.25 * 2 / 20_000) ** 0.5)
    assert most == pytest.approx(0.9, abs=4 * (0.09 * 2 / 20_000) ** 0.5)
    # collapsed to a mode
    mean, covariance, spread, *_ = curves.posterior_errors(
        problem, problem.posterior.means[:1].expand(10, -1)
    )
    assert mean > 0.2
    assert covariance == pytest.approx(1)
    assert spread < 1e-12
    other = problem.posterior.means[:1] + 0.01 * torch.randn(
        50, curves.N, generator=g, dtype=torch.float64
    )
    expected = 1 - float(problem.posterior.log_weights[0].exp())
    assert curves.posterior_errors(problem, other)[3] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("observation", curves.OBSERVATIONS)
def test_the_regions_of_a_gaussian_are_ellipsoids(observation):
    """Their bounds are quantiles of chi-square, in the directions with 99 % of the variance."""
    posterior = curves.make_problem("Gaussian", observation, 0).posterior
    regions = curves.Regions(posterior)
    mean, C = curves.mixture_moments(posterior)
    U = regions.directions
    within = (U.T @ C @ U).trace() / C.trace()
    fewer = (U[:, :-1].T @ C @ U[:, :-1]).trace() / C.trace()
    assert fewer < 0.99 <= within
    root = torch.linalg.cholesky(U.T @ C @ U)
    g = torch.Generator().manual_seed(0)
    unit = torch.randn(200, U.shape[1], generator=g, dtype=torch.float64)
    unit = unit / unit.norm(dim=1, keepdim=True)
    for k, share in enumerate(curves.SHARES):
        reach = scipy.stats.chi2.ppf(share, U.shape[1]) ** 0.5
        for factor, expected in ((0.97, 1.0), (1.03, 0.0)):
            x = mean + factor * reach * unit @ root.T @ U.T
            assert regions.coverage(x)[k] == expected


def test_coverage_tells_collapsed_and_stray_samples_and_is_nan_of_diverged_ones():
    problem = curves.make_problem("mixture", "half", 0)
    x = problem.posterior.sample(500, torch.Generator().manual_seed(0)).flatten(1)
    mode = problem.posterior.means[problem.posterior.log_weights.argmax()]
    assert problem.regions.coverage(mode + 0.1 * (x - mode))[0] > 0.6
    assert problem.regions.coverage(x + 5) == [0, 0]
    x[3, 0] = torch.nan
    assert np.isnan(problem.regions.coverage(x)).all()


def test_the_moments_of_a_mixture_of_two_are_those_by_hand():
    means = torch.tensor([[1.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)
    covariances = torch.stack([torch.eye(2), torch.tensor([[2.0, 1.0], [1.0, 3.0]])]).double()
    weights = torch.tensor([0.25, 0.75])
    mixture = GaussianMixture(means, covariances, DiscreteSchedule.linear(), weights)
    mean, covariance = curves.mixture_moments(mixture)
    assert mean.tolist() == pytest.approx([-0.5, 1.5])
    # the mean covariance, and 0.25 * 0.75 of the square of the means' difference (2, -2)
    expected = torch.tensor([[1.75 + 0.75, 0.75 - 0.75], [0.75 - 0.75, 2.5 + 0.75]])
    assert torch.allclose(covariance, expected.double(), atol=1e-12)


@pytest.mark.parametrize("oracle", curves.ORACLES)
@pytest.mark.parametrize("observation", curves.OBSERVATIONS)
def test_the_constraint_sees_what_the_matrix_sees_of_the_same_curve(oracle, observation):
    problem = curves.make_problem(oracle, observation, 3)
    x = problem.prior.sample(5, torch.Generator().manual_seed(1))
    missing = problem.y - x.flatten(1) @ problem.A.T
    rms = missing.square().mean(1).sqrt()
    assert torch.allclose(problem.constraint.residual(x), rms, atol=1e-9)
    assert (problem.constraint.sigma > 0) == (observation == "noisy means")
    assert torch.equal(curves.make_problem(oracle, observation, 3).y, problem.y)
    assert not torch.equal(curves.make_problem(oracle, observation, 4).y, problem.y)
    exact = problem.posterior.sample(5, torch.Generator().manual_seed(2))
    assert (problem.constraint.residual(exact) < 3 * problem.constraint.sigma + 1e-5).all()


def test_each_step_of_a_noisy_observation_is_a_weighted_mean_of_points():
    A = curves.make_problem("Gaussian", "noisy means", 0).A
    assert A.shape == (4, curves.N)
    assert torch.allclose(A.sum(1), torch.ones(4, dtype=A.dtype))

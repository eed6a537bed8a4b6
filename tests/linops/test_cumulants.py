"""Moments of the posterior along a direction, against closed forms."""

import dataclasses

import numpy as np
import pytest
import torch

from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    GaussianMixture,
    InputError,
    posterior_moments,
)
from jacobian_lab.linops.cumulants import best, extrapolated, noise

from conftest import SCHEDULES, make_gaussian, make_mixture


def exact(oracle, x_t, t, v):
    """Mean and central moments of v^T x_0 given x_t: of a mixture of Gaussians on the line."""
    w, means, variances = (part[0].numpy() for part in oracle.posterior(x_t.flatten(1), t))
    along = np.array(
        [(U.T @ v) ** 2 @ s for U, s in zip(oracle.eigenvectors.numpy(), variances, strict=True)]
    )
    mean = w @ (means @ v)
    d = means @ v - mean
    third, fourth = d**3 + 3 * d * along, d**4 + 6 * d**2 * along + 3 * along**2
    return np.array([mean, w @ (d**2 + along), w @ third, w @ fourth])


def noisy(oracle, t, seed):
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, *oracle.shape, generator=g, dtype=torch.float64)
    return oracle.schedule.add_noise(oracle.sample(1, g), t, noise)


def numbers(found):
    return np.array([found.mean, found.variance, found.third, found.fourth])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_moments_of_a_mixture_lie_within_their_small_stated_errors(name, prediction):
    schedule, t = SCHEDULES[name]
    for seed in range(5):
        oracle = make_mixture(schedule, seed)
        x_t, v = noisy(oracle, t, seed), np.random.default_rng(seed).standard_normal(12)
        found = posterior_moments(oracle.denoiser(prediction), x_t, t, 3 * v)
        truth = exact(oracle, x_t, t, v / np.linalg.norm(v))
        assert (np.abs(numbers(found) - truth) <= found.errors).all()
        s = np.sqrt(truth[1])
        assert abs(found.skewness - truth[2] / s**3) <= found.skewness_error
        assert abs(found.excess_kurtosis - truth[3] / s**4 + 3) <= found.kurtosis_error
        assert (np.array(found.errors) <= 1e-6 * np.maximum(s ** np.arange(1, 5), 1)).all()
        assert found.possible


def test_a_rare_far_mode_is_resolved_or_said_not_to_be():
    schedule, t = SCHEDULES["linear"]
    for distance in (3.0, 10.0, 30.0, 100.0):
        means = torch.zeros(2, 12, dtype=torch.float64)
        means[1, 0] = distance
        eye = torch.eye(12, dtype=torch.float64).expand(2, 12, 12)
        oracle = GaussianMixture(means, eye, schedule, torch.tensor([0.999, 0.001]))
        v = np.eye(12)[0]
        for shift in np.linspace(0, float(schedule(t)[0]) * distance, 7):
            x_t = torch.zeros(1, 1, 1, 12, dtype=torch.float64)
            x_t[..., 0] = shift
            found = posterior_moments(oracle.denoiser(), x_t, t, v)
            truth = exact(oracle, x_t, t, v)
            # the oracle's own rounding: it subtracts squares of the distance
            slack = 1e-15 * distance ** np.arange(1, 5)
            assert (np.abs(numbers(found) - truth) <= found.errors + slack).all()
            assert np.isfinite(found.errors).all()


def test_a_gaussian_posterior_has_no_skewness_and_no_excess():
    schedule, t = SCHEDULES["linear"]
    oracle = make_gaussian(schedule)
    found = posterior_moments(oracle.denoiser(), noisy(oracle, t, 0), t, np.eye(12)[0])
    assert abs(found.skewness) <= min(found.skewness_error, 1e-8)
    assert abs(found.excess_kurtosis) <= min(found.kurtosis_error, 1e-8)
    assert found.skewness_error < 1e-7
    assert found.kurtosis_error < 1e-6
    assert found.products == 25
    assert "variance 0.4992 +- " in repr(found)


def test_float32_states_larger_errors_that_hold():
    schedule, t = SCHEDULES["linear"]
    oracle = make_mixture(schedule)
    x_t, v = noisy(oracle, t, 0), np.eye(12)[0]
    found = posterior_moments(make_mixture(schedule).float().denoiser(), x_t.float(), t, v)
    assert (np.abs(numbers(found) - exact(oracle, x_t, t, v)) <= found.errors).all()
    assert 1e-6 < found.errors[3] / found.fourth < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [900, 999])
def test_the_errors_hold_where_the_two_parts_of_d_cancel(t, dtype):
    schedule, _ = SCHEDULES["linear"]
    for seed in range(5):
        oracle, v = make_mixture(schedule, seed), np.random.default_rng(seed).standard_normal(12)
        x_t = noisy(oracle, t, seed).to(dtype)
        truth = exact(oracle, x_t.double(), t, v / np.linalg.norm(v))
        found = posterior_moments(oracle.to(dtype).denoiser("epsilon"), x_t, t, v)
        assert (np.abs(numbers(found) - truth) <= found.errors).all()
        assert found.errors[1] <= 3e6 * torch.finfo(dtype).eps * found.variance


@pytest.mark.parametrize("t", [950, 999])
def test_the_noise_of_a_network_whose_own_terms_cancel_is_measured(t):
    schedule = SCHEDULES["cosine"][0]
    a, s = (float(c) for c in schedule(t))
    eye = torch.eye(12, dtype=torch.float64).expand(3, 12, 12)
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        means = torch.randn(3, 12, generator=g, dtype=torch.float64)
        oracle = GaussianMixture(means, eye, schedule)

        def network(x, _, means=means):  # the derivative of each square is 1 / a of what is left
            squares = (x.flatten(1)[:, None] - a * means).square().sum(-1)
            D = torch.softmax(-squares / (2 * (a**2 + s**2)), -1) @ means
            return (s**2 * D + a * x.flatten(1)).reshape(x.shape) / (a**2 + s**2)

        x_t, v = noisy(oracle, t, seed), np.random.default_rng(seed).standard_normal(12)
        found = posterior_moments(Denoiser(network, schedule, "sample", oracle.shape), x_t, t, v)
        truth = exact(oracle, x_t, t, v / np.linalg.norm(v))
        assert (np.abs(numbers(found) - truth) <= found.errors).all()
        assert found.errors[1] <= 1e-9 * found.variance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_posterior_of_two_points_is_possible_within_the_errors(dtype):
    schedule, _ = SCHEDULES["linear"]
    means = torch.tensor([[-1.0, 0, 0, 0], [1, 0, 0, 0]], dtype=dtype)
    oracle = GaussianMixture(means, torch.zeros(2, 4, 4, dtype=dtype), schedule)
    x_t = torch.zeros(1, 1, 1, 4, dtype=dtype)
    for shift in np.linspace(0, 0.5, 11):
        x_t[..., 0] = shift
        for t in (300, 500, 700):
            found = posterior_moments(oracle.denoiser("v"), x_t, t, np.eye(4)[0])
            assert found.excess_kurtosis + 2 - found.skewness**2 < 0.01
            assert found.possible
    less = found.fourth - 2 * found.errors[3]
    assert not dataclasses.replace(found, fourth=less).possible


def test_extrapolation_is_exact_for_a_polynomial_and_honest_beside_a_pole():
    steps = 0.5 ** np.arange(5)
    g = np.polynomial.Polynomial([1, 2, 3, 4, 5, 6])
    (slope, bend), _ = extrapolated(steps, np.stack([g(steps), g(-steps)]), 1.0)
    assert slope == pytest.approx(2, abs=1e-12)
    assert bend == pytest.approx(6, abs=1e-12)
    for pole in (0.01, 0.1, 0.3, 1.1, 3.0):
        f = lambda h, pole=pole: 1 / (pole**2 + h**2)  # noqa: E731 - f'' = -2 / pole^4
        values = np.stack([f(steps), f(-steps)])
        (_, bend), (_, error) = extrapolated(steps, values, float(f(0.0)))
        assert abs(bend + 2 / pole**4) <= error
        assert np.isfinite(error) == (pole > 0.1)  # the last step is 1 / 16


def test_the_error_is_at_least_the_rounding():
    value, error = best(np.ones(4), np.full(4, 1e-3))
    assert value == 1
    assert error == 2e-3


def test_a_bias_that_close_points_share_counts_in_the_errors():
    """1 less a weight next to 1 is off by as much at all of them: an error 23 times the stated."""
    variances = torch.diag(torch.tensor([2e-3, 1e-2], dtype=torch.float64))
    means = torch.tensor([[9.0, 0.0], [6.5, 1.0]], dtype=torch.float64)
    weights = torch.tensor([0.999, 0.001], dtype=torch.float64)
    schedule, t = SCHEDULES["flow"][0], 0.5
    oracle = GaussianMixture(means, variances.expand(2, 2, 2), schedule, weights, (1, 1, 2))
    v = np.array([0.8, 0.6])
    for off in np.linspace(-1, 3, 60)[40:52]:
        x_t = torch.tensor([4.5 + 0.5 * off, 0.3], dtype=torch.float64).reshape(1, 1, 1, 2)
        found, truth = posterior_moments(oracle.denoiser(), x_t, t, v), exact(oracle, x_t, t, v)
        assert abs(found.variance - truth[1]) <= found.errors[1] <= 1e-9 * truth[1]


def test_what_is_no_direction_or_no_posterior_is_refused():
    schedule, t = SCHEDULES["linear"]
    oracle = make_gaussian(schedule)
    x_t = noisy(oracle, t, 0)
    with pytest.raises(InputError, match="is zero"):
        posterior_moments(oracle.denoiser(), x_t, t, np.zeros(12))
    with pytest.raises(InputError, match="11 entries"):
        posterior_moments(oracle.denoiser(), x_t, t, np.ones(11))
    falling = Denoiser(lambda x, _: -x, schedule, "sample", oracle.shape)
    with pytest.raises(InputError, match="not positive"):
        posterior_moments(falling, x_t, t, np.ones(12))
    clean = make_gaussian(DiscreteSchedule(torch.tensor([1.0, 0.5], dtype=torch.float64)))
    with pytest.raises(InputError, match="at sigma_t = 0 x_t is x_0"):
        posterior_moments(clean.denoiser(), x_t, 0, np.ones(12))


def test_the_noise_of_values_is_that_of_their_rounding():
    h, rng = 1e-5 * np.arange(200), np.random.default_rng(0)
    values = np.exp(h) + 1e-6 * rng.standard_normal(200)
    assert noise(values) == pytest.approx(1e-6, rel=0.2)
    assert noise(np.exp(h)) < 1e-10

import pytest
import torch

from jacobian_lab import DiscreteSchedule, InputError, RectifiedFlow
from jacobian_lab.diffusion.oracle import GaussianMixture, gaussian

from conftest import SCHEDULES, SHAPE, make_gaussian, make_mixture, relative


def test_gaussian_mean_and_jacobian_are_the_textbooks(schedule_and_time):
    """D and J by the conditional of a joint Gaussian, with explicit inverses: nothing shared with
    the implementation.
    """
    schedule, t = schedule_and_time
    oracle = make_gaussian(schedule)
    m = oracle.means[0]
    S = oracle.eigenvectors[0] @ torch.diag(oracle.eigenvalues[0]) @ oracle.eigenvectors[0].T
    a, s = (float(c) for c in schedule(t))
    K = a * S @ torch.linalg.inv(a**2 * S + s**2 * torch.eye(12, dtype=torch.float64))
    x_t = torch.randn(3, *SHAPE, dtype=torch.float64)
    expected = m + (x_t.flatten(1) - a * m) @ K.T
    assert relative(oracle.mean(x_t, t).flatten(1), expected) < 1e-11
    assert relative(oracle.jacobian(x_t, t), K.expand(3, -1, -1)) < 1e-11
    assert relative(oracle.covariance(x_t, t)[0], S - a * K @ S) < 1e-10


def test_jacobian_is_the_derivative_of_the_mean(oracle_at):
    oracle, x_t, t = oracle_at
    J = torch.autograd.functional.jacobian(
        lambda x: oracle.mean(x.reshape(x_t.shape), t).flatten(), x_t.flatten()
    )
    assert relative(oracle.jacobian(x_t, t)[0], J) < 1e-10


def test_jacobian_is_symmetric_positive_semidefinite(oracle_at):
    oracle, x_t, t = oracle_at
    J = oracle.jacobian(x_t, t)[0]
    assert relative(J.T, J) < 1e-14
    assert torch.linalg.eigvalsh(J).min() > -1e-12


def test_mean_of_a_mixture_is_bayes_rule_on_a_grid():
    """One dimension, brute force: the posterior mean by quadrature over x_0."""
    schedule = RectifiedFlow()
    oracle = GaussianMixture(
        torch.tensor([[-1.0], [2.0]], dtype=torch.float64),
        torch.tensor([[[0.25]], [[0.04]]], dtype=torch.float64),
        schedule,
        torch.tensor([0.7, 0.3], dtype=torch.float64),
    )
    x0 = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    prior = (
        0.7 * torch.exp(-((x0 + 1) ** 2) / 0.5) / 0.5
        + 0.3 * torch.exp(-((x0 - 2) ** 2) / 0.08) / 0.2
    )
    x_t, t = torch.tensor(0.4, dtype=torch.float64), 0.5
    posterior = prior * torch.exp(-((x_t - 0.5 * x0) ** 2) / (2 * 0.25))
    mean = (posterior * x0).sum() / posterior.sum()
    variance = (posterior * (x0 - mean) ** 2).sum() / posterior.sum()
    image = x_t.reshape(1, 1, 1, 1)
    assert float(oracle.mean(image, t)) == pytest.approx(float(mean), rel=1e-9)
    assert float(oracle.covariance(image, t)) == pytest.approx(float(variance), rel=1e-9)


@pytest.mark.parametrize("make", [make_gaussian, make_mixture])
def test_posterior_samples_have_the_posteriors_moments(make):
    schedule, t = SCHEDULES["linear"]
    oracle, g = make(schedule), torch.Generator().manual_seed(3)
    x_t = schedule.add_noise(
        oracle.sample(1, g), t, torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
    )
    count = 40_000
    samples = oracle.posterior_sample(x_t.expand(count, -1, -1, -1), t, g).flatten(1)
    covariance = oracle.covariance(x_t, t)[0]
    z = (samples.mean(0) - oracle.mean(x_t, t).flatten()) / (covariance.diagonal() / count).sqrt()
    assert z.abs().max() < 5  # standard errors
    assert relative(torch.cov(samples.T), covariance) < 0.05


def test_prior_samples_have_the_priors_moments():
    oracle, g = make_mixture(DiscreteSchedule.linear()), torch.Generator().manual_seed(4)
    samples = oracle.sample(40_000, g).flatten(1)
    mean = (oracle.log_weights.exp()[:, None] * oracle.means).sum(0)
    assert (samples.mean(0) - mean).abs().max() < 0.05


def test_samples_do_not_depend_on_the_signs_of_eigenvectors():
    oracle = make_mixture(SCHEDULES["linear"][0])
    drawn = oracle.sample(20, torch.Generator().manual_seed(0))
    oracle.eigenvectors[..., ::2] *= -1  # as another LAPACK may find them
    assert relative(oracle.sample(20, torch.Generator().manual_seed(0)), drawn) < 1e-12


def test_a_time_for_each_sample():
    oracle = make_mixture(DiscreteSchedule.linear())
    x_t = torch.randn(2, *SHAPE, dtype=torch.float64)
    both = oracle.jacobian(x_t, torch.tensor([100, 700]))
    assert relative(both[1], oracle.jacobian(x_t[1:], 700)[0]) < 1e-12


def test_where_x_t_is_clean_the_formula_of_the_jacobian_is_refused():
    """It was NaN."""
    oracle = make_gaussian(DiscreteSchedule(torch.tensor([1.0, 0.5], dtype=torch.float64)))
    x_t = torch.ones(2, *SHAPE, dtype=torch.float64)
    for t in (0, torch.tensor([1, 0])):
        with pytest.raises(InputError, match="x_t is the clean sample at t = "):
            oracle.jacobian(x_t, t)
    assert oracle.jacobian(x_t, 1).isfinite().all()


def test_the_caller_may_write_into_the_means():
    means = torch.zeros(2, dtype=torch.float64)
    oracle = gaussian(means, torch.eye(2, dtype=torch.float64), DiscreteSchedule.linear())
    means.fill_(3)
    assert not oracle.means.any()


def test_impossible_priors_are_refused():
    schedule, m = DiscreteSchedule.linear(), torch.zeros(2, dtype=torch.float64)
    for covariance, message in [
        (torch.eye(3), "expected"),
        (torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "symmetric"),
        (torch.diag(torch.tensor([1.0, -1.0])), "semi-definite"),
    ]:
        with pytest.raises(InputError, match=message):
            gaussian(m, covariance.double(), schedule)
    with pytest.raises(InputError, match="positive numbers"):
        GaussianMixture(m, torch.eye(2).double(), schedule, torch.tensor([-1.0]))
    with pytest.raises(InputError, match="weights has 1 values of 1 that are not finite"):
        GaussianMixture(m, torch.eye(2).double(), schedule, torch.tensor([torch.inf]))
    with pytest.raises(InputError, match="expected n = 2"):
        gaussian(m, torch.eye(2).double(), schedule, (1, 2, 2))


@pytest.mark.parametrize(
    ("dtype", "sigma"),
    [(torch.float64, 0.0), (torch.float64, 1e-6), (torch.float64, 1e-2), (torch.float32, 0.1)],
)
def test_little_is_left_of_a_prior_that_is_observed_whole(dtype, sigma):
    """S - G A S cancelled: its rounding was refused as covariances that are not symmetric."""
    prior = make_gaussian(SCHEDULES["linear"][0]).to(dtype)
    y = torch.linspace(-1, 1, 12, dtype=dtype)
    left = prior.conditioned(torch.eye(12, dtype=dtype), y, sigma)
    values = prior.eigenvalues[0]
    expected = values * sigma**2 / (values + sigma**2)
    tolerance = 30 * torch.finfo(dtype).eps
    assert (left.eigenvalues[0] - expected).abs().max() <= tolerance * max(sigma**2, tolerance)
    gain = values / (values + sigma**2)
    U = prior.eigenvectors[0]
    mean = prior.means[0] + U @ (gain * (U.T @ (y - prior.means[0])))
    assert relative(left.means[0], mean) < 30 * tolerance

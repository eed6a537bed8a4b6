"""E[x_0 | x_t, y] by products J v: on oracles against what is known, and samples that take it."""

import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, RectifiedFlow, VarianceExploding
from jacobian_lab.constraints.linear import Inpainting, LinearMap
from jacobian_lab.constraints.losses import Loss
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import Separable
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.conditional import conditional_mean
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise

import networks
from conftest import SCHEDULES, SHAPE, make_gaussian, make_mixture, relative

CASES = {**SCHEDULES, "exploding": (VarianceExploding(), 0.7)}
OBSERVED = ("mask", "matrix", "separable")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def observation(kind, sigma, count=1):
    """A constraint on samples of shape (1, 3, 4), its matrix, (m, 12), and y, (count, m)."""
    if kind == "mask":
        mask, y = half(SHAPE), random(count, *SHAPE)
        A = torch.eye(12, dtype=torch.float64)[mask.flatten()]
        return Inpainting(y, mask, sigma), A, y.flatten(1) @ A.T
    if kind == "matrix":
        A, y = random(4, 12, seed=1), random(count, 4)
        found = LinearMap(
            y, lambda x: x.flatten(1) @ A.T, lambda u: (u @ A).reshape(-1, *SHAPE), sigma
        )
        return found, A, y
    rows, columns, y = random(2, 3, seed=1), random(2, 4, seed=2), random(count, 1, 2, 2)
    return Separable(y, rows, columns, sigma), torch.kron(rows, columns), y.flatten(1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", OBSERVED)
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_on_a_gaussian_it_is_the_mean_of_the_posterior(name, kind, sigma):
    schedule, t = CASES[name]
    oracle = make_gaussian(schedule)
    constraint, A, y = observation(kind, sigma, count=3)
    x_t = random(3, *SHAPE, seed=5)
    expected = torch.cat(
        [oracle.conditioned(A, y[i], sigma).mean(x_t[i : i + 1], t) for i in range(3)]
    )
    J = BatchJacobian(oracle.denoiser(), x_t, t, "exact")
    assert relative(conditional_mean(J, constraint, 12).mean, expected) < 1e-7
    differences = BatchJacobian(oracle.denoiser(), x_t, t)
    assert relative(conditional_mean(differences, constraint, 6).mean, expected) < 1e-3


def test_on_a_mixture_it_is_what_matches_two_moments():
    """Against the formula with the dense J and A."""
    schedule, t = CASES["linear"]
    oracle = make_mixture(schedule)
    constraint, A, y = observation("matrix", 0.3)
    x_t = random(2, *SHAPE, seed=5)
    d, J = oracle.mean(x_t, t).flatten(1), oracle.jacobian(x_t, t)
    alpha_t, sigma_t = (float(c) for c in schedule(t))
    system = A @ J @ A.T + 0.3**2 * alpha_t / sigma_t**2 * torch.eye(4, dtype=torch.float64)
    z = torch.linalg.solve(system, y - d @ A.T)
    expected = d + torch.einsum("bij,bj->bi", J @ A.T, z)
    found = conditional_mean(BatchJacobian(oracle.denoiser(), x_t, t, "exact"), constraint, 4)
    assert found.unsolved.max() < 1e-9
    assert relative(found.mean.flatten(1), expected) < 1e-8


@pytest.mark.parametrize(("products", "jvp"), [("forward", 0), ("exact", 3)])
def test_it_takes_a_product_for_each_krylov_step_and_no_backward_pass(products, jvp):
    denoiser = networks.denoiser()
    x_t = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    constraint = Inpainting(torch.zeros_like(x_t), half(denoiser.shape), 0.1)
    J = BatchJacobian(denoiser, x_t, 500, products)
    conditional_mean(J, constraint, 3)
    assert (J.spent.forward, J.spent.jvp, J.spent.vjp) == (4 - jvp, jvp, 0)


def test_more_krylov_steps_miss_less_of_an_exact_observation():
    denoiser = networks.denoiser()
    x_t = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    constraint = Inpainting(torch.zeros_like(x_t), half(denoiser.shape))
    missing = [constraint.residual(denoiser(x_t, 300))] + [
        constraint.residual(conditional_mean(BatchJacobian(denoiser, x_t, 300), constraint, k).mean)
        for k in (1, 2, 4, 8)
    ]
    assert (torch.stack(missing).diff(dim=0) < 0).all()


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_what_is_unsolved_is_the_least_residual_over_the_krylov_space(k, sigma):
    """By the dense J, in a basis that knows nothing of GMRES."""
    schedule, t = CASES["linear"]
    oracle = make_mixture(schedule)
    constraint, A, y = observation("matrix", sigma)
    x_t = random(2, *SHAPE, seed=5)
    J = oracle.jacobian(x_t, t)
    alpha_t, sigma_t = (float(c) for c in schedule(t))
    M = A @ J @ A.T + sigma**2 * alpha_t / sigma_t**2 * torch.eye(4, dtype=torch.float64)
    b = (y - oracle.mean(x_t, t).flatten(1) @ A.T)[..., None]
    powers = torch.cat([torch.linalg.matrix_power(M, j) @ b for j in range(k)], dim=2)
    best = b - M @ powers @ torch.linalg.lstsq(M @ powers, b).solution
    found = conditional_mean(BatchJacobian(oracle.denoiser(), x_t, t, "exact"), constraint, k)
    expected = best.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
    assert relative(found.unsolved, expected) < 1e-6
    assert found.unsolved.min() > 1e-6


def test_nothing_is_unsolved_where_nothing_is_missing():
    oracle = make_gaussian(DiscreteSchedule.linear())
    x_t = random(2, *SHAPE, seed=5)
    d = oracle.denoiser()(x_t, 500)
    met = Inpainting(d, half(SHAPE), 0.1)
    found = conditional_mean(BatchJacobian(oracle.denoiser(), x_t, 500, "exact"), met, 3)
    assert torch.equal(found.mean, d)
    assert not found.unsolved.any()


@pytest.mark.parametrize("schedule", [DiscreteSchedule.cosine(), VarianceExploding()], ids=repr)
def test_fair_samples_in_half_precision_do_not_overflow(schedule):
    """z is 10^5 where J is small: D was not finite, and the sample was said to diverge."""

    def mean(x, t):  # of the prior N(0, 1 / 4)
        alpha, sigma = (float(c) for c in schedule(t[0]))
        return (alpha * x.float() / (alpha**2 + 4 * sigma**2)).to(x)

    denoiser = Denoiser(mean, schedule, "sample", (1, 32, 32))
    noise = seeded_noise([0], denoiser.shape, dtype=torch.float16)
    known = Inpainting(torch.full((1, 1, 32, 32), 0.5), half(denoiser.shape), 0.05)
    for state in sample(denoiser, noise, schedule.times(4), known, Newton.fair(2)):
        assert state.x0.dtype == torch.float16
        assert state.unsolved < 0.02
        assert state.residual < 0.05


def test_samples_do_not_influence_each_other():
    denoiser = networks.denoiser()
    x_t = seeded_noise([0, 1, 2], denoiser.shape, dtype=torch.float64)
    constraint = Inpainting(random(3, *denoiser.shape), half(denoiser.shape), 0.1)
    together = conditional_mean(BatchJacobian(denoiser, x_t, 500), constraint, 3)
    alone = conditional_mean(
        BatchJacobian(denoiser, x_t[1:2], 500), constraint.select(slice(1, 2)), 3
    )
    assert relative(together.mean[1:2], alone.mean) < 1e-6


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_fair_samples_of_a_gaussian_are_those_of_the_posteriors_denoiser(sigma):
    oracle = make_gaussian(DiscreteSchedule.linear())
    constraint, A, y = observation("matrix", sigma)
    noise, times = seeded_noise(range(5), SHAPE, dtype=torch.float64), oracle.schedule.times(10)
    fair = Newton.fair(4, "exact")
    states = sample(oracle.denoiser(), noise, times, constraint, fair, eta=1.0, seeds=range(5))
    posterior = oracle.conditioned(A, y[0], sigma).denoiser()
    expected = sample(posterior, noise, times, eta=1.0, seeds=range(5))
    for state, truth in zip(states, expected, strict=True):
        assert relative(state.x0, truth.x0) < 1e-6
        assert relative(state.residual, constraint.residual(truth.x0)) < 1e-3 if sigma else True
        assert state.unsolved.max() < 1e-8
    assert (state.spent.forward, state.spent.jvp, state.spent.vjp) == (10, 40, 0)
    *_, short = sample(oracle.denoiser(), noise, times, constraint, Newton.fair(1))
    assert short.unsolved.min() > 1e-3
    *_, plain = sample(oracle.denoiser(), noise, times, constraint, Newton())
    assert plain.unsolved is None


def test_fair_samples_of_a_flow_start_where_j_is_zero():
    oracle = make_gaussian(RectifiedFlow())
    constraint, A, y = observation("matrix", 0.3)
    noise, times = seeded_noise(range(400), SHAPE, dtype=torch.float64), oracle.schedule.times(50)
    assert times[0] == 1
    *_, last = sample(oracle.denoiser(), noise, times, constraint, Newton.fair(4))
    found, truth = last.x0.flatten(1), oracle.conditioned(A, y[0], 0.3)
    C = (truth.eigenvectors[0] * truth.eigenvalues[0]) @ truth.eigenvectors[0].T
    # 400 samples: the mean is off by sqrt(tr C / 400), the covariance by about sqrt(2 / 400)
    assert (found.mean(0) - truth.means[0]).norm() < 3 * (C.trace() / 400).sqrt()
    assert relative(torch.cov(found.T), C) < 0.25


def test_an_exact_observation_may_be_projected_onto():
    oracle = make_gaussian(DiscreteSchedule.linear())
    constraint, *_ = observation("mask", 0.0)
    noise, times = seeded_noise(range(2), SHAPE, dtype=torch.float64), oracle.schedule.times(4)
    *_, last = sample(oracle.denoiser(), noise, times, constraint, Newton.fair(1), project=True)
    assert last.residual.max() == 0


def test_impossible_fair_samples_are_refused():
    denoiser = networks.denoiser()
    x_t = seeded_noise([0], denoiser.shape, dtype=torch.float64)
    loss = Loss(lambda x: x.square().flatten(1).mean(1))
    with pytest.raises(
        InputError, match="the constraint of fair samples must be a LinearConstraint: got"
    ):
        sample(denoiser, x_t, [500], loss, Newton.fair())
    with pytest.raises(InputError, match="constraint must be a LinearConstraint"):
        conditional_mean(BatchJacobian(denoiser, x_t, 500), loss, 3)
    with pytest.raises(
        InputError, match=r"none early: got steps=5, tolerance=0.0. Newton.fair\(\)"
    ):
        Newton(aim="fair")
    with pytest.raises(InputError, match="unknown aim 'best'"):
        Newton(aim="best")
    with pytest.raises(InputError, match="krylov_steps"):
        Newton.fair(0)


def test_clean_samples_have_no_uncertainty_left():
    table = torch.cat([torch.ones(2), torch.linspace(0.9, 0.1, 8)]).double()
    denoiser = make_gaussian(DiscreteSchedule(table)).denoiser()
    noise = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    known = Inpainting(torch.zeros(1, *SHAPE).double(), half(SHAPE))
    for newton in (Newton.fair(), Newton("inexact", 1)):
        *_, last = sample(denoiser, noise, [9, 5, 1, 0], known, newton)
        assert last.x0.isfinite().all()

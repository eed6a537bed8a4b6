"""Constrained sampling: on Gaussians against the exact posterior, on networks by what must hold for
any.
"""

import pytest
import torch

from jacobian_lab import DiscreteSchedule, InputError, RectifiedFlow
from jacobian_lab.constraints.linear import Inpainting, LinearMap
from jacobian_lab.constraints.masks import half
from jacobian_lab.errors import DivergenceError
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.newton import Newton, newton_step
from jacobian_lab.sampling.sampler import ddim_step, sample, seeded_noise
from jacobian_lab.sampling.step_size import Backtracking, Dynamic, Fixed

import networks
from conftest import SCHEDULES, make_gaussian, make_mixture, relative


def last(*args, **options):
    *_, state = sample(*args, **options)
    return state


@pytest.mark.parametrize("name", SCHEDULES)
def test_exact_newton_steps_meet_the_constraint_on_a_gaussian(name):
    """D is affine there: one step of size 1 along J^+ e does it, at every time."""
    oracle = make_gaussian(SCHEDULES[name][0])
    noise = seeded_noise(range(4), oracle.shape, dtype=torch.float64)
    constraint = Inpainting(noise.flip(0), half(oracle.shape))
    times = oracle.schedule.times(8)[1:]  # at a flow's first time J is zero
    for state in sample(
        oracle.denoiser("v"), noise, times, constraint, Newton("exact", 1, Fixed(1.0), rcond=1e-13)
    ):
        if state.step == 1:
            assert state.residual.max() < 1e-6


@pytest.mark.parametrize("direction", ["inexact", "gradient", "exact", "krylov", "identity"])
@pytest.mark.parametrize("flow", [False, True])
def test_every_direction_lowers_the_residual(direction, flow):
    oracle = make_mixture(RectifiedFlow() if flow else DiscreteSchedule.linear())
    noise = seeded_noise(range(4), oracle.shape, dtype=torch.float64)
    truth = oracle.sample(4, torch.Generator().manual_seed(0))
    constraint = Inpainting(truth, half(oracle.shape))
    times = oracle.schedule.times(10)
    free = constraint.residual(last(oracle.denoiser(), noise, times).x0)
    met = last(
        oracle.denoiser(),
        noise,
        times,
        constraint,
        Newton(direction, 5, Backtracking(), rcond=0.01, krylov_steps=4, products="exact"),
    ).residual
    assert (met < 0.7 * free).all()


def test_states_come_one_for_each_denoising_and_the_projection_is_exact():
    denoiser = networks.denoiser()
    noise = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    constraint = Inpainting(2 * torch.rand_like(noise) - 1, half(denoiser.shape))
    times = denoiser.schedule.times(3)
    states = list(sample(denoiser, noise, times, constraint, Newton(steps=2), project=True))
    assert [(s.t, s.step) for s in states] == [(t, k) for t in times for k in range(3)]
    for state in states[:-1]:
        assert relative(state.x0, denoiser(state.x_t, state.t)) < 1e-12
        assert relative(state.residual, constraint.residual(state.x0)) < 1e-12
    assert states[-1].residual.max() < 1e-12
    moved = (states[1].x_t - states[0].x_t).flatten(1).abs().amax(1)
    torch.testing.assert_close(moved, torch.full_like(moved, Dynamic().c))
    assert [s.t for s in sample(denoiser, noise, times)] == times
    assert next(sample(denoiser, noise, times)).residual is None


def test_without_refresh_a_time_costs_a_pass_less_and_the_last_one_does_not():
    denoiser = networks.denoiser()
    noise = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    constraint = Inpainting(2 * torch.rand_like(noise) - 1, half(denoiser.shape))
    times = denoiser.schedule.times(3)
    states = list(sample(denoiser, noise, times, constraint, Newton(steps=2, refresh=False)))
    assert [(s.t, s.step) for s in states] == [(t, k) for t in times[:2] for k in range(2)] + [
        (times[2], k) for k in range(3)
    ]
    assert states[-1].spent.forward == 2 * (2 * 2) + 5
    assert relative(states[-1].x0, denoiser(states[-1].x_t, times[2])) < 1e-12
    x_t = newton_step(BatchJacobian(denoiser, states[1].x_t, times[0]), constraint, Newton())
    assert (
        relative(states[2].x_t, ddim_step(denoiser, x_t, states[1].x0, times[0], times[1])) < 1e-9
    )
    assert (
        len(list(sample(denoiser, noise, times, constraint, Newton(steps=0, refresh=False)))) == 3
    )


def test_ancestral_samples_of_a_gaussian_have_its_moments():
    oracle = make_gaussian(DiscreteSchedule.linear())
    seeds = range(1000)
    noise = seeded_noise(seeds, oracle.shape, dtype=torch.float64)
    x = last(oracle.denoiser(), noise, oracle.schedule.times(200), eta=1.0, seeds=seeds).x0.flatten(
        1
    )
    truth = oracle.eigenvectors[0] @ torch.diag(oracle.eigenvalues[0]) @ oracle.eigenvectors[0].T
    assert (x.mean(0) - oracle.means[0]).abs().max() < 0.15
    assert relative(torch.cov(x.T), truth) < 0.12


def test_divergence_stops_with_the_trace():
    denoiser = networks.denoiser()
    noise = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    constraint = Inpainting(2 * torch.rand_like(noise) - 1, half(denoiser.shape))
    with pytest.raises(
        DivergenceError, match=r"sample 0 diverged at t = .* Take a smaller step size"
    ) as stop:
        list(
            sample(
                denoiser,
                noise,
                denoiser.schedule.times(5),
                constraint,
                Newton(step_size=Dynamic(1e9)),
            )
        )
    assert stop.value.trace[0] == (
        999.0,
        pytest.approx(constraint.residual(denoiser(noise, 999)).tolist()),
    )
    assert len(stop.value.trace) >= 2


def test_no_graph_is_kept_by_the_inexact_sampler():
    denoiser = networks.denoiser()
    noise = seeded_noise([0], denoiser.shape, dtype=torch.float64)
    seen = []
    constraint = LinearMap(torch.zeros_like(noise), lambda x: (seen.append(x), x)[1], lambda u: u)
    last(denoiser, noise, denoiser.schedule.times(2), constraint)
    assert seen
    assert not any(x.requires_grad or x.grad_fn for x in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 1.5}, "eta must lie in \\[0, 1\\]: got 1.5"),
        ({"eta": 0.5}, "expected 1 seeds, one for each sample, got none"),
        ({"eta": 0.5, "seeds": [1, 2]}, "expected 1 seeds, one for each sample, got 2"),
        ({"project": True}, "towards a constraint: got none"),
        ({"newton": Newton()}, "towards a constraint: got none"),
    ],
)
def test_bad_options_are_named(options, message):
    oracle = make_gaussian(RectifiedFlow())
    with pytest.raises(InputError, match=message):
        list(sample(oracle.denoiser(), torch.zeros(1, *oracle.shape), [0.5], **options))
    with pytest.raises(InputError, match="unknown direction 'newton'"):
        Newton("newton")
    with pytest.raises(InputError, match="steps must be at least 0"):
        Newton(steps=-1)

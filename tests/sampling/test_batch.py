"""Samples that diverge are dropped, those that are done rest; the others do not notice."""

from itertools import pairwise, product

import pytest
import torch

from jacobian_lab import (
    ConvergenceWarning,
    Denoiser,
    DiscreteSchedule,
    DivergenceError,
    InputError,
    RectifiedFlow,
)
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Backtracking, Dynamic, Fixed

import networks
from conftest import make_gaussian, relative

DIRECTIONS = ("inexact", "gradient", "exact", "krylov", "identity")
STEPS = 2


class Spoilt(torch.nn.Module):
    """A network that makes no number of the samples that hold a marked one, at late times."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.sizes = inner, []

    def forward(self, x, t):
        self.sizes.append(len(x))
        marked = ((x[:, :1, :1, :1] > 50) & (t.reshape(-1, 1, 1, 1) < 700)).to(x)
        return self.inner(x, t) + marked / (1 - marked)


def spoilt(marked, count=4):
    """Return a denoiser, a problem of some samples, and their noise, some of it marked."""
    plain = networks.denoiser()
    noise = seeded_noise(range(count), plain.shape, dtype=torch.float64)
    noise[marked, 0, 0, 0] = 1000.0
    y = seeded_noise(range(7, 7 + count), plain.shape, dtype=torch.float64).clamp(-1, 1)
    mask = half(plain.shape, "bottom")
    network = Spoilt(plain.network).eval()
    return (
        Denoiser(network, plain.schedule, plain.prediction, plain.shape),
        Inpainting(y, mask),
        noise,
    )


def times_of(denoiser):
    return denoiser.schedule.times(4)


@pytest.mark.parametrize(
    ("direction", "network"),
    # a recording of what is no number is refused
    [*product(DIRECTIONS, [False]), *product(("inexact", "krylov", "identity"), [True])],
)
def test_a_sample_that_diverges_is_dropped_and_the_others_go_on_as_without_it(direction, network):
    """By a step that leads too far, or by a network that makes no number of it."""
    recorded = direction in ("gradient", "exact")
    denoiser, constraint, noise = spoilt([2] if network else [])
    at = (499, 0) if network else (999, 1)
    if not network:
        constraint.y[2] *= 1e30  # the constructor refuses such an observation
    newton = Newton(direction, STEPS, Fixed(0.3), rcond=0.1, krylov_steps=3)
    options = {"eta": 0.5, "seeds": [5, 6, 7, 8]}
    with pytest.warns(
        ConvergenceWarning, match=rf"sample 2 of 4 diverged at t = {at[0]}: .* other 3 go on"
    ):
        states = list(sample(denoiser, noise, times_of(denoiser), constraint, newton, **options))
    assert len(states) == 4 * (STEPS + 1)
    dead = next(k for k, state in enumerate(states) if not state.alive.all())
    assert (states[dead].t, states[dead].step) == at
    kept = torch.tensor([True, True, False, True])
    some, options["seeds"] = constraint.select(kept), [5, 6, 8]
    alone = list(sample(denoiser, noise[kept], times_of(denoiser), some, newton, **options))
    for k, (state, other) in enumerate(zip(states, alone, strict=True)):
        assert state.alive.tolist() == [True, True, k < dead, True]
        assert relative(state.x0[kept], other.x0) < 1e-6
        assert relative(state.residual[kept], other.residual) < 1e-6
        for gone in (state.x_t[2], state.x0[2]):
            assert gone.isnan().all() if k >= dead else gone.isfinite().all()
    assert states[dead + 1].residual[2].isnan()
    # what was recorded with the lost one is recorded anew
    assert states[-1].spent.forward == alone[-1].spent.forward + recorded
    assert states[-1].spent.jvp == alone[-1].spent.jvp
    assert states[-1].spent.vjp == alone[-1].spent.vjp


def test_without_a_constraint_too_and_the_warning_points_to_the_caller():
    denoiser, _, noise = spoilt([0, 3])
    with pytest.warns(ConvergenceWarning, match="samples 0, 3 of 4 diverged at t = 499") as told:
        *_, last = sample(denoiser, noise, times_of(denoiser))
    assert [warning.filename for warning in told] == [__file__]
    assert last.alive.tolist() == [False, True, True, False]
    assert last.x0.flatten(1).isfinite().all(1).tolist() == last.alive.tolist()
    assert denoiser.network.sizes == [4, 1, 4, 4, 2]  # the second is the check's


def test_once_all_have_diverged_it_is_an_error_with_the_trace_of_all():
    denoiser, constraint, noise = spoilt([0, 2, 3])
    constraint.y[1] *= 1e30
    reached = []
    states = sample(
        denoiser, noise, times_of(denoiser), constraint, Newton("identity", 1, Fixed(0.3))
    )
    with (
        pytest.warns(ConvergenceWarning, match="sample 1 of 4 diverged at t = 999"),
        pytest.raises(DivergenceError, match=r"sample 0 diverged at t = 499: .* smaller") as stop,
    ):
        reached.extend(states)
    assert len(stop.value.trace) == len(reached) + 1
    for (time, residuals), state in zip(stop.value.trace, reached, strict=False):
        assert time == state.t
        assert residuals == pytest.approx(state.residual.tolist(), nan_ok=True)
    assert stop.value.trace[1][1][1] > 1e10  # that at which it diverged
    assert torch.tensor(stop.value.trace[2][1]).isnan().tolist() == [False, True, False, False]


def met_early(direction, tolerance, refresh=True):
    """Return what sampling needs of samples some of which are sooner done than others."""
    oracle = make_gaussian(DiscreteSchedule.linear())
    noise = seeded_noise(range(4), oracle.shape, dtype=torch.float64)
    y = noise.flip(0) * torch.tensor([0.1, 0.4, 0.7, 1.0]).reshape(-1, 1, 1, 1)
    rule = Backtracking() if direction == "identity" else Dynamic(0.1)
    newton = Newton(
        direction, 3, rule, rcond=0.1, krylov_steps=3, refresh=refresh, tolerance=tolerance
    )
    return (
        oracle.denoiser(),
        noise,
        oracle.schedule.times(5),
        Inpainting(y.clamp(-1, 1), half(oracle.shape)),
        newton,
    )


@pytest.mark.parametrize("refresh", [True, False])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_those_that_have_met_the_constraint_rest_until_the_next_time(direction, refresh):
    denoiser, noise, times, constraint, newton = met_early(direction, 0.3, refresh)
    states = list(sample(denoiser, noise, times, constraint, newton))
    rested = 0
    for before, after in pairwise(states):
        if after.t == before.t:
            met = before.residual <= newton.tolerance
            stayed = (after.x_t == before.x_t).flatten(1).all(1)
            assert stayed.tolist() == met.tolist()
            assert torch.equal(after.x0[met], before.x0[met])
            rested += int(met.sum())
    assert 0 < rested < 4 * len(states)
    for state in states:
        assert relative(state.x0, denoiser(state.x_t, state.t)) < 1e-9
        assert relative(state.residual, constraint.residual(state.x0)) < 1e-9
    for i in range(4):
        part = torch.arange(4) == i
        *_, alone = sample(denoiser, noise[part], times, constraint.select(part), newton)
        assert relative(alone.x0[0], states[-1].x0[i]) < 1e-7
        assert alone.residual[0] == pytest.approx(float(states[-1].residual[i]), rel=1e-7)


def test_those_that_rest_cost_no_passes_and_the_count_is_the_mean():
    denoiser, noise, times, constraint, newton = met_early("inexact", 0.3)
    inner = denoiser.network
    network = Spoilt(inner).eval()
    counted = Denoiser(network, denoiser.schedule, denoiser.prediction, denoiser.shape)
    *_, last = sample(counted, noise, times, constraint, newton)
    network.sizes.remove(1)  # the check's
    assert last.spent.forward == pytest.approx(sum(network.sizes) / 4)
    assert last.spent.forward < 5 * 7
    assert set(network.sizes) > {4}
    alone = []
    for i in range(4):
        part = torch.arange(4) == i
        *_, one = sample(denoiser, noise[part], times, constraint.select(part), newton)
        assert isinstance(one.spent.forward, int)
        alone.append(one.spent.forward)
    assert len(set(alone)) > 1
    assert last.spent.forward == pytest.approx(sum(alone) / 4)


def test_where_the_noise_of_an_observation_explains_what_is_missing_to_rest_changes_nothing():
    denoiser, noise, times, constraint, _ = met_early("inexact", 0.0)
    noisy = Inpainting(constraint.y, constraint.mask, sigma=0.4)
    rest, go_on = (
        list(sample(denoiser, noise, times, noisy, Newton("identity", 3, Fixed(0.5), tolerance=e)))
        for e in (0.4, 0.0)
    )
    for state, other in zip(rest, go_on, strict=True):
        assert relative(state.x0, other.x0) < 1e-12
    assert rest[-1].spent.forward < 0.9 * go_on[-1].spent.forward
    assert go_on[-1].spent.forward == 5 * 4


class Whole(Constraint):
    """A constraint that does not know which of its numbers are whose."""

    def __init__(self, linear):
        self.linear = linear

    def error(self, x0):
        return self.linear.error(x0)

    def residual(self, x0):
        return self.linear.residual(x0)

    def seen(self, change):
        return self.linear.seen(change)

    def project(self, x0):
        return self.linear.project(x0)


def test_a_constraint_that_cannot_be_parted_is_asked_as_a_whole():
    denoiser, noise, times, constraint, newton = met_early("inexact", 0.3)
    *_, known = sample(denoiser, noise, times, constraint, newton, project=True)
    *_, found = sample(denoiser, noise, times, Whole(constraint), newton, project=True)
    assert torch.equal(known.x0, found.x0)
    assert known.spent == found.spent


@pytest.mark.parametrize(
    "reduce",
    [lambda x: x.mean(1, keepdim=True), lambda x: x.mean(), lambda x: float(x.mean())],
)
def test_a_residual_of_another_shape_is_refused(reduce):
    """A sample rested once the first of the batch had met the constraint."""

    class Unlike(Whole):
        def residual(self, x0):
            return reduce((x0 - 1).flatten(1).square())

    denoiser, noise, times, constraint, newton = met_early("inexact", 0.3)
    with pytest.raises(InputError, match=r"the residual of Unlike is .*: expected shape \(\d+,\)"):
        next(sample(denoiser, noise, times, Unlike(constraint), newton))


def test_a_wrong_tolerance_is_refused():
    for wrong in (-1.0, float("nan"), "none"):
        with pytest.raises(InputError, match="tolerance must be"):
            Newton(tolerance=wrong)


def test_in_half_precision_one_large_entry_is_no_divergence():
    """Its square overflowed: a root mean square of 9 was told as infinite."""

    def network(x, t):
        return x / 10

    denoiser = Denoiser(network, RectifiedFlow(), "sample", (1, 32, 32))
    noise = seeded_noise([0, 1], denoiser.shape, dtype=torch.float16)
    noise[0, 0, 0, 0] = 300
    *_, last = sample(denoiser, noise, [1.0, 0.5])
    assert last.alive.all()
    noise[0] *= 4
    with pytest.warns(ConvergenceWarning, match=r"root mean square of x_t is 37\.7 times"):
        *_, last = sample(denoiser, noise, [1.0, 0.5])
    assert last.alive.tolist() == [False, True]

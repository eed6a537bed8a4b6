"""Schedules of a continuous time: their formulas, their bounds, and the same samples from all."""

import math
import pickle
from itertools import pairwise

import pytest
import torch

from jacobian_lab import (
    ContinuousSchedule,
    DiscreteSchedule,
    Inpainting,
    InputError,
    Newton,
    RectifiedFlow,
    SubVariancePreserving,
    TrigonometricFlow,
    VarianceExploding,
    VariancePreserving,
    gaussian,
    sample,
    seeded_noise,
)
from jacobian_lab.sampling.step_size import (
    Backtracking,
    Dynamic,
    ExactMinimiser,
    PerError,
    Secant,
    Spectral,
)

from conftest import random_covariance, relative

LEVELS = {
    RectifiedFlow(): lambda t: (1 - t, t),
    TrigonometricFlow(): lambda t: (math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)),
    VarianceExploding(): lambda t: (1, t),
    VariancePreserving(): lambda t: (vp(t), math.sqrt(1 - vp(t) ** 2)),
    SubVariancePreserving(): lambda t: (vp(t), 1 - vp(t) ** 2),
    ContinuousSchedule(lambda t: 1 / (1 + t), lambda t: t / (1 + t), 9.0): lambda t: (
        1 / (1 + t),
        t / (1 + t),
    ),
}


def vp(t):
    return math.exp(-0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1)


@pytest.mark.parametrize("schedule", LEVELS, ids=lambda s: type(s).__name__)
def test_levels_are_those_of_the_formula(schedule):
    for t in (1e-3, 0.2, 0.77, 1.0):
        alpha_t, sigma_t = schedule(t)
        assert alpha_t.dtype == sigma_t.dtype == torch.float64
        assert (float(alpha_t), float(sigma_t)) == pytest.approx(LEVELS[schedule](t), rel=1e-12)
        assert float(schedule.scale(t)) == pytest.approx(math.hypot(*LEVELS[schedule](t)))


@pytest.mark.parametrize("schedule", LEVELS, ids=lambda s: type(s).__name__)
def test_times_fall_from_the_noisiest(schedule):
    times = schedule.times(7)
    assert times[0] == schedule.last
    assert all(s < t for t, s in pairwise(times))
    assert schedule.times(5, last=0.3)[-1] == pytest.approx(0.3)
    assert schedule.times(1) == [schedule.last]
    schedule(torch.tensor(times))


def test_times_of_a_variance_exploding_run_are_karrass():
    sigmas = VarianceExploding(80, 0.002).times(18)
    at = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert sigmas == pytest.approx(at, rel=1e-12)
    assert (sigmas[0], sigmas[-1]) == (80, 0.002)


@pytest.mark.parametrize(
    ("schedule", "t"),
    [(VarianceExploding(50), 50.1), (VariancePreserving(), 1.2), (TrigonometricFlow(), 0.0)],
)
def test_a_time_outside_is_named_with_the_interval(schedule, t):
    with pytest.raises(InputError, match=rf"takes a time in \(0, {schedule.last:g}\]"):
        schedule(t)


@pytest.mark.parametrize(
    ("schedule", "ratio"),
    [
        (VariancePreserving(0.1, 500), 1e40),
        (VarianceExploding(1e18), 1e17),
        (RectifiedFlow(), 1e12),
    ],
)
def test_noise_grows_and_has_a_time_also_beyond_the_digits_of_an_angle(schedule, ratio):
    """atan(sigma / alpha) is pi / 2 from 1e16 on: schedules were refused as if it did not grow."""
    alpha, sigma = schedule(schedule.time_of(ratio))
    assert float(sigma / alpha) == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("alpha", "sigma", "told"),
    [
        (lambda t: t, lambda t: 1 - t, r"sigma must map times"),
        (lambda t: 0.1 + t, lambda t: 1.2 - t, r"must grow with t .* where time runs the other"),
        (lambda t: -t, lambda t: t, r"alpha must map times .* >= 0"),
        (lambda t: 1 - t, lambda t: t / 0, r"sigma must map times"),
        (lambda t: torch.ones(3), lambda t: t, r"alpha must map times"),
        (
            lambda t: 1.0,
            lambda t: t,
            r"alpha must map times .* constant by torch.full_like: got 1.0",
        ),
        (0.5, lambda t: t, r"alpha must be a function"),
    ],
)
def test_functions_that_are_no_schedule_are_refused(alpha, sigma, told):
    with pytest.raises(InputError, match=told):
        ContinuousSchedule(alpha, sigma)


@pytest.mark.parametrize(
    "schedule",
    [RectifiedFlow(), TrigonometricFlow(), VarianceExploding(10), VariancePreserving()],
    ids=repr,
)
def test_schedules_are_pickled(schedule):
    again = pickle.loads(pickle.dumps(schedule))
    assert again(0.3) == schedule(0.3)


RULES = [
    Dynamic(0.3),
    Dynamic(0.5, 0.1),
    Secant(0.3),
    PerError(4.0),
    Spectral(),
    ExactMinimiser(),
    Backtracking(),
]


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_constrained_samples_are_the_same_on_every_schedule(rule, eta):
    """At equal sigma / alpha the schedules differ in the unit of x_t only, and so must nothing."""
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(12, generator=g, dtype=torch.float64)
    covariance = random_covariance(12, g)
    noise = seeded_noise([0, 1], (12,), dtype=torch.float64)
    constraint = Inpainting(torch.ones(12, dtype=torch.float64), torch.arange(12) < 4)
    ratios, found = [20.0, 6.0, 2.0, 0.5, 0.1], []
    for schedule in (VarianceExploding(), RectifiedFlow(), VariancePreserving()):
        times = schedule.time_of(torch.tensor(ratios)).tolist()
        denoiser = gaussian(mean, covariance, schedule, (12,)).denoiser()
        newton = Newton("inexact", 2, step_size=rule, products="exact")
        states = sample(denoiser, noise, times, constraint, newton, eta=eta, seeds=[3, 4])
        found.append(torch.stack([state.x0 for state in states]))
    for other in found[1:]:
        assert relative(other, found[0]) < 1e-6


@pytest.mark.parametrize("schedule", LEVELS, ids=lambda s: type(s).__name__)
def test_the_time_of_a_noise_level_has_it(schedule):
    ratios = torch.tensor([0.01, 1.0, 7.0], dtype=torch.float64)
    alpha_t, sigma_t = schedule(schedule.time_of(ratios))
    torch.testing.assert_close(sigma_t / alpha_t, ratios, rtol=1e-12, atol=0)
    assert schedule.time_of(1.0).shape == ()
    double = torch.tensor(0.3, dtype=torch.float64)
    assert schedule.time_of(0.3) == schedule.time_of(double)  # not through float32


def test_a_run_from_sigma_80_in_half_precision_stays_in_bounds():
    denoiser = gaussian(torch.zeros(12), torch.eye(12), VarianceExploding(), (12,)).denoiser()
    noise = seeded_noise([0], (12,), dtype=torch.bfloat16)
    *_, last = sample(denoiser, noise, denoiser.schedule.times(10))
    assert last.x0.isfinite().all()
    assert last.x0.abs().max() < 5


def test_the_table_and_its_limit_agree():
    alpha_t, sigma_t = DiscreteSchedule.linear()(499)
    alpha, sigma = VariancePreserving()(0.5)
    assert float(alpha_t) == pytest.approx(float(alpha), rel=1e-2)
    assert float(sigma_t) == pytest.approx(float(sigma), rel=1e-2)


def test_the_last_time_in_float32_is_the_last_time():
    schedule = VarianceExploding(0.4)
    _, sigma_t = schedule(torch.tensor(schedule.times(3), dtype=torch.float32))
    assert float(sigma_t[0]) == pytest.approx(0.4)
    with pytest.raises(InputError, match="outside"):
        schedule(0.4001)


def test_the_last_of_the_times_is_the_one_that_was_asked_for():
    assert VariancePreserving().times(10, last=1e-17)[-1] == 1e-17


@pytest.mark.parametrize("schedule", [RectifiedFlow(), TrigonometricFlow()])
def test_a_last_time_that_float32_rounded_up_is_the_last(schedule):
    beyond = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert [float(c) for c in schedule(beyond)] == [0.0, 1.0]


@pytest.mark.parametrize("schedule", LEVELS, ids=lambda s: type(s).__name__)
def test_rates_are_the_derivatives_of_the_levels(schedule):
    t, h = torch.tensor([0.1, 0.45, 0.9], dtype=torch.float64), 1e-6
    above, below = schedule(t + h), schedule(t - h)
    for rate, high, low in zip(schedule.rates(t), above, below, strict=True):
        torch.testing.assert_close(rate, (high - low) / (2 * h), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("ratio", [-0.1, float("nan"), torch.tensor([1.0, -2.0])])
@pytest.mark.parametrize("schedule", [RectifiedFlow(), DiscreteSchedule.linear()])
def test_a_noise_level_is_at_least_0(schedule, ratio):
    with pytest.raises(InputError, match="sigma / alpha must be at least 0"):
        schedule.time_of(ratio)

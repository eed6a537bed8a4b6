"""Noise levels: right for every schedule, the ladder of EDM, the step of our sampler."""

import numpy as np
import pytest
import torch

from jacobian_lab import DiscreteSchedule, InputError, RectifiedFlow
from jacobian_lab.sampling.sampler import ddim_step, seeded_noise
from studies.contest.methods.noise_levels import (
    CLEAN,
    NoiseLevel,
    even_steps,
    flow_steps,
    ladder,
    ladder_steps,
    level,
    stepped,
)

from conftest import SHAPE, make_gaussian
from peer_checks import oracle


def test_a_level_tells_what_it_is_for_the_other_two_schedules():
    now = NoiseLevel(3, 0.6, 0.8)
    assert now.ratio == pytest.approx(4 / 3)
    assert now.share == pytest.approx(4 / 7)
    assert (CLEAN.ratio, CLEAN.share) == (0, 0)
    assert NoiseLevel(1.0, 0.0, 1.0).ratio == float("inf")
    with pytest.raises(InputError, match="clean image"):
        CLEAN.mean(oracle(), torch.zeros(1, *SHAPE))


@pytest.mark.parametrize("schedule", [DiscreteSchedule.linear(), RectifiedFlow()])
def test_a_ladder_is_edms_as_near_as_the_schedule_has_it(schedule):
    denoiser = make_gaussian(schedule).denoiser()
    found = [now.ratio for now in ladder(denoiser, 6, 100.0, 0.1)]
    expected = np.linspace(100 ** (1 / 7), 0.1 ** (1 / 7), 6) ** 7
    np.testing.assert_allclose(found, expected, rtol=0.03)
    steps = ladder_steps(denoiser, 5, 100.0, 0.1)
    assert [now.ratio for now, _ in steps] == found[:5]
    assert [after for _, after in steps] == [now for now, _ in steps[1:]] + [CLEAN]


@pytest.mark.parametrize("schedule", [DiscreteSchedule.linear(), RectifiedFlow()])
@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_a_flows_steps_are_even_or_shifted_as_near_as_the_schedule_has_them(schedule, shift):
    steps = flow_steps(make_gaussian(schedule).denoiser(), 10, shift)
    s = np.linspace(1, 0, 11)
    np.testing.assert_allclose(
        [now.share for now, _ in steps] + [steps[-1][1].share],
        shift * s / (1 + (shift - 1) * s),
        atol=0.007,  # the noisiest time of DDPM's table has 0.6 % of the image
    )


def test_even_steps_are_our_samplers():
    denoiser = oracle()
    steps = even_steps(denoiser, 7)
    assert [now.time for now, _ in steps] == denoiser.schedule.times(7)
    assert steps[-1][1] == CLEAN


@pytest.mark.parametrize("name", ["ddpm", "flow"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_step_is_that_of_our_sampler(name, eta):
    denoiser = oracle(name)
    t, s = denoiser.schedule.times(4)[1:3]
    x, x0, noise = (seeded_noise([k, k + 1], SHAPE).double() for k in (0, 10, 20))
    torch.manual_seed(5)
    now, after = level(denoiser, t), level(denoiser, s)
    found = stepped(denoiser, x, x0, now, after, eta)
    torch.manual_seed(5)
    noise = torch.randn_like(x)
    assert torch.equal(found, ddim_step(denoiser, x, x0, t, s, eta, noise if eta else None))
    assert torch.equal(stepped(denoiser, x, x0, after, CLEAN, eta), x0)


def test_the_mean_is_the_same_in_the_units_of_all_three():
    """E[x_0 | x_0 + r noise] does not depend on the schedule that is asked."""
    x = seeded_noise([0, 1], SHAPE).double()
    flow, ddpm = oracle("flow"), oracle("ddpm")
    now = level(ddpm, 400)
    also = level(flow, float(flow.schedule.time_of(now.ratio)))
    assert also.ratio == pytest.approx(now.ratio)
    assert torch.allclose(now.mean(ddpm, x, now.alpha), also.mean(flow, x, also.alpha))
    assert torch.allclose(
        now.mean(ddpm, x, now.alpha + now.sigma), also.mean(flow, x, also.alpha + also.sigma)
    )

"""Other conventions of a network: each is a denoiser of its own, and says what would be wrong."""

import pytest
import torch

from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    RectifiedFlow,
    TrigonometricFlow,
    VarianceExploding,
    VariancePreserving,
)
from jacobian_lab.diffusion.other_conventions import others, time_of_ratio

from conftest import SHAPE


@pytest.mark.parametrize(
    "schedule",
    [
        DiscreteSchedule.linear(),
        RectifiedFlow(),
        TrigonometricFlow(),
        VarianceExploding(),
        VariancePreserving(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_the_time_of_a_noise_level_has_it(schedule, ratio):
    alpha_t, sigma_t = schedule(time_of_ratio(schedule, ratio))
    assert float(sigma_t / alpha_t) == pytest.approx(ratio, rel=0.05)


def test_a_noise_level_out_of_reach_has_no_time():
    assert time_of_ratio(VarianceExploding(5), 10.0) is None
    assert time_of_ratio(DiscreteSchedule.linear(), 0.001) is None


@pytest.mark.parametrize("schedule", [DiscreteSchedule.linear(), RectifiedFlow()], ids=repr)
def test_each_says_something_of_its_own_and_is_another_function(schedule):
    turns = 0.01 if isinstance(schedule, DiscreteSchedule) else 7

    def network(x, t):
        return torch.tanh(x) * (1 + 0.3 * torch.cos(turns * t.reshape(-1, 1, 1, 1)))

    denoiser = Denoiser(network, schedule, "v", SHAPE)
    clean = torch.rand(2, *SHAPE) * 2 - 1
    found = {said: (other, samples) for said, other, samples in others(denoiser, clean)}
    assert len(found) == len([*others(denoiser, clean)])
    assert "the sign of the network's output seems to be turned" in found
    assert 'the network seems to predict "epsilon"' in found
    t = time_of_ratio(schedule, 3.0)
    for other, samples in found.values():
        same = other.schedule is schedule and samples is clean
        if same:
            assert not torch.allclose(other(clean, t), denoiser(clean, t), rtol=1e-4)

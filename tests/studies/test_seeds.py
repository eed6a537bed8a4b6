"""Noise from seeds: that of each sample alone, in place of whatever draws it."""

import pytest
import torch
from torch.distributions import Normal

from jacobian_lab import InputError
from studies.contest.methods.seeds import SeededNoise, start_noise

from peer_checks import SHAPE, oracle

DRAWS = {
    "randn_like": torch.randn_like,
    "normal_": lambda x: x.clone().normal_(),
    "normal": lambda x: torch.normal(x, torch.full_like(x, 1.0)),
    "distribution": lambda x: Normal(x, 1.0).sample(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_each_sample_has_its_own(draw):
    x, state = torch.zeros(3, 4), torch.get_rng_state()
    with SeededNoise([5, 6, 7]):
        first, second = draw(x), draw(x)
    with SeededNoise([6]):
        alone = draw(x[:1])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[1:2], alone)
    assert (first != second).all()
    assert (first[0] != first[1]).all()
    with pytest.raises(InputError, match=r"batch of 2 .* 3 seeds"), SeededNoise([5, 6, 7]):
        torch.randn_like(x[:2])


def test_normal_has_the_mean_and_deviation_that_it_was_given():
    mean, deviation = torch.tensor([[3.0] * 4000]), torch.tensor(0.5, dtype=torch.float64)
    with SeededNoise([0]):
        drawn = torch.normal(mean, deviation)
    assert drawn.dtype == mean.dtype
    assert abs(float(drawn.mean()) - 3) < 0.05
    assert abs(float(drawn.std()) - 0.5) < 0.05


def test_multinomial_is_seeded_and_has_its_weights():
    weights = torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64)
    with SeededNoise([1, 2]):
        drawn = torch.multinomial(weights, 4000, replacement=True)
    with SeededNoise([1]):
        again = torch.multinomial(weights, 4000, replacement=True)
    assert torch.equal(drawn, again)
    assert abs(float((drawn == 2).double().mean()) - 0.75) < 0.03
    assert not (drawn == 0).any()


def test_noise_starts_in_the_denoisers_precision():
    assert start_noise(oracle(), [1, 2]).dtype == torch.float64
    assert start_noise(oracle(), [1, 2]).shape == (2, *SHAPE)
    assert start_noise(oracle().float(), [1]).dtype == torch.float32

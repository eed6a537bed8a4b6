"""The settings of the search: what they cost on a sampler, and which one is chosen."""

import numpy as np
import pytest

from jacobian_lab import DiscreteSchedule
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Backtracking, Dynamic, Fixed, Secant
from studies.sampling.newton_settings import (
    SEARCH,
    TRIED,
    affordable,
    choose,
    describe,
    evaluations_per_time,
)

from conftest import make_gaussian


def test_the_search_takes_the_least_doubt_within_the_tolerance_or_else_the_least_residual():
    saw = {
        "residual": np.array([[0.01], [0.02], [0.2], [np.nan]]),
        "doubt": np.array([[0.9], [0.5], [0.1], [np.nan]]),
    }
    assert choose(saw, [0, 1, 2, 3], 0.03) == 1
    assert choose(saw, [0, 1, 2, 3], 0.3) == 2
    assert choose(saw, [1, 2, 3], 0.001) == 1


def test_a_digit_that_diverged_rules_its_setting_out():
    saw = {
        "residual": np.array([[0.01, np.nan], [0.3, 0.3]]),
        "doubt": np.array([[0.1, np.nan], [0.9, 0.9]]),
    }
    assert choose(saw, [0, 1], 1.0) == 1
    assert choose(saw, [0, 1], 0.1) == 1


@pytest.mark.parametrize(("kind", "newton"), TRIED, ids=[describe(n) for _, n in TRIED])
def test_a_time_costs_what_is_said_and_the_last_one_an_evaluation_more(kind, newton):
    assert newton.direction == kind
    oracle = make_gaussian(DiscreteSchedule.linear()).float()
    noise = seeded_noise([0, 1], oracle.shape)
    constraint = Inpainting(noise.flip(0).clamp(-1, 1), half(oracle.shape))
    *_, last = sample(oracle.denoiser(), noise, oracle.schedule.times(3), constraint, newton)
    spent = last.spent.forward + last.spent.jvp + last.spent.vjp
    assert spent == 3 * evaluations_per_time(newton) + 1
    assert [affordable(newton, budget) for budget in (spent - 1, spent)] == [2, 3]


def test_each_direction_has_six_settings_with_words_of_their_own():
    assert {kind: len(newtons) for kind, newtons in SEARCH.items()} == dict.fromkeys(SEARCH, 6)
    assert len({(kind, describe(newton)) for kind, newton in TRIED}) == len(TRIED)


@pytest.mark.parametrize(
    ("newton", "words"),
    [
        (Newton("inexact", 5, Secant(0.2)), "Secant c = 0.2, n = 5"),
        (Newton("gradient", 1, Dynamic(0.4)), "Dynamic c = 0.4, n = 1"),
        (Newton("krylov", 1, Fixed(1.0), krylov_steps=3), "Fixed 1, n = 1, k = 3"),
        (Newton("exact", 2, Fixed(0.5), rcond=0.1), "Fixed 0.5, n = 2, rcond = 0.1"),
        (Newton("identity", 1, Backtracking()), "Backtracking , n = 1"),
    ],
)
def test_a_setting_is_told_in_words(newton, words):
    assert describe(newton) == words

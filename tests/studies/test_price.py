"""A run costs what its budget allows, whatever a method does at each step."""

import pytest

from studies.contest.price import steps_for


@pytest.mark.parametrize(
    "passes",
    [
        lambda n, _: 2 * n - 1,  # DInG
        lambda n, _: 2 * n + 3,  # a last pass, and a check
        lambda n, count: n + 0.001 * min(n, 3),  # something else at first
        lambda n, count: 2 * n + 1 / count,  # a check at the beginning
        lambda n, count: 2 * n + 8 / count,  # a dear one
    ],
)
@pytest.mark.parametrize("budget", [25, 100])
def test_the_steps_cost_the_budget(passes, budget):
    steps = steps_for(passes, budget, 50)
    assert abs(passes(steps, 50) - budget) <= 1


def test_a_method_that_stops_early_has_steps_enough():
    assert steps_for(lambda n, _: min(n, 3), 24, 50) == 32


@pytest.mark.parametrize("checked", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [10, 50])
def test_a_check_of_some_samples_costs_what_it_does_among_so_many(checked, count):
    steps = steps_for(lambda n, many: n * (1 + min(checked, many) / many), 30, count)
    assert steps * (1 + checked / count) == pytest.approx(30, abs=1)


def test_long_steps_that_diverge_do_not_make_the_others_cheap():
    asked = []

    def cost(n, count):
        asked.append((n, count))
        return (1.0 * n if n >= 12 else 1 + 0.5 * n) + n / count

    assert cost(steps_for(cost, 100, 50), 50) == pytest.approx(100, rel=0.05)
    assert asked[:5] == [(4, 2), (4, 8), (4, 50), (8, 50), (190, 50)]
    assert len(asked) == 7


def test_long_steps_that_diverge_are_told_from_cheap_ones_without_a_check_too():
    def cost(n, _):
        return 2.0 * n if n >= 12 else 6.0 + 0.2 * n

    assert cost(steps_for(cost, 100, 50), 50) == pytest.approx(100, rel=0.05)


def test_two_steps_are_the_fewest():
    assert steps_for(lambda n, count: 1000.0 * n + 4 / count, 100, 50) == 2


def test_a_search_runs_all_its_digits_once():
    asked = []

    def cost(n, count):
        asked.append((n, count))
        return 2.0 * n

    assert steps_for(cost, 100, 10, whole=True) == 50
    assert asked == [(4, 2), (4, 8), (8, 2), (50, 10)]

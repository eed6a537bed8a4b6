"""A run costs what its budget allows, whatever a method does at each step."""

import numpy as np
import pytest

from studies.contest import price
from studies.contest.entries import BATCH, OTHERS, Entry
from studies.contest.price import corrected, of_batch, steps_for
from studies.contest.rules import Contest

ENTRY = Entry("half", "tried", "searched", {}, 1)


@pytest.fixture
def costs(monkeypatch):
    """Return a function that says what a digit costs by the number of steps and of digits."""

    def told(cost):
        def execute(entry, config, first, count, seed):
            assert first == OTHERS
            return {"passes": np.array([cost(entry.steps, count), 0, 0])}

        monkeypatch.setattr(price, "execute", execute)
        return lambda steps: cost(steps, BATCH)

    return told


@pytest.mark.parametrize(
    "passes",
    [
        lambda n, _: 2 * n - 1,  # DInG
        lambda n, _: 2 * n + 3,  # a last pass, and a check
        lambda n, count: n + 0.001 * min(n, 3),  # something else at first
        lambda n, count: 2 * n + 8 / count,  # a check at the beginning
    ],
)
@pytest.mark.parametrize("budget", [25, 100])
def test_the_steps_cost_the_budget(costs, passes, budget):
    spent = costs(passes)
    assert abs(spent(steps_for(ENTRY, Contest(), budget)) - budget) <= 1


def test_a_method_that_stops_early_has_steps_enough(costs):
    costs(lambda n, _: min(n, 3))
    assert steps_for(ENTRY, Contest(), 24) == 32


@pytest.mark.parametrize("checked", [1, 2, 3, 4])
@pytest.mark.parametrize("digits", [20, 200])
def test_a_check_of_some_samples_costs_what_it_does_in_a_batch(costs, checked, digits):
    costs(lambda n, count: n * (1 + min(checked, count) / count))
    config, many = Contest(digits=digits), min(digits, BATCH)
    assert of_batch(ENTRY, config) == pytest.approx(1 + checked / many)
    steps = steps_for(ENTRY, config, 30)
    assert steps * (1 + checked / many) == pytest.approx(30, abs=1)


def test_long_steps_that_diverge_do_not_make_the_others_cheap(costs):
    spent = costs(lambda n, count: (1.0 * n if n >= 12 else 1 + 0.5 * n) + n / count)
    assert spent(steps_for(ENTRY, Contest(), 100)) == pytest.approx(100, rel=0.03)


def test_steps_are_corrected_a_few_times_at_most():
    asked = []

    def cost(steps):
        asked.append(steps)
        return 2.0 * steps if steps > 20 else 7.0

    assert corrected(99, cost, 100.0) == 50
    assert asked == [99, 50]
    asked.clear()
    assert corrected(2, lambda steps: asked.append(steps) or 1000.0, 100.0) == 2
    assert asked == [2]

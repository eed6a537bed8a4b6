"""How many steps of a method a budget of network evaluations pays for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from studies.contest.entries import BATCH, OTHERS, Entry, execute
from studies.contest.rules import Contest

STEPS = 4
"""Of the shorter of the two runs that tell what a step costs."""
FEWEST, FEW, MORE = 2, 4, 8
"""Digits of these runs: the fewest, if each of the most costs the same, and else the others."""
APART, TRIES = 0.03, 3
"""How far from the budget a run may be, and how often its steps are changed for it."""


def steps_for(entry: Entry, config: Contest, budget: float) -> int:
    """Return how many steps, at least 2, cost a budget of evaluations for each digit of a batch.

    Two short runs tell the cost of a step, and what a run costs beside its steps, such as a check
    of products. A check is of some samples at each time, four or fewer, and its share of a digit
    falls with their number. Methods that have one are asked again with the steps that were found:
    few steps are long ones, samples may diverge by them, and then cost less.
    """
    entry = replace(entry, steps=STEPS)
    short = evaluations(entry, config, FEWEST)
    alike = short == evaluations(entry, config, MORE)

    def cost(steps: int) -> float:
        at = replace(entry, steps=steps)
        return evaluations(at, config, FEWEST) if alike else of_batch(at, config)

    short = short if alike else cost(STEPS)
    step, once = (cost(2 * STEPS) - short) / STEPS, 0.0
    if step > 0:
        once = short - STEPS * step
    else:  # a method may stop early: the longer run then costs no more
        step = short / STEPS
    steps = max(2, round((budget - once) / step))
    return steps if alike else corrected(steps, cost, budget)


def corrected(steps: int, cost: Callable[[int], float], budget: float) -> int:
    """Return other steps if these are not within the budget, as their cost is proportional."""
    for _ in range(TRIES):
        spent = cost(steps)
        better = max(2, round(steps * budget / spent))
        if abs(spent - budget) <= APART * budget or better == steps:
            break
        steps = better
    return steps


def of_batch(entry: Entry, config: Contest) -> float:
    """Return what a digit of a batch costs, `a + b / count`, from two counts."""
    few, more = (evaluations(entry, config, count) for count in (FEW, MORE))
    b = (few - more) / (1 / FEW - 1 / MORE)
    return more + b * (1 / min(BATCH, config.digits) - 1 / MORE)


def evaluations(entry: Entry, config: Contest, count: int) -> float:
    """Return the evaluations of a run on some digits of the search, for each."""
    return float(execute(entry, config, OTHERS, count, config.seed)["passes"].sum())

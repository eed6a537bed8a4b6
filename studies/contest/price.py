"""How many steps of a method a budget of network evaluations pays for."""

from __future__ import annotations

from collections.abc import Callable

STEPS = 4
"""Of the shorter of the two runs that tell what a step costs."""
FEW, MORE = 2, 8
"""Digits of these runs are few, if each of more costs about the same."""
APART, TRIES = 0.05, 3
"""How far a run may be from its budget, and how often its steps are changed for that."""


def steps_for(
    cost: Callable[[int, int], float], budget: float, count: int, whole: bool = False
) -> int:
    """Return how many steps, at least 2, cost a budget of evaluations for each of some digits.

    Two short runs tell the cost of a step, and what a run costs beside its steps. Where each of
    eight digits costs less than each of two, there are checks of some samples at each time, and
    samples that diverge and cost nothing from then on, by steps that are too long where they are
    few: then the runs are of all the digits. The steps that are found are tried, and are fewer if
    they cost more; if less, they are more where digits are not alike: others may stop early.

    Parameters
    ----------
    cost : callable
        Of a number of steps and a number of digits: the evaluations for each of these.
    budget : float
    count : int
        How many digits a run has.
    whole : bool
        Try the steps on all digits: for who wants that run anyway.
    """
    digits = count
    short = cost(STEPS, FEW)
    alike = abs(cost(STEPS, MORE) - short) <= 2 * APART * short
    count = FEW if alike else count
    short = short if alike else cost(STEPS, count)
    step, once = (cost(2 * STEPS, count) - short) / STEPS, 0.0
    if step > 0:
        once = short - STEPS * step
    else:  # a method may stop early: the longer run then costs no more
        step = short / STEPS
    steps = max(2, round((budget - once) / step))
    for _ in range(TRIES):
        spent = cost(steps, digits if whole else count)
        if spent <= (1 + APART) * budget and (alike or spent >= (1 - APART) * budget):
            break
        steps = max(2, round(steps * budget / spent))
    return steps

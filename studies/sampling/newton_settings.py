"""The Newton steps among which `directions-budget` searches: what they cost, and which one is
chosen.
"""

from __future__ import annotations

import numpy as np

from jacobian_lab.sampling.newton import Kind, Newton
from jacobian_lab.sampling.step_size import Dynamic, Fixed, Secant, StepSize
from studies.frame.study import Arrays

SMALL, SIZES = (1, 5), (0.1, 0.2, 0.4)
SEARCH: dict[Kind, list[Newton]] = {
    "inexact": [Newton("inexact", n, Secant(c), refresh=False) for n in SMALL for c in SIZES],
    "gradient": [Newton("gradient", n, Dynamic(c), refresh=False) for n in SMALL for c in SIZES],
    "krylov": [
        Newton("krylov", 1, rule, krylov_steps=k, refresh=False)
        for k in (2, 3)
        for rule in (Dynamic(0.2), Dynamic(0.4), Fixed(1.0))
    ],
    "identity": [
        Newton("identity", n, Fixed(size), refresh=False) for n in SMALL for size in (0.1, 0.3, 1.0)
    ],
}
"""Six settings for each direction."""
TRIED = [(kind, newton) for kind, newtons in SEARCH.items() for newton in newtons]


def evaluations_per_time(newton: Newton) -> int:
    """Return the evaluations of a sampling time with a step size that costs none, without
    `refresh`.
    """
    products = {"identity": 0, "krylov": newton.krylov_steps}.get(newton.direction, 1)
    return newton.steps * (1 + products)


def affordable(newton: Newton, budget: int) -> int:
    """Return how many sampling times a budget buys, besides the last evaluation, of the sample."""
    return (budget - 1) // evaluations_per_time(newton)


def describe(newton: Newton) -> str:
    """Return a setting in words."""
    rule: StepSize = newton.step_size
    size = (
        f"{rule.size:g}"
        if isinstance(rule, Fixed)
        else f"c = {rule.c:g}"
        if isinstance(rule, (Dynamic, Secant))
        else ""
    )
    extra = {"krylov": f", k = {newton.krylov_steps}", "exact": f", rcond = {newton.rcond}"}.get(
        newton.direction, ""
    )
    return f"{type(rule).__name__} {size}, n = {newton.steps}{extra}"


def choose(saw: Arrays, settings: list[int], tolerance: float) -> int:
    """Return the setting with the least doubt of those whose mean residual is within the tolerance;
    else the least residual.
    """
    scored = {
        i: (
            np.nan_to_num(saw["residual"][i], nan=np.inf).mean(),
            np.nan_to_num(saw["doubt"][i], nan=np.inf).mean(),
        )
        for i in settings
    }
    within = [i for i in settings if scored[i][0] <= tolerance]
    return (
        min(within, key=lambda i: scored[i][1])
        if within
        else min(settings, key=lambda i: scored[i][0])
    )

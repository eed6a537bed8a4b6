"""The command `jacobian-lab health`: is a model wrapped rightly, and is its J what a denoiser's
should be? One table for any model.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from jacobian_lab import (
    ConvergenceWarning,
    InputError,
    JacobianOperator,
    asymmetry,
    audit,
    check_convention,
    eigenpairs,
    symmetric_part,
    trace,
)
from studies.frame.answer import Row, terminal_table
from studies.frame.models import Inputs, Model, operator_at
from studies.frame.options import OnModel
from studies.frame.study import check_times

SYMMETRIC = 0.5
"""Asymmetry up to which J counts as nearly symmetric: shipped models have 0.12 to 0.30."""
NEGATIVE = 0.5
"""Share of the largest eigenvalue that the most negative one of the symmetric part may have."""
CLEAN = 16
"""Held-out digits at which the convention is checked."""


@dataclass(frozen=True)
class CheckHealth(OnModel):
    """Check a model before any study. Example: jacobian-lab health --model mnist-flow.

    Prints what `check_convention` finds, and for each noise level the audit, symmetry, trace and
    most negative eigenvalue of J; writes nothing. Exit status 1 if a check fails. Two --images or
    more are wanted of a model of your own, eight tell most.
    """

    digits: int = CLEAN
    """Digits at which the convention is checked: this many, from `digit` on; J is taken at the
    first.
    """
    times: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels of J, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        self.check_digits()
        if self.out is not None:
            raise InputError(
                f"--out {self.out}: health is printed and writes no folder; redirect what it prints"
            )


def examine(config: CheckHealth) -> bool:
    """Print the convention's report and the table; return whether all is well."""
    model = config.load()
    for t in config.times:
        model.denoiser.schedule(t)  # an unknown time is refused before anything is computed
    inputs = config.inputs(model, config.digits)
    found = check_convention(model.denoiser, inputs.clean, seed=config.seed)
    print(f"{config.model}: {len(inputs.clean)} samples\n{found}\n")
    rows = [row for t in config.times for row in of_jacobian(config, model, inputs, t)]
    print(f"J at {inputs.names[0]}, seed {config.seed}\n{terminal_table(rows)}\n")
    failed = [row for row in rows if row["verdict"] != "pass"]
    well = bool(found) and not failed
    print(
        "all is well"
        if well
        else "not all is well: mend the convention first, then what the audit names"
    )
    return well


def of_jacobian(config: CheckHealth, model: Model, inputs: Inputs, t: int | float) -> list[Row]:
    """Return a row for each thing that is measured of J at one noise level."""
    J = operator_at(model.denoiser, inputs.clean[0], config.digit, t, config.seed)
    checks = audit(J, config.seed)
    failing = ", ".join(check.name for check in checks.checks if not check.passed)
    symmetry, total = asymmetry(J), trace(J)
    low, high = _ends(J)
    share = -low / high if high > 0 else math.inf
    return [
        _row(t, "audit", f"{len(checks.checks)} checks", not failing, failing),
        _row(
            t,
            "asymmetry",
            f"{symmetry}",
            symmetry.value < SYMMETRIC,
            f"a posterior mean's J is symmetric; expected at most {SYMMETRIC}",
        ),
        _row(
            t,
            "trace",
            f"{total}",
            total.value > -3 * total.standard_error,
            "a posterior mean's is positive",
        ),
        _row(
            t,
            "most negative eigenvalue",
            f"{low:.3g}, largest {high:.3g}",
            share < NEGATIVE,
            "a posterior covariance has none",
        ),
    ]


def _row(t: int | float, what: str, value: str, passed: bool, advice: str) -> Row:
    """Return a row with a verdict."""
    return {
        "time": t,
        "check": what,
        "value": value,
        "verdict": "pass" if passed else f"FAIL: {advice}",
    }


def _ends(J: JacobianOperator) -> tuple[float, float]:
    """Return the ends of the spectrum of the symmetric part."""
    S = symmetric_part(J)
    with warnings.catch_warnings():
        # a share of the largest is all that is asked
        warnings.simplefilter("ignore", ConvergenceWarning)
        low, high = (
            eigenpairs(S, 1, which, symmetric=True, rtol=1e-3).values[0] for which in ("SR", "LR")
        )
    return float(low.real), float(high.real)

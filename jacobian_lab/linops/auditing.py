"""Is this operator what it claims to be? Run before any analysis.

    report = audit(J)
    print(report)           # one line a check: figure, limit, verdict, and what to do
    bool(report)            # whether all checks pass

Each check compares J, or the network, with something computed in another way: the network called
again, alone, among others, with gradients, after another time; central differences of its output;
PyTorch's autograd. Limits follow from the precision in which the network computes and from what the
differences resolve, not from any model.
"""

from __future__ import annotations

import numpy as np

from jacobian_lab import _require
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.krylov.estimates import diagonal
from jacobian_lab.linops.jacobian import JacobianOperator
from jacobian_lab.linops.network_checks import network_checks
from jacobian_lab.linops.product_checks import product_checks
from jacobian_lab.linops.report import Report
from jacobian_lab.linops.subject import Subject

EXACT = 1024
"""Up to this n the posterior variances are counted on the dense J, which then costs less than the
estimate is uncertain; beyond it they are estimated.
"""


def audit(J: JacobianOperator, seed: int = 0) -> Report:
    """Check a denoiser's Jacobian operator against independent computations: about 80 forward
    passes and 70 products.

    Parameters
    ----------
    J : JacobianOperator
    seed : int
        Seed of the random vectors.

    Returns
    -------
    Report
        With the checks "finite", "evaluation mode", "precision", "repeatable", "gradients on",
        "input", "samples apart", "derivative", "linear", "differences", "secant", "adjoint", "many
        at once" and "autograd"; and notes, of which one counts the posterior variances, the
        diagonal of J, that are negative (n more products for n up to 1,024, else some 64).

    References
    ----------
    Griewank, Walther (2008), *Evaluating derivatives*, section 3 (adjointness); Higham (2002),
    *Accuracy and stability of numerical algorithms*, section 1.14 (the step of a difference).
    """
    _require.instance("J", J, JacobianOperator, "; an audit compares it with its own network")
    seed = _require.seed(seed)
    subject = Subject(J)
    with differentiable():
        # products first: their cancellation loosens the limits of the network's checks
        products, sweep = product_checks(subject, seed)
        checks = (*network_checks(subject, seed), *products)
    return Report(f"{J.products.path} ({J.products.reason})", checks, sweep, _notes(subject))


def _notes(s: Subject) -> tuple[str, ...]:
    notes = (
        [f"numbers read out of what depends on x_t: {', '.join(s.ladder.linear.reads)}"]
        if (s.ladder.linear is not None and s.ladder.linear.reads)
        else []
    )
    if s.n <= EXACT:
        values, how = s.J.dense().diagonal().astype(np.float64), ""
    else:
        estimate = diagonal(s.J)
        values, how = (
            np.where(
                estimate.value < -2 * estimate.standard_error, estimate.value, abs(estimate.value)
            ),
            "at least ",
        )
    negative = int((values < 0).sum())
    if negative and np.isfinite(values).all():
        notes.append(
            f"{how}{negative:,} of {s.n:,} posterior variances (the diagonal of J) are negative,"
            f" the least of them {values.min() / values.max():.1e} of the largest: this J is no"
            " covariance"
        )
    return tuple(notes)

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
from numpy.typing import NDArray

from jacobian_lab import _require
from jacobian_lab.derivative.settings import differentiable, under
from jacobian_lab.krylov.estimates import diagonal
from jacobian_lab.linops.jacobian import JacobianOperator
from jacobian_lab.linops.network_checks import network_checks
from jacobian_lab.linops.product_checks import product_checks
from jacobian_lab.linops.report import Report
from jacobian_lab.linops.subject import Subject

EXACT = 1024
"""Up to this n the posterior variances are counted on the dense J, which then costs less than the
estimate is uncertain; beyond it the likeliest are estimated, and then computed.
"""
CANDIDATES = 64
"""Entries of the diagonal that are computed then: one pass."""


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
        diagonal of J, that are negative (n more products for n up to 1,024, else some 130).

    References
    ----------
    Griewank, Walther (2008), *Evaluating derivatives*, section 3 (adjointness); Higham (2002),
    *Accuracy and stability of numerical algorithms*, section 1.14 (the step of a difference).
    """
    _require.instance("J", J, JacobianOperator, "; an audit compares it with its own network")
    seed = _require.seed(seed)
    subject = Subject(J)
    with differentiable(), under(J.products.autocast):
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
    found, total = _negative_variances(s)
    if len(found):
        notes.append(
            f"at least {len(found):,} of {s.n:,} posterior variances (the diagonal of J) are"
            f" negative, the least of them {found.min() / total:.1e} of the largest: this J is no"
            " covariance"
        )
    return tuple(notes)


def _negative_variances(s: Subject) -> tuple[NDArray[np.float64], float]:
    """Return the entries of the diagonal that are negative beyond their products' error, and the
    largest entry that is known; beyond EXACT of those that an estimate finds likeliest.
    """
    J = s.J
    if s.n <= EXACT:
        dense = J.dense().astype(np.float64)
        values, sizes = dense.diagonal(), np.linalg.norm(dense, axis=0)
    else:
        # n estimates have their outliers: what looks negative is computed
        estimate = diagonal(J)
        share = estimate.value / np.maximum(estimate.standard_error, np.finfo(float).tiny)
        likely = np.append(np.argsort(share)[: CANDIDATES - 1], np.argmax(estimate.value))
        columns = np.zeros((s.n, len(likely)), J.dtype)
        columns[likely, np.arange(len(likely))] = 1
        products = (J @ columns).astype(np.float64)
        values = products[likely, np.arange(len(likely))]
        sizes = np.linalg.norm(products, axis=0)
    if not np.isfinite(values).all():
        return np.empty(0), 1.0
    error = max(J.product_error, float(np.finfo(J.dtype).eps)) * sizes
    return values[values < -error], float(np.abs(values).max())

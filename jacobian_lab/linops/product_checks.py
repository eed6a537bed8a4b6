"""An audit's checks of products: linearity, differences, the adjoint identity, autograd."""

from __future__ import annotations

import numpy as np
import torch

from jacobian_lab.derivative.agreement import Comparison
from jacobian_lab.derivative.linear_map import MANY
from jacobian_lab.derivative.probes import probe
from jacobian_lab.errors import InputError
from jacobian_lab.linops.jacobian import JacobianOperator
from jacobian_lab.linops.report import Check
from jacobian_lab.linops.subject import Array, Subject, length, ratio

STEPS = tuple(float(h) for h in np.geomspace(1e-1, 1e-6, 16))
"""Steps of the central differences, relative to |x_t|: three to a decade, from where a network is
curved to where float32 rounds.
"""
LINEAR = np.array([2.0, -3.0])
"""Coefficients of two vectors: exact in every precision, and of both signs."""
SECANT = 1e-2
"""The size of a Newton step, relative to |x_t|."""


def product_checks(
    s: Subject, seed: int
) -> tuple[tuple[Check, ...], tuple[tuple[float, float], ...]]:
    """Return the checks of products with random vectors, and the sweep over the steps of the
    differences.
    """
    rng = np.random.default_rng(seed)
    V, W = rng.standard_normal((2, s.n, MANY + 1))
    V[:, 1] = probe(s.x).cpu().double().reshape(-1).numpy()
    rows = V[:, :2].T
    single = np.stack([np.asarray(s.J @ v, dtype=np.float64) for v in rows])
    differences, secant, limit, sweep = _against_differences(s, rows, single)
    many, transposed = s.J @ V, _transposed(s.J, W)
    # where c_x v and the network's part cancel
    s.rounding += 10 * s.own * abs(s.c_x) * ratio(V, many)
    checks = (
        Check(
            "finite",
            float((~np.isfinite(many)).sum()),
            0,
            "J v is not finite though D(x_t) is: a square root or logarithm at zero, or an overflow"
            " inside",
        ),
        Check(
            "derivative",
            s.ladder.disagreement,
            0,
            "a derivative that was tried disagrees with differences of the network's output: a part"
            " that PyTorch cannot see, a number read out, a cache. The path taken is the next one;"
            " see its reason",
        ),
        _linear(s, rows, single),
        differences,
        secant,
        Check(
            "adjoint",
            ratio(W.T @ many - transposed.T @ V, W.T @ many),
            s.rounding + s.loose,
            "J^T is missing, or not the transpose of J: take both at the same x_t, time, weights"
            " and precision",
        ),
        _many(s, rng, V, many, single, W, transposed),
        _autograd(s, W[:, 0], transposed[:, 0], rows[0], single[0], limit),
    )
    return checks, sweep


def _against_differences(
    s: Subject, rows: Array, single: Array
) -> tuple[Check, Check, float, tuple[tuple[float, float], ...]]:
    """Return the checks of J v for two vectors against central differences of the network's output
    at all steps and at that of a secant, the limit of the first, and the sweep of the first vector.
    """
    comparison = Comparison(s.ladder.function, s.x, s.tensor(rows), s.eps, s.ladder.scale)
    if s.ladder.hides or not s.ladder.together:
        comparison = comparison.apart()
    found = comparison.sweep(s.of_network(single, rows), tuple(h / comparison.step for h in STEPS))
    errors = (found.gaps / found.own).cpu().numpy()
    cancelled = max(s.cancellation(a, b) for a, b in zip(single, rows, strict=True))
    limit = (
        float((found.limit / found.own).max())
        + cancelled
        + (10 * s.ladder.error if s.loose else 0.0)
    )
    differences = Check(
        "differences",
        float(errors.min(0).max()),
        limit,
        "J v disagrees with central differences at every step, by more than these differ from"
        " each other",
    )
    sweep = tuple((h, float(e)) for h, e in zip(STEPS, errors[:, 0], strict=True))
    return differences, _secant(s, errors, bool(found.flat.any())), limit, sweep


def _linear(s: Subject, rows: Array, single: Array) -> Check:
    return Check(
        "linear",
        ratio(s.J @ (LINEAR @ rows) - LINEAR @ single, LINEAR @ single),
        3 * s.rounding + s.loose,
        "J (2 v - 3 w) is not 2 J v - 3 J w: products are no derivative",
    )


def _secant(s: Subject, errors: Array, flat: bool) -> Check:
    """Tell a network with steps from one that is curved: there the error falls with the square of
    the step.
    """
    size = max(SECANT, 2 * s.eps ** (1 / 3))
    near = int(np.abs(np.log(np.array(STEPS) / size)).argmin())
    figure = float(errors[near : near + 4].min(0).max())
    return Check(
        "secant",
        1.0 if flat else figure,
        0.3,
        f"a step of {size:.1g} of |x_t|, and smaller ones, change the output by something else than"
        " J says: quantisation or thresholds inside, and J tells nothing of finite steps",
    )


def _many(
    s: Subject,
    rng: np.random.Generator,
    V: Array,
    many: Array,
    single: Array,
    W: Array,
    transposed: Array,
) -> Check:
    """Check products of 16 and 17 vectors: each column counts in a combination that is taken
    alone.
    """
    c = rng.choice([-1.0, 1.0], V.shape[1])
    gaps = [
        ratio(many[:, :2] - single.T, single.T),
        ratio(s.J @ (V @ c) - many @ c, many @ c),
        ratio(s.J @ V[:, :MANY] - many[:, :MANY], many[:, :MANY]),
    ]
    if np.isfinite(transposed).all():
        gaps += [
            ratio(_transposed(s.J, W @ c) - transposed @ c, transposed @ c),
            ratio(_transposed(s.J, W[:, :MANY]) - transposed[:, :MANY], transposed[:, :MANY]),
        ]
    return Check(
        "many at once",
        max(gaps),
        10 * s.rounding + s.loose,
        "a vector among many gets another product than alone, by other kernels: take them one"
        " by one",
    )


def _autograd(s: Subject, w: Array, back: Array, v: Array, Jv: Array, limit: float) -> Check:
    """Compare J^T with PyTorch's own back-propagation; where there is no J^T, J with it."""
    with torch.enable_grad():
        x = s.x.clone().requires_grad_()
        try:
            gradient = (
                torch.autograd.grad(s.denoiser(x, s.t), x, s.tensor(w[None]))[0]
                .cpu()
                .double()
                .numpy()
                .reshape(-1)
            )
        except (RuntimeError, NotImplementedError):
            gradient = np.full(s.n, np.nan)
    missing = not np.isfinite(back).all()
    figure = (
        abs(float(w @ Jv - v @ gradient)) / (length(Jv) * length(w))
        if missing
        else ratio(back - gradient, back)
    )
    return Check(
        "autograd",
        figure,
        limit if missing else s.rounding + s.loose,
        "autograd's J^T is another one: an inner no_grad or detach, a value read out, a custom"
        " backward. Methods that back-propagate will use another J than this one",
    )


def _transposed(J: JacobianOperator, u: Array) -> Array:
    try:
        return np.asarray(J.T @ u, dtype=np.float64)
    except InputError:  # no derivative that agrees with differences
        return np.full(u.shape, np.nan)

r"""Certificates of eigenpairs: residuals by fresh products, errors, and a verdict.

    |A v - lambda v|    recomputed, and held against rtol |A| or the noise of a product
    error               how far a change of A of that size can move lambda
    verdict             converged, and the error small enough that no eigenvalue is missed

Departures from the textbook, by the numbers in the code:

    [1] residuals come from new products, not from the recurrence
    [2] a residual somewhat above the measured noise is rounding, too, and raises the noise
    [3] errors follow from the pseudospectrum: `condition * residual` holds to first order only
    [4] far from normality a converged Krylov space proves little: the verdict is then negative
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacobian_lab.krylov.krylov_schur import Array, KrylovSchur
from jacobian_lab.krylov.schur import RANKS, schur_values
from jacobian_lab.krylov.sensitivity import sensitivity
from jacobian_lab.krylov.tables import goal_reached, listing

SPREAD = 5.0
"""Residuals up to this many times the measured noise are rounding; beyond it, the operator is
faulty.
"""
REMEDY = "allow n products and no subspace, so that the whole space is taken"
"""What a message advises where a Krylov space cannot tell."""
NORMAL = 3.0
"""Ritz values are trusted up to this ratio of |A| on a space to its largest Ritz value, which is 1
for a normal A, and large far from normality.
"""


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues and eigenvectors of an operator, and how far to trust them."""

    values: NDArray[Any]
    """Shape (k,), the most wanted first; real if `symmetric`. One more than asked for where k would
    cut a conjugate pair.
    """
    vectors: NDArray[Any]
    """Unit columns, shape (n, k)."""
    residuals: Array
    """`|A v - lambda v|`, recomputed with fresh products, shape (k,)."""
    errors: Array
    """Stated bound of each eigenvalue's error, shape (k,): how far a change of A of the size of
    residual plus noise can move it. Rigorous if `symmetric`; else from the pseudospectrum of A on
    the space found and a product with A^T, which tells how that space is coupled to the rest, and
    from the conditions if there are left vectors. If it has not converged, from the space found
    alone: no bound.
    """
    conditions: Array
    """Condition number `1 / |y^T x|` of each eigenvalue, shape (k,): A's own with `left` or if the
    space was exhausted, else an estimate from the space found and its coupling, which is at times
    40 % too low.
    """
    converged: bool
    """Whether all residuals are below the tolerance and nothing that is wanted more was found
    outside.
    """
    tolerance: float
    """What residuals were held against: rtol times the size of A, or its noise if that is more."""
    noise: float
    """Size of the rounding in a product with A: measured, and at least eps sqrt(n) |A| of A's
    dtype, |A| as the space found shows it.
    """
    products: int
    """Products with A and A^T spent on everything."""
    certificate: int
    """Products among them for trust: the noise, the search outside, the residuals, and one with
    A^T.
    """
    message: str
    """Why it stopped."""
    path: str
    """How the products were computed: see `jacobian_lab.krylov.operators.Provenance`."""
    product_error: float
    """Relative error of a product that the check of the operator's maker could not exclude; it is
    not in `errors`.
    """
    left: NDArray[Any] | None = None
    """Unit left eigenvectors y, `y^H A = lambda y^H`, shape (n, k), on request."""

    def __repr__(self) -> str:
        return listing(
            "eigenvalue", self.values, self.errors, self.residuals, self.message, self.products
        )


def certified(search: KrylovSchur, complete: bool) -> tuple[Eigenpairs, bool]:
    """Return the wanted pairs, with residuals by fresh products, in the factorisation's units, and
    whether errors are sound.

    Parameters
    ----------
    search : KrylovSchur
        At its end.
    complete : bool
        Whether it converged.
    """
    values, vectors, residuals = _fresh_pairs(search)
    if complete and search.noise < residuals.max() <= SPREAD * search.noise:
        # [2]
        search.rounding = float(residuals.max()) / search.size
    conditions, errors = np.ones(len(values)), residuals + search.noise
    if not search.symmetric:
        conditions, errors = sensitivity(search, values, errors, complete)  # [3]
    errors = errors + search.doubt
    sound = _is_sound(search, errors)
    converged = complete and sound and bool((residuals <= search.tolerance).all())
    f = search.factorisation
    path, product_error, _ = f.operator.provenance
    result = Eigenpairs(
        values,
        vectors,
        residuals,
        errors,
        conditions,
        converged,
        search.tolerance,
        search.noise,
        f.products,
        1 + f.products - search.found if search.found else 0,
        _message(search, converged, complete, sound, residuals, errors),
        path,
        product_error,
    )
    return result, sound


def _fresh_pairs(search: KrylovSchur) -> tuple[NDArray[Any], NDArray[Any], Array]:
    """Return the wanted eigenvalues, unit eigenvectors, and residuals from new products."""
    if search.symmetric:
        values: NDArray[Any] = np.diag(search.T).copy()
        inner: NDArray[Any] = np.eye(len(values))
    else:
        values, inner = np.linalg.eig(search.T.astype(np.complex128))
        size = search.size or 1.0
        order = np.lexsort((values.imag, -(RANKS[search.which](values) / size).round(14)))
        values, inner = values[order], inner[:, order]
    lengths = np.linalg.norm(search.basis @ inner, axis=0)
    vectors = search.basis @ inner / lengths
    # A v = A Q y for every vector: k real products, complex pairs included
    # [1]
    image = search.factorisation.operator @ search.basis
    return values, vectors, np.linalg.norm(image @ (inner / lengths) - vectors * values, axis=0)


def _is_sound(search: KrylovSchur, errors: Array) -> bool:
    """Return whether the errors are small, and A is nearly normal on the space found [4]; else an
    eigenvalue like the wanted ones may have been missed.
    """
    return (
        search.symmetric
        or search.factorisation.exhausted
        or bool(
            errors.max() <= min(np.sqrt(search.tolerance * search.size), 1e3 * search.tolerance)
            and search.size <= NORMAL * np.abs(schur_values(search.projected)).max(initial=0.0)
        )
    )


def certified_from_both_sides(
    right: Eigenpairs, search: KrylovSchur, complete: bool, transposed: Eigenpairs, settled: bool
) -> Eigenpairs:
    """Return right eigenpairs with the left eigenvectors of the same values, and the verdict of
    both.

    Parameters
    ----------
    right : Eigenpairs
        What `certified` returned of `search`.
    search, complete
        The iteration on A, and whether it converged.
    transposed : Eigenpairs
        Eigenpairs of A^T, in the units of `right`.
    settled : bool
        Whether the iteration on A^T converged.
    """
    order = matched(right.values, transposed.values)
    left = transposed.vectors[:, order].conj()
    with np.errstate(divide="ignore"):
        conditions = np.minimum(
            1 / np.abs((left.conj() * right.vectors).sum(0)), 1 / np.finfo(float).eps
        )
    change = right.residuals + right.noise
    own, _ = sensitivity(search, right.values, change, False)
    wide = change * np.maximum(1, conditions / own)  # by what A's own condition exceeds that of T
    errors = (
        np.maximum(sensitivity(search, right.values, wide, False)[1], conditions * change)
        + search.doubt
    )
    apart = np.abs(transposed.values[order] - right.values) - errors - transposed.errors[order]
    agree = settled and bool(
        (transposed.residuals <= transposed.tolerance).all() and (apart <= 0).all()
    )
    sound = agree and bool(errors.max() <= np.sqrt(right.tolerance * search.size))
    converged = complete and sound and bool((right.residuals <= right.tolerance).all())
    message = (
        _message(search, converged, complete, sound, right.residuals, errors)
        if agree
        else (
            f"the left eigenvectors are not those of the right ones: {REMEDY}, or ask for another k"
        )
    )
    return replace(
        right,
        left=left,
        conditions=conditions,
        errors=errors,
        products=right.products + transposed.products,
        certificate=right.certificate + transposed.certificate,
        message=message,
        converged=converged,
    )


def matched(values: NDArray[Any], others: NDArray[Any]) -> list[int]:
    """Return for each value the nearest of the others that no value before it has taken."""
    free = list(range(len(others)))
    order = []
    for value in values:
        order.append(min(free, key=lambda j: abs(others[j] - value)))
        free.remove(order[-1])
    return order


def rescaled(result: Eigenpairs, unit: float) -> Eigenpairs:
    """Return the result for A in place of A / unit."""
    if unit == 1:
        return result
    return replace(
        result,
        values=result.values * unit,
        residuals=result.residuals * unit,
        errors=result.errors * unit,
        tolerance=result.tolerance * unit,
        noise=result.noise * unit,
    )


def _message(
    search: KrylovSchur,
    converged: bool,
    complete: bool,
    sound: bool,
    residuals: Array,
    errors: Array,
) -> str:
    if converged:
        doubt = (
            ""
            if errors.max() <= 1e3 * search.tolerance or not search.size
            else f"; ill-conditioned: an eigenvalue is known to {errors.max():.1e} only"
        )
        return f"converged to {goal_reached(search.tolerance, search.noise, search.rtol)}{doubt}"
    if complete and sound:
        return (
            f"a residual recomputed is {residuals.max():.1e}, above the tolerance"
            f" {search.tolerance:.1e}: audit the operator"
        )
    if complete:
        return (
            f"not converged: A is far from normal, and an eigenvalue is known to {errors.max():.1e}"
            f" only: {REMEDY}, or ask for left=True"
        )
    if search.which == "LI" and search.found:
        return (
            "not converged: which='LI' asks for the interior of the spectrum, where imaginary"
            " parts may be too small to be told apart, and a Krylov space is certain of them only"
            f" when it is the whole space: {REMEDY}"
        )
    count = int((residuals <= search.tolerance).sum())
    return (
        f"not converged: {count} of {search.k} residuals are below {search.tolerance:.1e}, or the"
        " search outside did not settle: allow more products, or a larger subspace"
    )

r"""How far eigenvalues move when the operator changes: condition numbers, and circles in the
pseudospectrum.

    |lambda(A + E) - lambda(A)| <= |E| / |y^H x| + O(|E|^2)    y, x unit left and right eigenvectors

References
----------
Wilkinson (1965), *The algebraic eigenvalue problem*, chapter 2; Trefethen, Embree (2005), *Spectra
and pseudospectra*, section 52; Stewart (1973), *Error and perturbation bounds for subspaces
associated with certain eigenvalue problems*.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from jacobian_lab import _require
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.krylov_schur import PLAIN, Array, KrylovSchur
from jacobian_lab.krylov.operators import AUDIT
from jacobian_lab.krylov.schur import conditions_of


def sensitivity(
    search: KrylovSchur, values: NDArray[Any], change: Array, complete: bool
) -> tuple[Array, Array]:
    """Return the conditions of the wanted eigenvalues, and how far a change of A of these sizes can
    move each.

    With A in the form `[[T, C], [0, B]]`, T on the wanted space, the left vector of an eigenvalue z
    of T is `(y, u)`, `u^H = y^H C (z I - B)^{-1}`. One product with A^T measures the length of C,
    which the space found shows in part only.

    Parameters
    ----------
    search : KrylovSchur
        At its end.
    values : array, shape (k,)
        The wanted eigenvalues.
    change : array, shape (k,)
        Norm of the change of A, for each of them.
    complete : bool
        Whether the iteration converged; if not, the space outside is left out of account.

    Returns
    -------
    conditions, errors : array, shape (k,)
    """
    f, T, p = search.factorisation, search.projected, len(search.T)
    own, conditions = conditions_of(T)
    apart = np.sort(np.abs(own - values[:, None]))
    found = conditions[np.abs(own - values[:, None]).argmin(1)]
    # where the second order is not below the first
    near = (apart[:, 1] if len(T) > 1 else np.inf) / (len(T) * conditions.max())
    errors, own = np.where(change >= near, 0, 2 * found * change), found
    _reach_far(errors, T, values, own, near, change, search.size)
    if f.exhausted or not complete:
        return found, errors
    inside, conditions = conditions_of(search.T)
    coupling = _coupling(search)
    outside = (
        [np.linalg.svd(z * np.eye(len(T) - p) - T[p:, p:], compute_uv=False)[-1] for z in values]
        if p < len(T)
        else 0.0
    )
    with np.errstate(divide="ignore"):
        length = coupling / np.asarray(outside) if coupling else 0.0
    length = np.minimum(length, 1 / np.finfo(float).eps)
    bound = conditions[np.abs(inside - values[:, None]).argmin(1)] * np.hypot(1, length)
    found = np.maximum(found, np.minimum(bound, 1 / np.finfo(float).eps))
    # how far a threefold defective eigenvalue moves, of which one copy is wanted
    bridged = np.cbrt(change * coupling**2)
    errors = np.maximum(
        errors, np.where(np.asarray(outside) < bridged, 2 * bridged, found * change)
    )
    # the resolvent of A is longer than that of T by what lies outside
    _reach_far(errors, T, values, own, near, change * np.hypot(1, length), search.size)
    return found, np.minimum(errors, 2 * (search.size + change))


def _reach_far(
    errors: Array,
    T: Array,
    values: NDArray[Any],
    conditions: Array,
    near: Any,
    change: Array,
    size: float,
) -> None:
    """Raise the errors to `_reach` where a change, (k,), is not below what is near, (k,)."""
    far = np.flatnonzero(change >= near)
    if len(far):
        R = scipy.linalg.rsf2csf(T, np.eye(len(T)))[0]
        for i in far:
            reach = _reach(R, values[i], change[i], conditions[i], 2 * (size + change[i]))
            errors[i] = max(errors[i], reach)


def _coupling(search: KrylovSchur) -> float:
    """Return the length of C above by a product with A^T, or |A| where A has none; an estimate,
    with room.
    """
    f, p = search.factorisation, len(search.T)
    direction = np.random.default_rng([f.seed, p]).standard_normal(p)
    vector = search.basis @ (direction / np.linalg.norm(direction))
    try:
        image = f.operator.rmatvec(vector)
    except InputError:  # there is no rmatvec
        return search.size
    _require.finite("the product of the transpose", image, AUDIT)
    outside = image - search.basis @ (search.basis.T @ image)
    length = float(np.sqrt(p) * np.linalg.norm(outside))
    return min(3 * length, max(length, search.size))  # the space may not show all of |A|


def _reach(
    R: NDArray[np.complex128], z: complex, change: float, condition: float, largest: float
) -> float:
    """Return a radius around z, up to `largest`, that no eigenvalue inside can leave if the
    triangular R changes by `change`.

    On the circle the smallest singular value of `w I - R` exceeds `change`: the perturbed
    eigenvalues cannot cross it. As far as 16 points on it tell.
    """
    radius = min(2 * min(condition, PLAIN) * change, largest)
    while change and radius < largest:
        circle = z + radius * np.exp(2j * np.pi * np.arange(16) / 16)
        if all(_smallest(R, w) > change for w in circle):
            break
        radius *= 2
    return float(min(radius, largest))


def _smallest(R: NDArray[np.complex128], z: complex) -> float:
    """Return the smallest singular value of `R - z I`, R triangular, by four inverse iterations,
    and less for safety.
    """
    M = R - z * np.eye(len(R))
    x, size = np.exp(1j * np.arange(len(R)) ** 2), 1.0
    for _ in range(4):
        x = x / np.linalg.norm(x)
        for adjoint in (2, 0):
            x, singular = scipy.linalg.lapack.ztrtrs(M, x, trans=adjoint)
            if singular:
                return 0.0
        size = float(np.linalg.norm(x))
        if not 0 < size < np.inf:
            return 0.0
    return 0.7 * float(size**-0.5)

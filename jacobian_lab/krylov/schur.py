r"""Real Schur forms T = Z^T H Z: their eigenvalues, conditions, and their order.

References
----------
Golub, Van Loan (2013), *Matrix computations*, section 7.6; Stewart (2002), *A Krylov-Schur
algorithm for large eigenproblems*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Complex: TypeAlias = NDArray[np.complex128]
Which: TypeAlias = Literal["LM", "LR", "SR", "LI"]
RANKS: dict[str, Callable[[Any], Any]] = {
    "LM": np.abs,
    "LR": np.real,
    "SR": lambda z: -np.real(z),
    "LI": lambda z: abs(z.imag),
}
"""What makes an eigenvalue wanted: the larger, the more."""
MARGIN = 10.0
"""The best Ritz value outside must lie below the wanted ones by this many times its residual. A
safety factor.
"""


def ordered_schur(H: Array, k: int, rank: Callable[[Any], Any]) -> tuple[Array, Array, int]:
    """Return Z, T = Z^T H Z with the most wanted eigenvalues first, and how many are wanted.

    Parameters
    ----------
    H : array, shape (m, m)
    k : int
        Eigenvalues wanted; one more is taken where k would cut a conjugate pair.
    rank : callable
        A function of an array of complex eigenvalues, such as one of `RANKS`.

    Returns
    -------
    Z, T : array, shape (m, m)
        T is quasi-triangular: the wanted eigenvalues, then the better half of the rest.
    count : int
        min(k, m) or one more.
    """
    T, Z = scipy.linalg.schur(H, output="real")
    values = schur_values(T)
    order = np.argsort(-rank(values), kind="stable")
    count, taken = 0, np.zeros(len(values), dtype=np.int32)
    for i in order:  # one after the other to the front: the most wanted first
        if not taken[i]:
            taken[[i, i + (values[i].imag > 0) - (values[i].imag < 0)]] = 1
            count = int(taken.sum())
        if count >= min(k, len(values)):
            break
    T, Z = _reordered(T, Z, taken)
    middle = rank(schur_values(T[count:, count:]))
    rest = np.zeros(len(values), dtype=np.int32)
    rest[:count] = 1
    if len(middle):  # what is kept beyond the wanted: the better half of the rest
        rest[count:] = middle >= np.median(middle)
        T, Z = _reordered(T, Z, rest)
    return Z, T, count


def schur_values(T: Array) -> Complex:
    """Return the eigenvalues of a real Schur form in the order of its diagonal."""
    values = np.diag(T).astype(np.complex128)
    for i in np.flatnonzero(np.diag(T, -1)):
        root = np.sqrt(abs(T[i, i + 1] * T[i + 1, i]))
        values[i], values[i + 1] = T[i, i] + 1j * root, T[i, i] - 1j * root
    return values


def conditions_of(T: Array) -> tuple[Complex, Array]:
    """Return the eigenvalues of T, and their condition numbers `1 / |y^H x|`."""
    values, left, right = scipy.linalg.eig(T, left=True)
    with np.errstate(divide="ignore"):
        conditions = 1 / np.abs((left.conj() * right).sum(0))
    return values, np.asarray(np.minimum(conditions, 1 / np.finfo(float).eps))


def has_settled(
    T: Array, coupling: Array, rank: Callable[[Any], Any], worst: float, tolerance: float
) -> tuple[bool, float]:
    """Return whether Ritz values show that no eigenvalue is better than the worst of the wanted,
    and how far one may be where they agree to the tolerance; else 0.

    Each Ritz value must have converged to the tolerance, or lie below the worst by its residual.
    The best one must lie below it by `MARGIN` times its residual and condition, and by as far as a
    threefold defective eigenvalue moves: near-defective ones look simple for a long time.

    Parameters
    ----------
    T, coupling : array, shapes (m, m) and (b, m)
        The Ritz values outside of the wanted, and how their space is coupled to the rest.
    rank : callable
        As in `ordered_schur`.
    worst : float
        Rank of the worst of the wanted.
    tolerance : float
    """
    if not len(T):
        return False, 0.0
    values, left, vectors = scipy.linalg.eig(T, left=True)
    ranks, residuals = rank(values), np.linalg.norm(coupling @ vectors, axis=0)
    known, top = residuals <= tolerance, int(np.argmax(ranks))
    conditions = 1 / np.maximum(abs((left.conj() * vectors).sum(0)), np.finfo(float).eps)
    rivals = known & (ranks >= worst - 2 * tolerance)
    # one vector shows a mixture of the eigenvectors of values that it cannot tell apart
    doubt = 3 * tolerance * float(conditions[rivals].max()) if rivals.any() else 0.0
    # from normality, squared, by Henrici
    departure = abs(float(np.linalg.norm(T) ** 2 - np.linalg.norm(values) ** 2))
    away = max(MARGIN * conditions[top] * residuals[top], 2 * np.cbrt(residuals[top] * departure))
    settled = (known | (ranks + residuals <= worst)).all() and (
        known[top] or ranks[top] + away <= worst
    )
    return bool(settled), doubt


def whole_pairs(T: Array, p: int) -> int:
    """Return p, or p + 1 where a conjugate pair would be cut."""
    return p + 1 if 0 < p < len(T) and T[p, p - 1] != 0 else p


def _reordered(T: Array, Z: Array, select: NDArray[np.int32]) -> tuple[Array, Array]:
    """Move the selected eigenvalues of a real Schur form to the front."""
    T, Z, *_ = scipy.linalg.lapack.dtrsen(select, T, Z, job="N")
    return T, Z

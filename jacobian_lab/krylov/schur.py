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


def whole_pairs(T: Array, p: int) -> int:
    """Return p, or p + 1 where a conjugate pair would be cut."""
    return p + 1 if 0 < p < len(T) and T[p, p - 1] != 0 else p


def _reordered(T: Array, Z: Array, select: NDArray[np.int32]) -> tuple[Array, Array]:
    """Move the selected eigenvalues of a real Schur form to the front."""
    T, Z, *_ = scipy.linalg.lapack.dtrsen(select, T, Z, job="N")
    return T, Z

r"""Krylov methods for many operators at once: B systems of n unknowns, one batched product a step.

    A_b Q_b = Q_b H_b,   b = 1 ... B;   `apply`: (B, n) -> (B, n), each operator on its own vector

Each system has its own Krylov space and its own coefficients; batching only shares the passes.
Linear algebra only.

References
----------
Saad, Schultz (1986), *GMRES*; Giraud, Langou, Rozloznik (2005): Gram-Schmidt twice is enough.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning, InputError

Array = NDArray[Any]
BatchApply = Callable[[Array], Array]


def arnoldi_batch(apply: BatchApply, start: Array, steps: int) -> tuple[Array, Array]:
    """Take `steps` Arnoldi steps for each system.

    Parameters
    ----------
    apply : callable
        (B, n) -> (B, n), the operator of each system on its own vector.
    start : array, shape (B, n)
        First basis vectors, up to their lengths; a zero vector, or one that is not finite, gives a
        zero basis.
    steps : int
        At most n.

    Returns
    -------
    basis : array, float64, shape (B, steps + 1, n)
        Rows are the basis vectors; zero rows after an invariant space was found.
    hessenberg : array, float64, shape (B, steps + 1, steps)
    """
    *_, found = arnoldi_steps(apply, start, steps)
    return found


def arnoldi_steps(apply: BatchApply, start: Array, steps: int) -> Iterator[tuple[Array, Array]]:
    """Yield the arrays of `arnoldi_batch`, which are the same ones, after each step."""
    start = _vectors(apply, start, "start")
    count, n = start.shape
    steps = _require.integer("steps", steps, 1, n, "n")
    Q, H = np.zeros((count, steps + 1, n)), np.zeros((count, steps + 1, steps))
    Q[:, 0] = _unit(start, np.zeros(count))[0]
    for j in range(steps):
        w = np.asarray(apply(Q[:, j]), dtype=np.float64)
        if w.shape != (count, n):
            raise InputError(
                f"apply returned shape {w.shape} for vectors of shape {(count, n)}: expected the"
                " same"
            )
        size = _lengths(w)
        with np.errstate(invalid="ignore", over="ignore"):  # of a system that is not finite
            for _ in range(2):
                h = np.einsum("bkn,bn->bk", Q[:, : j + 1], w)
                w = w - np.einsum("bkn,bk->bn", Q[:, : j + 1], h)
                H[:, : j + 1, j] += h
        Q[:, j + 1], H[:, j + 1, j] = _unit(w, 1e-12 * size)
        yield Q, H


def gmres_batch(apply: BatchApply, b: Array, steps: int) -> Array:
    """Return the x, (B, n), that minimise `|b - A x|` over Krylov spaces of `steps` products.

    Parameters
    ----------
    apply : callable
        (B, n) -> (B, n), the operator of each system on its own vector.
    b : array, shape (B, n)
        Right-hand sides.
    steps : int
        Products of each system, at least 1; more than n are n.

    Warns
    -----
    ConvergenceWarning
        If a right-hand side or a product is not finite; that system's x is NaN, and the others are
        as without it.
    """
    b, steps = _vectors(apply, b, "b"), _require.integer("steps", steps, 1)
    Q, H = arnoldi_batch(apply, b, min(steps, b.shape[1]))
    x, sizes = np.full_like(b, np.nan), _lengths(b)
    for i in _finite(H, sizes):
        size = sizes[i]
        rhs = np.zeros(H.shape[1])
        rhs[0] = size
        x[i] = np.linalg.lstsq(H[i], rhs, rcond=None)[0] @ Q[i, :-1]
    return x


def ritz_values_batch(apply: BatchApply, start: Array, steps: int) -> Array:
    """Return the eigenvalues of each operator on its Krylov space, complex, shape (B, steps); where
    an invariant space was found before, zeros take the place of the missing ones.

    Parameters
    ----------
    apply : callable
        (B, n) -> (B, n), the operator of each system on its own vector.
    start : array, shape (B, n)
        First basis vectors, up to their lengths.
    steps : int
        1 ... n.
    """
    _, H = arnoldi_batch(apply, start, steps)
    values = np.full((len(H), H.shape[2]), np.nan, dtype=np.complex128)
    finite = _finite(H, _lengths(np.asarray(start, dtype=np.float64)))
    values[finite] = np.linalg.eigvals(H[finite, :-1])
    return values


def _vectors(apply: BatchApply, given: Any, name: str) -> Array:
    """Return a vector for each system, (B, n), finite or not, or raise."""
    _require.function("apply", apply, "(B, n) -> (B, n)")
    vectors = np.asarray(given)
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or not vectors.size:
        raise InputError(f"{name} must be real vectors, shape (B, n): got {_require.shown(given)}")
    return vectors.astype(np.float64)


def _finite(H: Array, sizes: Array) -> Array:
    """Return the numbers of the systems in which all is finite, and warn of the others."""
    finite = np.isfinite(H).all(axis=(1, 2)) & np.isfinite(sizes)
    if not finite.all():
        warnings.warn(
            f"systems {np.flatnonzero(~finite).tolist()} of {len(H)} have values that are not"
            " finite: their results are NaN; look at their vectors and products",
            ConvergenceWarning,
            stacklevel=3,
        )
    return np.flatnonzero(finite)


def _lengths(w: Array) -> Array:
    """Return the length of each vector, whose squares may overflow or underflow."""
    largest = np.abs(w).max(axis=1, initial=0.0)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    return np.asarray(scale * np.linalg.norm(w / scale[:, None], axis=1))


def _unit(w: Array, threshold: Array) -> tuple[Array, Array]:
    """Return the vectors at length 1, and their lengths; both zero for lengths up to the
    threshold.
    """
    size = _lengths(w)
    kept = (size > threshold) & np.isfinite(size)
    return np.where(kept[:, None], w / np.where(kept, size, 1)[:, None], 0.0), np.where(
        size > threshold, size, 0.0
    )

r"""Krylov methods for many operators at once: B systems of n unknowns, one batched product a step.

    A_b Q_b = Q_b H_b,   b = 1 ... B,   `apply`: (B, n) -> (B, n) applies each operator to its own vector

Each system has its own Krylov space and its own coefficients; batching only shares the passes. Linear algebra only.

References
----------
Saad, Schultz (1986), *GMRES*; Giraud, Langou, Rozloznik (2005): Gram-Schmidt twice is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacobian_lab.errors import InputError

Array = NDArray[Any]
BatchApply = Callable[[Array], Array]


def arnoldi_batch(apply: BatchApply, start: Array, steps: int) -> tuple[Array, Array]:
    """Take `steps` Arnoldi steps for each system.

    Parameters
    ----------
    apply : callable
        (B, n) -> (B, n), the operator of each system on its own vector.
    start : array, shape (B, n)
        First basis vectors, up to their lengths; a zero vector gives zero basis and coefficients.
    steps : int
        At most n.

    Returns
    -------
    basis : array, float64, shape (B, steps + 1, n)
        Rows are the basis vectors; zero rows after an invariant space was found.
    hessenberg : array, float64, shape (B, steps + 1, steps)
    """
    start = np.asarray(start, dtype=np.float64)
    count, n = start.shape
    if not 1 <= steps <= n:
        raise InputError(f"steps must lie from 1 to n = {n}: got {steps}")
    Q, H = np.zeros((count, steps + 1, n)), np.zeros((count, steps + 1, steps))
    Q[:, 0] = _unit(start, np.zeros(count))[0]
    for j in range(steps):
        w = np.asarray(apply(Q[:, j]), dtype=np.float64)
        size = np.linalg.norm(w, axis=1)
        for _ in range(2):
            h = np.einsum("bkn,bn->bk", Q[:, :j + 1], w)
            w = w - np.einsum("bkn,bk->bn", Q[:, :j + 1], h)
            H[:, :j + 1, j] += h
        Q[:, j + 1], H[:, j + 1, j] = _unit(w, 1e-12 * size)
    return Q, H


def gmres_batch(apply: BatchApply, b: Array, steps: int) -> Array:
    """Return the x, (B, n), that minimise `|b - A x|` over Krylov spaces of `steps` products; see `arnoldi_batch`."""
    b = np.asarray(b, dtype=np.float64)
    Q, H = arnoldi_batch(apply, b, min(steps, b.shape[1]))
    x = np.zeros_like(b)
    for i, size in enumerate(np.linalg.norm(b, axis=1)):
        rhs = np.zeros(H.shape[1])
        rhs[0] = size
        x[i] = np.linalg.lstsq(H[i], rhs, rcond=None)[0] @ Q[i, :-1]
    return x


def ritz_values_batch(apply: BatchApply, start: Array, steps: int) -> Array:
    """Return the eigenvalues of each operator on its Krylov space, complex, shape (B, steps); see `arnoldi_batch`."""
    _, H = arnoldi_batch(apply, start, steps)
    return np.asarray(np.linalg.eigvals(H[:, :-1]))


def _unit(w: Array, threshold: Array) -> tuple[Array, Array]:
    """Return the vectors at length 1, and their lengths; both zero for lengths up to the threshold."""
    size = np.linalg.norm(w, axis=1)
    kept = size > threshold
    return np.where(kept, 1 / np.where(kept, size, 1), 0)[:, None] * w, np.where(kept, size, 0.0)

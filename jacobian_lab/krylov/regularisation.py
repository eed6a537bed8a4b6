r"""Solutions of `A x = b` for every truncation of the singular values, to choose a rank by.

    truncated_svd(A, b)    norms of solution and residual against rank; the solution of each

Linear algebra only: A is any matrix or `LinearOperator`, made dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from jacobian_lab import _require
from jacobian_lab.krylov.least_squares import as_matrix, check_rcond, in_units, right_hand_side
from jacobian_lab.krylov.operators import Matrix

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class TruncatedSVD:
    r"""Minimum-norm solutions `x_k = sum_{i <= k} (u_i^T b / s_i) v_i` for every rank k = 0 ...
    min(shape).

    A plot of `solution_norms` against `residual_norms` is the L-curve; `coefficients` falling
    slower than `singular_values` (Picard's condition) marks the rank at which noise takes over.

    References
    ----------
    Hansen (1998), *Rank-deficient and discrete ill-posed problems*, sections 3.2 and 4.5.
    """

    singular_values: Array
    """Shape (r,), falling, r = min(rows, columns)."""
    coefficients: Array
    """`u_i^T b`, shape (r,)."""
    right_vectors: Array
    """Rows v_i^T, shape (r, columns)."""
    solution_norms: Array
    """`|x_k|`, shape (r + 1,)."""
    residual_norms: Array
    """`|b - A x_k|`, shape (r + 1,)."""

    def rank(self, rcond: float) -> int:
        """Return how many singular values exceed `rcond` times the largest."""
        rcond = check_rcond(rcond)
        return int((self.singular_values > rcond * self.singular_values[0]).sum())

    def solution(self, rank: int) -> Array:
        """Return `x_k` for k = rank, shape (columns,)."""
        most = int((self.singular_values > 0).sum())
        rank = _require.integer("rank", rank, 0, most)
        x: Array = (self.coefficients[:rank] / self.singular_values[:rank]) @ self.right_vectors[
            :rank
        ]
        return x


def truncated_svd(A: Matrix, b: ArrayLike) -> TruncatedSVD:
    """Return the solutions of all ranks; parameters as in
    `jacobian_lab.krylov.least_squares.lstsq`.
    """
    vector = right_hand_side(b, A)
    (matrix, unit), (rhs, size) = in_units(as_matrix(A)), in_units(vector)
    u, s, vt = scipy.linalg.svd(matrix, full_matrices=False)
    coefficients = u.T @ rhs
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = np.where(s > 0, np.abs(coefficients / s), np.inf)
    outside = float(np.linalg.norm(rhs - u @ coefficients))
    # summed from the small end: no cancellation
    left = np.hypot.accumulate(np.r_[outside, np.abs(coefficients[::-1])])[::-1]
    return TruncatedSVD(
        s * unit,
        coefficients * size,
        vt,
        np.hypot.accumulate(np.r_[0.0, steps]) * (size / unit),
        left * size,
    )

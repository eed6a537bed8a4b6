r"""Solve `A x = b` in the least-squares sense, as an exact Newton step does with J.

    lstsq           dense, minimum norm, singular values below rcond * the largest cut off
    lsmr            matrix-free, products with A and A^T, optional damping
    gmres           matrix-free, products with A only: k steps of Jacobian-free Newton-Krylov

Linear algebra only: A is any matrix or `LinearOperator`. All computations are in float64 even over
a float32 operator, and every residual is recomputed from the solution.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import ArrayLike, NDArray

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.krylov.conversion import real_operator
from jacobian_lab.krylov.counting import Counted
from jacobian_lab.krylov.operators import Matrix

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """A least-squares solution, and what it took."""

    x: Array
    """The solution, shape (columns,)."""
    residual: float
    """`|b - A x| / |b|`, recomputed."""
    products: int
    """Products with A and A^T spent, the recomputation included; for a dense solve those that made
    the matrix.
    """
    converged: bool
    """Whether the tolerance was reached."""
    message: str
    """Why the solver stopped."""
    rank: int | None = None
    """Singular values kept, for a dense solve."""

    def __repr__(self) -> str:
        rank = "" if self.rank is None else f", rank {self.rank}"
        return (
            f"Solution: |b - A x| / |b| = {self.residual:.2e}{rank}; {self.message}"
            f" ({self.products} products)"
        )


def lstsq(A: Matrix, b: ArrayLike, rcond: float | None = None) -> Solution:
    """Solve by LAPACK's gelsd on the dense matrix: minimum norm among the least-squares solutions.

    Parameters
    ----------
    A : LinearOperator or array, shape (rows, columns)
    b : array, shape (rows,)
    rcond : float, optional
        Singular values up to `rcond` times the largest count as zero. By default the rounding of
        A's dtype times its larger dimension: what a float32 operator calls zero is noise, however
        precisely it is stored.
    """
    A, b = real_operator(A), right_hand_side(b, A)
    rcond = (
        float(np.finfo(_precision(A)).eps) * max(A.shape) if rcond is None else check_rcond(rcond)
    )
    (matrix, unit), (rhs, size) = in_units(as_matrix(A)), in_units(b)
    x, _, rank, _ = scipy.linalg.lstsq(matrix, rhs, cond=rcond, lapack_driver="gelsd")
    return Solution(
        x * (size / unit),
        _residual(matrix @ x, rhs),
        _dense_cost(A),
        True,
        f"dense least squares, rank {rank} of {min(matrix.shape)} at rcond {rcond:.3g}",
        int(rank),
    )


def lsmr(
    A: Matrix, b: ArrayLike, damp: float = 0.0, rtol: float = 1e-6, steps: int | None = None
) -> Solution:
    """Minimise `|A x - b|^2 + damp^2 |x|^2` by SciPy's LSMR: two products a step.

    Parameters
    ----------
    A, b
        As in `lstsq`.
    damp : float
        Tikhonov damping; directions with singular values well below it are left alone.
    rtol : float
        Relative tolerance on the residual and on the normal equations' residual.
    steps : int, optional
        Most steps; by default 4 min(rows, columns), since rounding delays what exact arithmetic
        ends after min(...).

    Warns
    -----
    ConvergenceWarning
        If the tolerance was not reached; the partial result is returned.
    """
    operator = Counted(A, scaled=True)
    rhs, size = in_units(right_hand_side(b, A))
    if steps is not None:
        steps = _require.integer("steps", steps, 1)
    damp, rtol = _require.real("damp", damp, "[0, inf)"), _require.real("rtol", rtol, "(0, 1)")
    if damp and rhs.any():
        operator.rmatvec(rhs)  # which tells the unit
    x, stop, taken, *_ = scipy.sparse.linalg.lsmr(
        operator,
        rhs,
        damp=damp / operator.unit,
        atol=rtol,
        btol=rtol,
        maxiter=steps or 4 * min(operator.shape),
    )
    reasons = {
        0: "x = 0 is the solution",
        1: f"residual below rtol {rtol:.1e}",
        2: f"least-squares residual below rtol {rtol:.1e}",
        3: "the condition number exceeds 1e8: damp it, or take fewer steps",
        4: "residual at machine precision",
        5: "least-squares residual at machine precision",
        6: "the condition number exceeds machine precision",
        7: f"not converged after {taken} steps: allow more steps, a larger rtol, or damp > 0",
    }
    return _finish(
        operator, x, rhs, size, stop in (0, 1, 2, 4, 5), f"LSMR, {taken} steps: {reasons[stop]}"
    )


def gmres(A: Matrix, b: ArrayLike, steps: int = 10, rtol: float | None = None) -> Solution:
    """Minimise `|A x - b|` over the Krylov space span(b, A b, ..., A^{k-1} b) by SciPy's GMRES: one
    product a step.

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
    b : array, shape (n,)
    steps : int
        Most steps k, without restart.
    rtol : float, optional
        Relative residual to reach. None asks for a fixed number of steps, and having taken them is
        success.

    Warns
    -----
    ConvergenceWarning
        If `rtol` was given and not reached; the partial result is returned.
    """
    operator = Counted(A, scaled=True)
    if operator.shape[0] != operator.shape[1]:
        raise InputError(
            f"GMRES needs a square operator: got {operator.shape[0]} x {operator.shape[1]}; take"
            " lsmr"
        )
    steps = _require.integer("steps", steps, 1)
    if rtol is not None:
        rtol = _require.real("rtol", rtol, "(0, 1)")
    rhs, size = in_units(right_hand_side(b, A))
    norms: list[float] = []  # one for each step
    x, stop = scipy.sparse.linalg.gmres(
        operator,
        rhs,
        rtol=rtol or 0.0,
        atol=0.0,
        restart=min(steps, len(rhs)),
        maxiter=1,
        callback=norms.append,
        callback_type="pr_norm",
    )
    converged, message = _gmres_ending(operator, x, rhs, len(norms), steps, rtol, stop == 0)
    return _finish(operator, x, rhs, size, converged, message)


def _gmres_ending(
    operator: Counted, x: Array, rhs: Array, taken: int, steps: int, rtol: float | None, met: bool
) -> tuple[bool, str]:
    """Return whether GMRES converged, and why it ended: SciPy tells only whether `rtol` was met."""
    if met:
        return True, f"GMRES, {taken} steps: residual below rtol {rtol or 0.0:.1e}"
    if taken == min(steps, len(rhs)):
        return (
            (True, f"GMRES, {taken} steps as asked")
            if rtol is None
            else (
                False,
                f"GMRES: not converged to rtol {rtol:.1e} after {taken} steps: allow more, "
                "or take lsmr if A is near singular",
            )
        )
    if _residual(operator @ x, rhs) <= 10 * np.sqrt(len(rhs)) * np.finfo(np.float64).eps:
        return True, f"GMRES, {taken} steps: the Krylov space contains the solution"
    return (
        False,
        f"GMRES: the Krylov space is exhausted after {taken} of {steps} steps: "
        "A is singular on it; take lsmr",
    )


def as_matrix(A: Matrix) -> Array:
    """Return A as a dense float64 array: by its own `dense()` if it has one, else from 64 unit
    vectors at a time.
    """
    operator = real_operator(A)
    if isinstance(A, np.ndarray):
        return A.astype(np.float64, copy=False)
    if hasattr(A, "dense"):
        return np.asarray(A.dense(), dtype=np.float64)
    n = A.shape[1]
    chunks = [operator @ np.eye(n, min(64, n - start), -start) for start in range(0, n, 64)]
    return np.concatenate(chunks, axis=1, dtype=np.float64)


def _dense_cost(A: Matrix) -> int:
    """Return how many products made the matrix: none, a row each where A has a `dense()` of its
    own, or a column each.
    """
    return 0 if isinstance(A, np.ndarray) else int(A.shape[1])


def in_units(x: Array) -> tuple[Array, float]:
    """Return x divided by a power of two near its largest entry, and that; x itself where squares
    are harmless, and 1.
    """
    largest = float(np.abs(x).max(initial=0.0))
    unit = (
        1.0 if not largest or 1e-75 < largest < 1e75 else float(2.0 ** np.floor(np.log2(largest)))
    )
    return (x if unit == 1 else x / unit), unit


def _finish(
    operator: Counted, x: Array, rhs: Array, size: float, converged: bool, message: str
) -> Solution:
    """Return the solution of the system whose operator and right-hand side are in units, the latter
    of `size`.
    """
    residual = _residual(operator @ x, rhs)
    if not converged:
        warnings.warn(
            f"{message}; relative residual {residual:.2e}", ConvergenceWarning, stacklevel=3
        )
    return Solution(x * (size / operator.unit), residual, operator.products, converged, message)


def _residual(product: Array, rhs: Array) -> float:
    size = float(np.linalg.norm(rhs))
    return float(np.linalg.norm(rhs - product)) / size if size else float(np.linalg.norm(product))


def right_hand_side(b: ArrayLike, A: Matrix) -> Array:
    """Return b as a float64 vector of as many entries as A has rows, or raise."""
    return _require.array("the right-hand side", b, (real_operator(A).shape[0],))


def check_rcond(rcond: float) -> float:
    """Return rcond, or raise unless it can be one."""
    return _require.real("rcond, relative to the largest singular value,", rcond, "[0, 1)")


def _precision(A: Matrix) -> np.dtype[Any]:
    dtype = np.dtype(A.dtype)
    return dtype if dtype.kind == "f" else np.dtype(np.float64)

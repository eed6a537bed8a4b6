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
from typing import TypeAlias

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import ArrayLike, DTypeLike, NDArray

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.krylov.conversion import provenance, real_operator
from jacobian_lab.krylov.counting import Counted
from jacobian_lab.krylov.many_systems import arnoldi_steps
from jacobian_lab.krylov.operators import AUDIT, Matrix

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
    operator, b = real_operator(A), right_hand_side(b, A)
    eps = float(np.finfo(operator.dtype).eps)
    rcond = eps * max(operator.shape) if rcond is None else check_rcond(rcond)
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
        Tolerance on the residual, relative to `|b| + |A| |x|` (what a relative change of A and b by
        so much explains), and on the normal equations' residual; the message says which was met.
    steps : int, optional
        Most steps; by default 4 min(rows, columns), since rounding delays what exact arithmetic
        ends after min(...).

    Warns
    -----
    ConvergenceWarning
        If the tolerance was not reached; the partial result is returned.
    """
    operator = Counted(A, scaled=True)
    rhs, size = in_units(right_hand_side(b, A), operator.operator.dtype)
    if steps is not None:
        steps = _require.integer("steps", steps, 1)
    damp, rtol = _require.real("damp", damp, "[0, inf)"), _require.real("rtol", rtol, "(0, 1)")
    if damp and rhs.any():
        operator.rmatvec(rhs)  # which tells the unit
    x, stop, taken, _, _, largest, _, length = scipy.sparse.linalg.lsmr(
        operator,
        rhs,
        damp=damp / operator.unit,
        atol=rtol,
        btol=rtol,
        maxiter=steps or 4 * min(operator.shape),
    )
    product = operator @ x
    reasons = {
        3: "the condition number exceeds 1e8: damp it, or take fewer steps",
        6: "the condition number exceeds machine precision",
        7: f"not converged after {taken} steps: allow more steps, a larger rtol, or damp > 0",
    }
    converged, why = (
        (False, reasons[stop])
        if stop in reasons
        else _lsmr_ending(operator, x, product, rhs, damp / operator.unit, rtol, largest * length)
    )
    return _finish(operator, x, product, rhs, size, converged, f"LSMR, {taken} steps: {why}")


def _lsmr_ending(
    operator: Counted,
    x: Array,
    product: Array,
    rhs: Array,
    damp: float,
    rtol: float,
    reach: float,
) -> tuple[bool, str]:
    """Return whether a tolerance was reached, and which, by `b - A x` itself: what LSMR takes for
    it goes on falling where the products' rounding does not let it. `reach` is `|A| |x|`.
    """
    if not x.any():
        return True, "x = 0 is the solution"
    r, whole, length = rhs - product, float(np.linalg.norm(rhs)), float(np.linalg.norm(x))
    size = float(np.hypot(np.linalg.norm(r), damp * length))
    rtol = max(rtol, 10 * np.sqrt(len(r)) * float(np.finfo(np.float64).eps))
    if size <= rtol * whole:
        return True, f"residual below rtol {rtol:.1e}"
    if size <= 2 * rtol * (whole + reach):
        return True, f"residual below rtol {rtol:.1e} of |b| + |A| |x|"
    if np.linalg.norm(operator.rmatvec(r) - damp**2 * x) <= 2 * rtol * reach / length * size:
        return True, f"least-squares residual below rtol {rtol:.1e}"
    return False, f"rounding of the products leaves more than rtol {rtol:.1e}: take a larger one"


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
    rhs, size = in_units(right_hand_side(b, A), operator.operator.dtype)
    whole, taken, met = float(np.linalg.norm(rhs)), 0, False
    for Q, H in arnoldi_steps(lambda V: (operator @ V[0])[None], rhs[None], min(steps, len(rhs))):
        taken += 1
        _require.finite("a product of the operator", H, AUDIT)
        inner, left = _minimiser(H[0, : taken + 1, :taken], whole)
        x = np.asarray(inner @ Q[0, :taken], dtype=np.float64)
        met = rtol is not None and left <= 0.99 * rtol * whole
        if met or not H[0, taken, taken - 1]:
            break
    product = operator @ x
    residual, half = _residual(product, rhs), float(np.sqrt(operator.rounding))
    converged, message = _gmres_ending(residual, half, len(rhs), taken, steps, rtol, met)
    return _finish(operator, x, product, rhs, size, converged, message)


def _minimiser(H: Array, whole: float) -> tuple[Array, float]:
    """Return the c that minimises `|whole e_1 - H c|`, the smallest one, and that minimum."""
    first = whole * np.eye(1, len(H))[0]
    c = np.asarray(np.linalg.lstsq(H, first)[0], dtype=np.float64)
    return c, float(np.linalg.norm(first - H @ c))


def _gmres_ending(
    residual: float, half: float, n: int, taken: int, steps: int, rtol: float | None, met: bool
) -> tuple[bool, str]:
    """Return whether GMRES converged, and why it ended, by the residual itself: above `half`, half
    of the products' digits, the whole space says that A is singular.
    """
    least = 10 * np.sqrt(n) * float(np.finfo(np.float64).eps)
    rtol = None if rtol is None else max(rtol, least)
    if rtol is not None and residual <= rtol:
        return True, f"GMRES, {taken} steps: residual below rtol {rtol:.1e}"
    if met:
        return (
            False,
            f"GMRES, {taken} steps: rounding of the products leaves more than rtol {rtol:.1e}: take"
            " a larger one",
        )
    if taken == steps or (taken == n and (rtol is not None or residual <= half)):
        return (
            (True, f"GMRES, {taken} steps as asked")
            if rtol is None
            else (
                False,
                f"GMRES: not converged to rtol {rtol:.1e} after {taken} steps: allow more, "
                "or take lsmr if A is near singular",
            )
        )
    if residual <= least:
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
    n = A.shape[1]
    if hasattr(A, "dense"):
        found = np.asarray(A.dense(), dtype=np.float64)
    else:
        chunks = [operator @ np.eye(n, min(64, n - start), -start) for start in range(0, n, 64)]
        found = np.concatenate(chunks, axis=1, dtype=np.float64)
    _require.finite("a product of the operator", found, AUDIT)
    return found


def _dense_cost(A: Matrix) -> int:
    """Return how many products made the matrix: none, or a column each; where rows are fewer, a
    `dense()` of A's own takes those, but not by differences, which have no A^T.
    """
    by_rows = hasattr(A, "dense") and not provenance(A).path.endswith("difference")
    return 0 if isinstance(A, np.ndarray) else min(A.shape) if by_rows else int(A.shape[1])


def in_units(x: Array, dtype: DTypeLike = np.float64) -> tuple[Array, float]:
    """Return x divided by a power of two near its largest entry, and that; x itself where squares
    are harmless in the dtype, and 1.
    """
    largest, ordinary = float(np.abs(x).max(initial=0.0)), float(np.finfo(dtype).max) ** 0.24
    harmless = not largest or 1 / ordinary < largest < ordinary
    unit = 1.0 if harmless else float(2.0 ** np.floor(np.log2(largest)))
    return (x if unit == 1 else x / unit), unit


def _finish(
    operator: Counted,
    x: Array,
    product: Array,
    rhs: Array,
    size: float,
    converged: bool,
    message: str,
) -> Solution:
    """Return the solution x, with the product A x, of the system whose operator and right-hand side
    are in units, the latter of `size`.
    """
    _require.finite("a product of the operator", product, AUDIT)
    residual = _residual(product, rhs)
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

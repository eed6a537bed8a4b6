r"""Eigenpairs and singular triplets with certificates: Krylov-Schur iterations, and what their result is worth.

    eigenpairs         A v = lambda v
    singular_values    A v = s u,  A^T u = s v

Every residual is recomputed with fresh products. The tolerance is never below the operator's noise, which is measured. The
stated error of each eigenvalue takes its conditioning into account, and what lies outside the space found is searched.
Linear algebra only: A is any real matrix or `LinearOperator`.

>>> import numpy as np
>>> result = eigenpairs(np.diag([3.0, 3.0, 1.0, 0.5, 0.2]), k=2)
>>> result.values.real.round(6).tolist(), bool(result.converged)
([3.0, 3.0], True)

References
----------
Trefethen, Embree (2005), *Spectra and pseudospectra*; Saad (2011), *Numerical methods for large eigenvalue problems*.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab.arnoldi import Arnoldi
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.krylov_schur import RANKS, Array, KrylovSchur, Which, conditions_of
from jacobian_lab.operators import Counted, Operator, square


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues and eigenvectors of an operator, and how far to trust them."""

    values: NDArray[Any]
    """Shape (k,), the most wanted first; real if `symmetric`. One more than asked for where k would cut a conjugate pair."""
    vectors: NDArray[Any]
    """Unit columns, shape (n, k)."""
    residuals: Array
    """`|A v - lambda v|`, recomputed with fresh products, shape (k,)."""
    errors: Array
    """Stated bound of each eigenvalue's error, shape (k,): how far a change of A of the size of residual plus noise can move
    it. Rigorous if `symmetric`; else from the projected operator's pseudospectrum, or the condition if `left` was asked for."""
    conditions: Array
    """Condition number `1 / |y^T x|` of each eigenvalue, shape (k,): of the projected operator, or A's own with `left`."""
    converged: bool
    """Whether all residuals are below the tolerance and nothing that is wanted more was found outside."""
    tolerance: float
    """What residuals were held against: rtol times the size of A, or its noise if that is more."""
    noise: float
    """Size of the rounding in a product with A: measured, and at least eps sqrt(n) |A| of A's dtype."""
    products: int
    """Products with A and A^T spent on everything."""
    certificate: int
    """Of these, for trust: the noise, the search outside, and the residuals recomputed."""
    message: str
    """Why it stopped."""
    left: NDArray[Any] | None = None
    """Unit left eigenvectors y, `y^H A = lambda y^H`, shape (n, k), on request."""


def eigenpairs(A: LinearOperator | NDArray[Any], k: int = 6, which: Which = "LM", *, symmetric: bool = False,
               rtol: float = 1e-9, subspace: int | None = None, max_products: int | None = None,
               start: ArrayLike | None = None, seed: int = 0, left: bool = False) -> Eigenpairs:
    """Return the k most wanted eigenpairs of a real operator by Krylov-Schur iterations.

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
    k : int
        How many, 1 ... n.
    which : {"LM", "LR", "SR", "LI"}
        Largest modulus, largest real part, smallest real part, largest imaginary part in modulus.
    symmetric : bool
        Promise that A is symmetric: real eigenvalues, orthogonal vectors, rigorous errors.
    rtol : float
        Residual to reach, relative to |A| (the 2-norm of A on the Krylov space).
    subspace : int, optional
        Largest Krylov space m; n x (m + 1) float64 numbers are stored. By default `3 k + 20`.
    max_products : int, optional
        Stop after so many; by default `10 n + 200`.
    start, seed
        As in `jacobian_lab.arnoldi.Arnoldi`.
    left : bool
        Also compute left eigenvectors, by the same iteration on A^T, and condition numbers from them.

    Warns
    -----
    ConvergenceWarning
        If it stopped before; the partial result is returned.

    Raises
    ------
    InputError
        If an argument is out of its range, or a product is not finite.
    """
    operator = square(A)
    n = operator.shape[0]
    _check(k, n, which, symmetric, rtol)
    size = min(n, subspace or 3 * k + 20)
    if size < min(n, k + 4):  # a conjugate pair at the cut, and another one kept beyond it, must leave room for a step
        raise InputError(f"subspace must be at least k + 4 = {k + 4}: got {subspace}")
    search = KrylovSchur(Arnoldi(operator, start, seed), k, which, symmetric, rtol)
    complete = search.run(size, 10 * n + 200 if max_products is None else max_products)
    result = _certified(search, operator, complete)
    if left:
        result = _with_left(result, operator, which, symmetric, rtol, subspace, max_products, seed)
    if not result.converged:
        warnings.warn(result.message, ConvergenceWarning, stacklevel=2)
    return result


@dataclass(frozen=True)
class SingularValues:
    """The largest singular values of an operator with their vectors, and how far to trust them."""

    values: Array
    """Shape (k,), falling."""
    left: Array
    """Orthonormal columns u, shape (rows, k): `A v = s u`."""
    right: Array
    """Orthonormal columns v, shape (columns, k): `A^T u = s v`."""
    residuals: Array
    """`max(|A v - s u|, |A^T u - s v|)`, recomputed with fresh products, shape (k,)."""
    errors: Array
    """Rigorous bound of each value's distance to a singular value, shape (k,): residual plus noise."""
    converged: bool
    """Whether all residuals are below the tolerance and nothing larger was found outside."""
    tolerance: float
    """What residuals were held against: rtol times |A|, or the noise if that is more."""
    noise: float
    """Size of the rounding in a product with A."""
    products: int
    """Products with A and A^T spent on everything."""
    message: str
    """Why it stopped."""


def singular_values(A: LinearOperator | NDArray[Any], k: int = 6, *, rtol: float = 1e-9, subspace: int | None = None,
                    max_products: int | None = None, seed: int = 0) -> SingularValues:
    """Return the k largest singular values of a real operator: `eigenpairs` of A^T A, then the decomposition of A V.

    The values come from A V, where V spans the vectors found, and the residuals are A's own: the square costs no digits of
    large values. Values below some 1e-6 of the largest (float64; 1e-2 in float32) may end unconverged.

    Parameters
    ----------
    A : LinearOperator or array, shape (rows, columns)
    k : int
        How many, 1 ... min(rows, columns).
    rtol : float
        Residual to reach, relative to |A|.
    subspace, max_products, seed
        As in `eigenpairs`; products count both A and A^T.

    Warns
    -----
    ConvergenceWarning
        If it stopped before; the partial result is returned.
    """
    counted = Counted(A)
    n = counted.shape[1]
    if not 1 <= k <= min(counted.shape):
        raise InputError(f"k must lie from 1 to min(rows, columns) = {min(counted.shape)}: got {k}")
    transpose, own = counted.T, np.dtype(counted.operator.dtype)
    own = own if own.kind == "f" else np.dtype(np.float64)
    eps = float(np.finfo(own).eps)
    gram = Operator((n, n), own, lambda V: transpose @ (counted @ V), lambda V: transpose @ (counted @ V))
    goal, start = rtol / 10, None
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said below, of A
            found = eigenpairs(gram, k, "LR", symmetric=True, rtol=goal, subspace=subspace, start=start, seed=seed,
                               max_products=None if max_products is None else (max_products - counted.products) // 2)
        U, s, W = np.linalg.svd(counted @ found.vectors, full_matrices=False)
        V = found.vectors @ W.T
        residuals = np.maximum(np.linalg.norm(counted @ V - U * s, axis=0), np.linalg.norm(transpose @ U - V * s, axis=0))
        noise = float(max(eps * np.sqrt(max(counted.shape)), found.noise / s[0] ** 2 if s[0] else 0.0) * s[0])
        tolerance = max(rtol * float(s[0]), noise)
        worst, spent = float(residuals.max()), counted.products
        if worst <= tolerance or goal <= eps or not found.converged or (max_products is not None and spent >= max_products):
            break
        goal, start = max(goal * tolerance / worst / 2, eps), V.sum(1)  # small values: the square needs more digits than A
    converged = found.converged and worst <= tolerance
    message = f"converged to {_goal(tolerance, noise, rtol)}" if converged else (
        f"not converged: {int((residuals <= tolerance).sum())} of {k} residuals are below {tolerance:.1e}; allow more "
        "products, or ask for fewer values")
    if not converged:
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
    return SingularValues(s, U, V, residuals, residuals + noise, converged, tolerance, noise, spent, message)


SPREAD = 5.0
"""How much more a product may be rounded than the one on which the noise was measured; beyond it, something is wrong."""


def _certified(search: KrylovSchur, operator: LinearOperator, complete: bool) -> Eigenpairs:
    """Return the wanted pairs with residuals by fresh products."""
    f = search.factorisation
    if search.symmetric:
        values: NDArray[Any] = np.diag(search.T).copy()
        inner: NDArray[Any] = np.eye(len(values))
    else:
        values, inner = np.linalg.eig(search.T.astype(np.complex128))
        order = np.lexsort((values.imag, -RANKS[search.which](values).round(14)))
        values, inner = values[order], inner[:, order]
    vectors = search.basis @ inner
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    counted = Counted(operator)
    image = counted @ search.basis  # A v = A Q y for every vector: k real products, complex pairs included
    residuals = np.linalg.norm(image @ (inner / np.linalg.norm(search.basis @ inner, axis=0)) - vectors * values, axis=0)
    if complete and search.noise < residuals.max() <= SPREAD * search.noise:
        search.rounding = float(residuals.max()) / search.size  # the recurrence says less: this is rounding, too
    change = residuals + search.noise
    conditions, errors = np.ones(len(values)), change
    if not search.symmetric:
        conditions = conditions_of(search.projected, values)
        errors = np.array([_reach(search.projected, z, d, c) for z, d, c in zip(values, change, conditions, strict=True)])
    products = f.products + counted.products
    determined = f.exhausted or errors.max() <= np.sqrt(search.tolerance * search.size)
    if search.which == "LI" and not f.exhausted:  # small imaginary parts hide among the real eigenvalues
        determined = determined and bool(abs(values.imag).min() >= 1e-3 * search.size)
    converged = complete and bool(determined and (residuals <= search.tolerance).all())
    message = _message(converged, complete and bool(determined), residuals, search.tolerance, search.noise, search.rtol, errors,
                       search.size)
    return Eigenpairs(values, vectors, residuals, errors, conditions, converged, search.tolerance, search.noise, products,
                      products - search.found + 1 if search.found else 0, message)


def _reach(T: Array, z: complex, change: float, condition: float) -> float:
    """Return a radius around z that no eigenvalue inside can leave under a perturbation of T of norm `change`.

    On the circle the smallest singular value of `w I - T` exceeds `change`: the perturbed eigenvalues cannot cross it. As
    far as 16 points on it tell.
    """
    radius = 2 * condition * change
    angles = np.exp(2j * np.pi * np.arange(16) / 16)
    largest = 2 * (float(np.linalg.norm(T, 2)) + change)
    radius = min(radius, largest)
    while change and radius < largest:
        circle = z + radius * angles
        smallest = np.linalg.svd(circle[:, None, None] * np.eye(len(T)) - T, compute_uv=False)[:, -1].min()
        if smallest > change:
            break
        radius *= 2
    return float(min(radius, largest))


def _with_left(result: Eigenpairs, A: LinearOperator, which: Which, symmetric: bool, rtol: float,
               subspace: int | None, max_products: int | None, seed: int) -> Eigenpairs:
    """Add left eigenvectors, from the same iteration on A^T, matched by eigenvalue."""
    if symmetric:
        return replace(result, left=result.vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the message of both
        other = eigenpairs(A.T, len(result.values), which, rtol=rtol, subspace=subspace, max_products=max_products,
                           seed=seed + 1)
    columns, apart = [], 0.0
    free = list(range(len(other.values)))
    for value, error in zip(result.values, result.errors, strict=True):
        best = min(free, key=lambda j: abs(other.values[j] - value))
        free.remove(best)
        columns.append(other.vectors[:, best].conj())
        apart = max(apart, abs(other.values[best] - value) - error - other.errors[best])
    left = np.stack(columns, axis=1)
    with np.errstate(divide="ignore"):
        conditions = np.minimum(1 / np.abs((left.conj() * result.vectors).sum(0)), 1 / np.finfo(float).eps)
    errors = np.maximum(result.errors, conditions * (result.residuals + result.noise))
    message = result.message
    if result.converged and (apart > 0 or not other.converged):
        message = f"the left eigenvectors are not those of the right ones: of A^T, {other.message}; ask for another k"
    return replace(result, left=left, conditions=conditions, errors=errors, products=result.products + other.products,
                   certificate=result.certificate + other.certificate, message=message,
                   converged=result.converged and other.converged and apart <= 0)


def _message(converged: bool, complete: bool, residuals: Array, tolerance: float, noise: float, rtol: float, errors: Array,
             size: float) -> str:
    if not converged and complete:
        return f"a residual recomputed is {residuals.max():.1e}, above the tolerance {tolerance:.1e}: audit the operator"
    if not converged:
        count = int((residuals <= tolerance).sum())
        return (f"not converged: {count} of {len(residuals)} residuals are below {tolerance:.1e}; or the search outside did "
                f"not end, a value is known to {errors.max():.1e} only, or (LI) imaginary parts are too small to be told "
                "apart: allow more products, or a larger subspace")
    doubt = ("" if errors.max() <= 1e3 * tolerance or not size else
             f"; ill-conditioned: an eigenvalue is known to {errors.max():.1e} only")
    return f"converged to {_goal(tolerance, noise, rtol)}{doubt}"


def _goal(tolerance: float, noise: float, rtol: float) -> str:
    return f"the operator's noise floor {noise:.1e}" if tolerance <= noise else f"rtol {rtol:.1e}"


def _check(k: int, n: int, which: str, symmetric: bool, rtol: float) -> None:
    if not 1 <= k <= n:
        raise InputError(f"k must lie from 1 to n = {n}: got {k}")
    if which not in get_args(Which):
        raise InputError(f"unknown which {which!r}: expected one of {', '.join(get_args(Which))}")
    if symmetric and which == "LI":
        raise InputError("the eigenvalues of a symmetric operator are real: which='LI' asks for imaginary parts")
    if not 0 < rtol < 1:
        raise InputError(f"rtol must lie in (0, 1): got {rtol}")

r"""Eigenpairs with certificates: restarted Krylov-Schur iterations, and what their result is worth.

    A Q_m = Q_m T + q_{m+1} b^T    ->   keep the wanted part of the Schur form T, extend, repeat

Every residual is recomputed with fresh products. The tolerance is never below the operator's noise, which is measured. The
stated error of each eigenvalue takes its conditioning into account. And after convergence the search goes on from a random
vector outside the space found, so that no copy of a repeated eigenvalue, and nothing that the start vector was blind to, is
missed. Linear algebra only: A is any real matrix or `LinearOperator`.

>>> import numpy as np
>>> result = eigenpairs(np.diag([3.0, 3.0, 1.0, 0.5, 0.2]), k=2)
>>> result.values.real.round(6).tolist(), bool(result.converged)
([3.0, 3.0], True)

References
----------
Stewart (2002), *A Krylov-Schur algorithm for large eigenproblems*; Trefethen, Embree (2005), *Spectra and pseudospectra*;
Saad (2011), *Numerical methods for large eigenvalue problems*.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab.arnoldi import Arnoldi
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.operators import Counted, square

Array: TypeAlias = NDArray[np.float64]
Complex: TypeAlias = NDArray[np.complex128]
Which: TypeAlias = Literal["LM", "LR", "SR", "LI"]
RANKS: dict[str, Callable[[Any], Any]] = {"LM": np.abs, "LR": np.real, "SR": lambda z: -np.real(z), "LI": lambda z: abs(z.imag)}
"""What the wanted eigenvalues have most of."""


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
    """Products with A and A^T spent on everything, recomputation and noise included."""
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
    if size < min(n, k + 3):
        raise InputError(f"subspace must be at least k + 3 = {k + 3}: got {subspace}")
    factorisation = Arnoldi(operator, start, seed)
    search = _Search(factorisation, k, which, symmetric, rtol, _noise(factorisation) if n > 1 else 0.0)
    complete = search.run(size, 10 * n + 200 if max_products is None else max_products)
    result = search.result(operator, complete)
    if left:
        result = _with_left(result, operator, which, symmetric, rtol, subspace, max_products, seed)
    if not result.converged:
        warnings.warn(result.message, ConvergenceWarning, stacklevel=2)
    return result


OUTSIDE = 10
"""Fewest steps of the search for what was missed."""


class _Search:
    """The iteration: a factorisation whose leading part is the wanted Schur form."""

    def __init__(self, factorisation: Arnoldi, k: int, which: Which, symmetric: bool, rtol: float, noise: float) -> None:
        self.factorisation, self.k, self.which, self.symmetric = factorisation, k, which, symmetric
        self.rtol, self.relative_noise = rtol, noise
        self.size = 0.0  # |A| on the largest space seen
        self.T, self.basis, self.projected = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0))

    @property
    def noise(self) -> float:
        """Absolute size of the rounding in a product."""
        return self.relative_noise * self.size

    @property
    def tolerance(self) -> float:
        """What residuals are held against."""
        return max(self.rtol * self.size, self.noise)

    def run(self, m: int, limit: int) -> bool:
        """Iterate; return whether the wanted part converged and the search outside found nothing better."""
        f, found = self.factorisation, -np.inf
        while True:
            f.extend(m - f.steps)
            Z, T, count = self._schur()
            coupling = f.coupling @ Z
            self.T, self.basis, self.projected = T[:count, :count], f.basis[:, :f.steps] @ Z[:, :count], T
            if f.exhausted:
                return True
            if np.linalg.norm(coupling[:count]) <= 0.5 * self.tolerance:
                worst = float(RANKS[self.which](_eigenvalues(self.T)).min())
                if worst <= found + 2 * self.tolerance:
                    return True  # the search outside added nothing
                found = worst
                if f.products >= limit:
                    return False
                f.restart(Z[:, :count], T[:count, :count], coupling[:count],
                          np.random.default_rng([f.seed, f.products]).standard_normal(f.size))
                m = min(max(m, count + 10), f.size)
                f.extend(min(max(OUTSIDE, count), m - f.steps))
                self.projected = f.projected  # what lies outside bears on the conditioning
                Z, T, count = self._schur()
                if self._unchanged(T, count, worst):
                    return True
                continue
            if f.products >= limit:
                return False
            kept = _whole(T, count + (m - count) // 2)
            f.restart(Z[:, :kept], T[:kept, :kept], coupling[:kept])

    def _unchanged(self, T: Array, count: int, worst: float) -> bool:
        """Return whether the wanted values, the search outside included, are as wanted as before."""
        return float(RANKS[self.which](_eigenvalues(T[:count, :count])).min()) <= worst + 2 * self.tolerance

    def _schur(self) -> tuple[Array, Array, int]:
        """Return Z, T = Z^T (projected) Z with the most wanted first, and how many of them are wanted (pairs kept whole)."""
        H = self.factorisation.projected
        self.size = max(self.size, float(np.linalg.norm(self.factorisation.hessenberg, 2)))
        if self.symmetric:
            values, Z = np.linalg.eigh((H + H.T) / 2)
            order = np.argsort(-RANKS[self.which](values), kind="stable")
            return Z[:, order], np.diag(values[order]), min(self.k, len(H))
        T, Z = scipy.linalg.schur(H, output="real")
        values = _eigenvalues(T)
        order = np.argsort(-RANKS[self.which](values), kind="stable")
        count, taken = 0, np.zeros(len(values), dtype=np.int32)
        for i in order:  # one after the other to the front: the most wanted first
            if not taken[i]:
                taken[[i, i + (values[i].imag > 0) - (values[i].imag < 0)]] = 1
                count = int(taken.sum())
            if count >= min(self.k, len(values)):
                break
        T, Z = _reordered(T, Z, taken)
        middle = RANKS[self.which](_eigenvalues(T[count:, count:]))
        rest = np.zeros(len(values), dtype=np.int32)
        rest[:count] = 1
        if len(middle):  # what is kept beyond the wanted: the better half of the rest
            rest[count:] = middle >= np.median(middle)
            T, Z = _reordered(T, Z, rest)
        return Z, T, count

    def result(self, operator: LinearOperator, complete: bool) -> Eigenpairs:
        """Return the wanted pairs with residuals by fresh products."""
        if self.symmetric:
            values: NDArray[Any] = np.diag(self.T).copy()
            inner: NDArray[Any] = np.eye(len(values))
        else:
            values, inner = np.linalg.eig(self.T.astype(np.complex128))
            order = np.lexsort((values.imag, -RANKS[self.which](values).round(14)))
            values, inner = values[order], inner[:, order]
        vectors = self.basis @ inner
        vectors = vectors / np.linalg.norm(vectors, axis=0)
        counted = Counted(operator)
        image = counted @ self.basis  # A v = A Q y for every vector: k real products, complex pairs included
        residuals = np.linalg.norm(image @ (inner / np.linalg.norm(self.basis @ inner, axis=0)) - vectors * values, axis=0)
        change = residuals + self.noise
        conditions, errors = np.ones(len(values)), change
        if not self.symmetric:
            conditions = _conditions(self.projected, values)
            errors = np.array([_reach(self.projected, z, d, c) for z, d, c in zip(values, change, conditions, strict=True)])
        products = self.factorisation.products + counted.products
        determined = self.factorisation.exhausted or errors.max() <= np.sqrt(self.tolerance * self.size)
        if self.which == "LI" and not self.factorisation.exhausted:  # small imaginary parts hide among the real eigenvalues
            determined = determined and bool(abs(values.imag).min() >= 1e-3 * self.size)
        converged = complete and bool(determined and (residuals <= self.tolerance).all())
        message = _message(converged, complete and bool(determined), residuals, self.tolerance, self.noise, self.rtol, errors,
                           self.size)
        return Eigenpairs(values, vectors, residuals, errors, conditions, converged, self.tolerance, self.noise, products,
                          message)


def _eigenvalues(T: Array) -> Complex:
    """Return the eigenvalues of a real Schur form in the order of its diagonal."""
    values = np.diag(T).astype(np.complex128)
    for i in np.flatnonzero(np.diag(T, -1)):
        root = np.sqrt(abs(T[i, i + 1] * T[i + 1, i]))
        values[i], values[i + 1] = T[i, i] + 1j * root, T[i, i] - 1j * root
    return values


def _reordered(T: Array, Z: Array, select: NDArray[np.int32]) -> tuple[Array, Array]:
    """Move the selected eigenvalues of a real Schur form to the front."""
    T, Z, *_ = scipy.linalg.lapack.dtrsen(select, T, Z, job="N")
    return T, Z


def _whole(T: Array, p: int) -> int:
    """Return p, or p + 1 where a conjugate pair would be cut."""
    return p + 1 if 0 < p < len(T) and T[p, p - 1] != 0 else p


def _conditions(T: Array, values: Complex) -> Array:
    """Return `1 / |y^H x|` of the eigenvalues of T nearest to the values."""
    own, left, right = scipy.linalg.eig(T, left=True)
    with np.errstate(divide="ignore"):
        conditions = 1 / np.abs((left.conj() * right).sum(0))
    nearest = np.abs(own[None] - values[:, None]).argmin(1)
    return np.asarray(np.minimum(conditions[nearest], 1 / np.finfo(float).eps))


def _reach(T: Array, z: complex, change: float, condition: float) -> float:
    """Return a radius around z that no eigenvalue inside can leave under a perturbation of T of norm `change`.

    On the circle the smallest singular value of `w I - T` exceeds `change`: the perturbed eigenvalues cannot cross it.
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


def _noise(f: Arnoldi) -> float:
    """Return the rounding of a product relative to its size: `A (q1 + q2)` against the two columns known, at one product."""
    n, dtype = f.size, np.dtype(f.operator.operator.dtype)
    floor = float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps) * np.sqrt(n)
    f.extend(2 - f.steps)
    known = f.basis @ f.hessenberg[:, :2].sum(axis=1)
    size = float(np.linalg.norm(f.hessenberg[:, :2]))
    fresh = f.operator.matvec(f.basis[:, :2].sum(axis=1)) if f.steps > 1 else known
    return max(floor, float(np.linalg.norm(fresh - known)) / size if size else 0.0)


def _with_left(result: Eigenpairs, A: LinearOperator, which: Which, symmetric: bool, rtol: float,
               subspace: int | None, max_products: int | None, seed: int) -> Eigenpairs:
    """Add left eigenvectors, from the same iteration on A^T, matched by eigenvalue."""
    if symmetric:
        return replace(result, left=result.vectors)
    other = eigenpairs(A.T, len(result.values), which, rtol=rtol, subspace=subspace, max_products=max_products, seed=seed + 1)
    columns = []
    free = list(range(len(other.values)))
    for value in result.values:
        best = min(free, key=lambda j: abs(other.values[j] - value))
        free.remove(best)
        columns.append(other.vectors[:, best].conj())
    left = np.stack(columns, axis=1)
    with np.errstate(divide="ignore"):
        conditions = np.minimum(1 / np.abs((left.conj() * result.vectors).sum(0)), 1 / np.finfo(float).eps)
    errors = np.maximum(result.errors, conditions * (result.residuals + result.noise))
    return replace(result, left=left, conditions=conditions, errors=errors, products=result.products + other.products,
                   converged=result.converged and other.converged)


def _message(converged: bool, complete: bool, residuals: Array, tolerance: float, noise: float, rtol: float, errors: Array,
             size: float) -> str:
    if not converged and complete:
        return f"a residual recomputed is {residuals.max():.1e}, above the tolerance {tolerance:.1e}: audit the operator"
    if not converged:
        count = int((residuals <= tolerance).sum())
        return (f"not converged: {count} of {len(residuals)} residuals are below {tolerance:.1e}; or the search outside did "
                f"not end, a value is known to {errors.max():.1e} only, or (LI) imaginary parts are too small to be told "
                "apart: allow more products, or a larger subspace")
    goal = f"the operator's noise floor {noise:.1e}" if tolerance <= noise else f"rtol {rtol:.1e}"
    doubt = ("" if errors.max() <= 1e3 * tolerance or not size else
             f"; ill-conditioned: an eigenvalue is known to {errors.max():.1e} only")
    return f"converged to {goal}{doubt}"


def _check(k: int, n: int, which: str, symmetric: bool, rtol: float) -> None:
    if not 1 <= k <= n:
        raise InputError(f"k must lie from 1 to n = {n}: got {k}")
    if which not in get_args(Which):
        raise InputError(f"unknown which {which!r}: expected one of {', '.join(get_args(Which))}")
    if symmetric and which == "LI":
        raise InputError("the eigenvalues of a symmetric operator are real: which='LI' asks for imaginary parts")
    if not 0 < rtol < 1:
        raise InputError(f"rtol must lie in (0, 1): got {rtol}")

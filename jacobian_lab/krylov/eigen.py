r"""Eigenpairs with certificates: Krylov-Schur iterations, and what their result is worth.

    A v = lambda v

Every residual is recomputed with fresh products. The tolerance is never below the operator's noise,
which is measured. The stated error of each eigenvalue takes its conditioning into account, and what
lies outside the space found is searched. Linear algebra only: A is any real matrix or
`LinearOperator`.

>>> import numpy as np
>>> result = eigenpairs(np.diag([3.0, 3.0, 1.0, 0.5, 0.2]), k=2)
>>> result.values.real.round(6).tolist(), bool(result.converged)
([3.0, 3.0], True)

References
----------
Trefethen, Embree (2005), *Spectra and pseudospectra*; Saad (2011), *Numerical methods for large
eigenvalue problems*.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.krylov.conversion import square
from jacobian_lab.krylov.factorisation import Arnoldi
from jacobian_lab.krylov.krylov_schur import RANKS, Array, KrylovSchur, Which, schur_values
from jacobian_lab.krylov.operators import DENSE
from jacobian_lab.krylov.sensitivity import sensitivity


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues and eigenvectors of an operator, and how far to trust them."""

    values: NDArray[Any]
    """Shape (k,), the most wanted first; real if `symmetric`. One more than asked for where k would
    cut a conjugate pair.
    """
    vectors: NDArray[Any]
    """Unit columns, shape (n, k)."""
    residuals: Array
    """`|A v - lambda v|`, recomputed with fresh products, shape (k,)."""
    errors: Array
    """Stated bound of each eigenvalue's error, shape (k,): how far a change of A of the size of
    residual plus noise can move it. Rigorous if `symmetric`; else from the pseudospectrum of A on
    the space found and a product with A^T, which tells how that space is coupled to the rest, and
    from the conditions if there are left vectors.
    """
    conditions: Array
    """Condition number `1 / |y^T x|` of each eigenvalue, shape (k,): A's own with `left` or if the
    space was exhausted, else a bound from the space found and its coupling.
    """
    converged: bool
    """Whether all residuals are below the tolerance and nothing that is wanted more was found
    outside.
    """
    tolerance: float
    """What residuals were held against: rtol times the size of A, or its noise if that is more."""
    noise: float
    """Size of the rounding in a product with A: measured, and at least eps sqrt(n) |A| of A's
    dtype.
    """
    products: int
    """Products with A and A^T spent on everything."""
    certificate: int
    """Of these, for trust: the noise, the search outside, the residuals recomputed, and one with
    A^T.
    """
    message: str
    """Why it stopped."""
    path: str
    """How the products were computed: see `jacobian_lab.krylov.operators.Provenance`."""
    product_error: float
    """Relative error of a product that the check of the operator's maker could not exclude; it is
    not in `errors`.
    """
    left: NDArray[Any] | None = None
    """Unit left eigenvectors y, `y^H A = lambda y^H`, shape (n, k), on request."""

    def __repr__(self) -> str:
        return listing(
            "eigenvalue", self.values, self.errors, self.residuals, self.message, self.products
        )


def eigenpairs(
    A: LinearOperator | NDArray[Any],
    k: int = 6,
    which: Which = "LM",
    *,
    symmetric: bool = False,
    rtol: float = 1e-9,
    subspace: int | None = None,
    max_products: int | None = None,
    start: ArrayLike | None = None,
    seed: int = 0,
    left: bool = False,
) -> Eigenpairs:
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
        Largest Krylov space m; n x (m + 1) float64 numbers are stored. By default half of the whole
        space if dense matrices of A's size fit (`jacobian_lab.krylov.operators.DENSE`), and else
        300, or what takes as much memory.
    max_products : int, optional
        Most products with A and A^T, the certificate and left vectors included, at least 5. By
        default some n if dense matrices fit: where the iteration does not converge in n / 2
        products, the whole space is taken. Else 3000.
    start, seed
        As in `jacobian_lab.krylov.factorisation.Arnoldi`.
    left : bool
        Also compute left eigenvectors, by the same iteration on A^T, and condition numbers from
        them.

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
    k = _require.integer("k", k, 1, operator.shape[0], "n")
    seed, rtol = _require.seed(seed), _require.real("rtol", rtol, "(0, 1)")
    _check(k, operator.shape[0], which, symmetric, subspace, max_products, left)
    right = None if max_products is None else max_products // (2 if left and not symmetric else 1)
    search, complete = _searched(operator, k, which, symmetric, rtol, subspace, right, start, seed)
    result, sound = _certified(search, complete)
    if complete and not sound and search.complete():
        result, sound = _certified(search, True)
    if left or (complete and not sound):
        result = _with_left(result, search, complete, subspace, max_products, left)
    result = _in_units(result, search.factorisation.unit)
    if not result.converged:
        warnings.warn(result.message, ConvergenceWarning, stacklevel=2)
    return result


SPREAD = 5.0
"""How much more a product may be rounded than the one on which the noise was measured; beyond it,
something is wrong.
"""
BUDGET = 3000
"""Products by default where dense matrices of A's size do not fit."""
ROOM = 300
"""Steps of the largest Krylov space by default where dense matrices of A's size do not fit."""
LEAST = 5
"""Products without which nothing can be said: two steps, the noise, two residuals."""
REMEDY = "allow n products and no subspace, so that the whole space is taken"
NORMAL = 3.0
"""Largest |A| on a space, over its largest Ritz value: 1 if A is normal, and large where its Ritz
values say little.
"""


def _searched(
    operator: LinearOperator,
    k: int,
    which: Which,
    symmetric: bool,
    rtol: float,
    subspace: int | None,
    max_products: int | None,
    start: ArrayLike | None,
    seed: int,
) -> tuple[KrylovSchur, bool]:
    """Return the iteration at its end, and whether it converged; all limits that were not given are
    chosen here.
    """
    n, reserve = operator.shape[0], k + 3  # the residuals, and a product with A^T
    fits = 32 * n * n <= DENSE
    budget = (2 * n if fits else BUDGET) + reserve if max_products is None else max_products
    whole = fits and subspace is None and budget - reserve > n
    room = max(n // 2, k + 4) if whole else max(k + 4, min(max(3 * k + 20, ROOM), DENSE // (8 * n)))
    factorisation = Arnoldi(operator, start, seed)
    with factorisation.operator.progress(f"eigenpairs, {which}", min(budget, n + reserve)):
        search = KrylovSchur(
            factorisation,
            k,
            which,
            symmetric,
            rtol,
            min(n, subspace or room),
            budget - reserve,
            whole,
        )
        return search, search.run()


def _certified(search: KrylovSchur, complete: bool) -> tuple[Eigenpairs, bool]:
    """Return the wanted pairs, with residuals by fresh products, in the factorisation's units, and
    whether errors are sound.
    """
    f, tolerance = search.factorisation, search.tolerance
    if search.symmetric:
        values: NDArray[Any] = np.diag(search.T).copy()
        inner: NDArray[Any] = np.eye(len(values))
    else:
        values, inner = np.linalg.eig(search.T.astype(np.complex128))
        order = np.lexsort((values.imag, -RANKS[search.which](values).round(14)))
        values, inner = values[order], inner[:, order]
    lengths = np.linalg.norm(search.basis @ inner, axis=0)
    vectors = search.basis @ inner / lengths
    # A v = A Q y for every vector: k real products, complex pairs included
    image = f.operator @ search.basis
    residuals = np.linalg.norm(image @ (inner / lengths) - vectors * values, axis=0)
    if complete and search.noise < residuals.max() <= SPREAD * search.noise:
        # the recurrence says less: this is rounding, too
        search.rounding = float(residuals.max()) / search.size
        tolerance = search.tolerance
    conditions, errors = np.ones(len(values)), residuals + search.noise
    if not search.symmetric:
        conditions, errors = sensitivity(search, values, errors, complete)
    errors = errors + search.doubt
    sound = (
        search.symmetric
        or f.exhausted
        or bool(
            # else the space found may hide its like
            errors.max() <= min(np.sqrt(tolerance * search.size), 1e3 * tolerance)
            and search.size <= NORMAL * np.abs(schur_values(search.projected)).max(initial=0.0)
        )
    )
    converged = complete and sound and bool((residuals <= tolerance).all())
    message = _message(search, converged, complete, sound, residuals, errors)
    path, product_error, _ = f.operator.provenance
    return (
        Eigenpairs(
            values,
            vectors,
            residuals,
            errors,
            conditions,
            converged,
            tolerance,
            search.noise,
            f.products,
            1 + f.products - search.found if search.found else 0,
            message,
            path,
            product_error,
        ),
        sound,
    )


def _with_left(
    result: Eigenpairs,
    search: KrylovSchur,
    complete: bool,
    subspace: int | None,
    max_products: int | None,
    asked: bool,
) -> Eigenpairs:
    """Add left eigenvectors, matched by eigenvalue: of the whole space, or from the same iteration
    on A^T.
    """
    f, k = search.factorisation, len(result.values)
    if search.symmetric:
        return replace(result, left=result.vectors)
    if f.exhausted:
        values, vectors = scipy.linalg.eig(f.in_units[0], left=True, right=False)
        return replace(result, left=f.basis @ vectors[:, _matched(result.values, values)])
    left_over = None if max_products is None else max_products - result.products
    if left_over is not None and left_over < LEAST:
        return result
    try:
        other, found = _searched(
            f.operator.operator.T,
            k,
            search.which,
            False,
            search.rtol,
            subspace,
            left_over,
            None,
            f.seed + 1,
        )
    except InputError:
        if asked:
            raise
        return result  # there is no rmatvec
    of_transpose, _ = _certified(other, found)
    of_transpose = _in_units(of_transpose, other.factorisation.unit / f.unit)
    order = _matched(result.values, of_transpose.values)
    left = of_transpose.vectors[:, order].conj()
    with np.errstate(divide="ignore"):
        conditions = np.minimum(
            1 / np.abs((left.conj() * result.vectors).sum(0)), 1 / np.finfo(float).eps
        )
    errors = (
        np.maximum(
            sensitivity(search, result.values, result.residuals + result.noise, False)[1],
            conditions * (result.residuals + result.noise),
        )
        + search.doubt
    )
    apart = np.abs(of_transpose.values[order] - result.values) - errors - of_transpose.errors[order]
    agree = found and bool(
        (of_transpose.residuals <= of_transpose.tolerance).all() and (apart <= 0).all()
    )
    sound = agree and bool(errors.max() <= np.sqrt(result.tolerance * search.size))
    converged = complete and sound and bool((result.residuals <= result.tolerance).all())
    message = (
        _message(search, converged, complete, sound, result.residuals, errors)
        if agree
        else (
            f"the left eigenvectors are not those of the right ones: {REMEDY}, or ask for another k"
        )
    )
    return replace(
        result,
        left=left,
        conditions=conditions,
        errors=errors,
        products=result.products + of_transpose.products,
        certificate=result.certificate + of_transpose.certificate,
        message=message,
        converged=converged,
    )


def _matched(values: NDArray[Any], others: NDArray[Any]) -> list[int]:
    """Return for each value the nearest of the others that no value before it has taken."""
    free = list(range(len(others)))
    order = []
    for value in values:
        order.append(min(free, key=lambda j: abs(others[j] - value)))
        free.remove(order[-1])
    return order


def _in_units(result: Eigenpairs, unit: float) -> Eigenpairs:
    """Return the result for A in place of A / unit."""
    if unit == 1:
        return result
    return replace(
        result,
        values=result.values * unit,
        residuals=result.residuals * unit,
        errors=result.errors * unit,
        tolerance=result.tolerance * unit,
        noise=result.noise * unit,
    )


def _message(
    search: KrylovSchur,
    converged: bool,
    complete: bool,
    sound: bool,
    residuals: Array,
    errors: Array,
) -> str:
    if converged:
        doubt = (
            ""
            if errors.max() <= 1e3 * search.tolerance or not search.size
            else f"; ill-conditioned: an eigenvalue is known to {errors.max():.1e} only"
        )
        return f"converged to {goal_reached(search.tolerance, search.noise, search.rtol)}{doubt}"
    if complete and sound:
        return (
            f"a residual recomputed is {residuals.max():.1e}, above the tolerance"
            f" {search.tolerance:.1e}: audit the operator"
        )
    if complete:
        return (
            f"not converged: A is far from normal, and an eigenvalue is known to {errors.max():.1e}"
            f" only: {REMEDY}, or ask for left=True"
        )
    if search.which == "LI" and search.found:
        return (
            "not converged: which='LI' asks for the interior of the spectrum, where imaginary"
            " parts may be too small to be told apart, and a Krylov space is certain of them only"
            f" when it is the whole space: {REMEDY}"
        )
    count = int((residuals <= search.tolerance).sum())
    return (
        f"not converged: {count} of {search.k} residuals are below {search.tolerance:.1e}, or the"
        " search outside did not settle: allow more products, or a larger subspace"
    )


SHOWN = 12
"""Lines of a result that are printed."""


def listing(
    name: str, values: NDArray[Any], errors: Array, residuals: Array, message: str, products: int
) -> str:
    """Return a result as a table, a line for each of the first values, and the message below it."""
    shown = [_rounded(v, e) for v, e in zip(values[:SHOWN], errors, strict=False)]
    width = max(map(len, [name, *shown]))
    lines = [f"{name:>{width}}  {'error':>7}  {'residual':>8}"]
    lines += [
        f"{v:>{width}}  {e:7.1e}  {r:8.1e}"
        for v, e, r in zip(shown, errors, residuals, strict=False)
    ]
    lines += [f"{f'... {len(values) - SHOWN} more':>{width}}"] if len(values) > SHOWN else []
    return "\n".join([*lines, f"{message} ({products} products)"])


def _rounded(value: complex, error: float) -> str:
    """Return a value to the digits that its error leaves, and one more."""
    # their ratio may overflow
    size, doubt = np.log10(np.maximum([abs(value), error], np.finfo(float).tiny))
    digits = int(np.clip(np.ceil(size - doubt) + 1, 2, 12))
    return f"{value:.{digits}g}" if np.imag(value) else f"{np.real(value):.{digits}g}"


def goal_reached(tolerance: float, noise: float, rtol: float) -> str:
    """Say what residuals were held against."""
    return f"the operator's noise floor {noise:.1e}" if tolerance <= noise else f"rtol {rtol:.1e}"


def _check(
    k: int,
    n: int,
    which: str,
    symmetric: bool,
    subspace: int | None,
    max_products: int | None,
    left: bool,
) -> None:
    _require.one_of("which", which, get_args(Which))
    _require.flag("symmetric", symmetric)
    _require.flag("left", left)
    if symmetric and which == "LI":
        raise InputError(
            "the eigenvalues of a symmetric operator are real: which='LI' asks for imaginary parts"
        )
    least = min(n, k + 4)  # a pair at the cut, and one kept beyond it, leave room for a step
    if subspace is not None and _require.integer("subspace", subspace, 1) < least:
        raise InputError(f"subspace must be at least k + 4 = {k + 4}: got {subspace}")
    if max_products is not None:
        _require.integer("max_products", max_products, LEAST)

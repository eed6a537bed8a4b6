r"""Eigenpairs with certificates, by Krylov-Schur iterations.

    A v = lambda v

Every residual is recomputed with fresh products. The tolerance is never below the operator's noise,
which is measured. The stated error of each eigenvalue takes its conditioning into account, and the
space outside of the one found is searched for missed eigenvalues. Linear algebra only: A is any
real matrix or `LinearOperator`.

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
from dataclasses import replace
from typing import Any, get_args

import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.krylov.certificates import (
    Eigenpairs,
    certified,
    certified_from_both_sides,
    matched,
    rescaled,
)
from jacobian_lab.krylov.conversion import square
from jacobian_lab.krylov.krylov_schur import KrylovSchur
from jacobian_lab.krylov.operators import DENSE
from jacobian_lab.krylov.restarting import RestartedArnoldi
from jacobian_lab.krylov.schur import Which


def eigenpairs(
    A: LinearOperator | NDArray[Any],
    k: int = 6,
    which: Which = "LM",
    *,
    symmetric: bool = False,
    rtol: float = 1e-9,
    subspace: int | None = None,
    block: int = 2,
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
        Largest Krylov space m; n x (m + b) float64 numbers are stored. The search for missed
        eigenvalues takes 8 b vectors beside the wanted, if that is more. By default half of the
        whole space if dense matrices of A's size fit (`jacobian_lab.krylov.operators.DENSE`), and
        else 300, or what takes as much memory.
    block : int
        b, the vectors of a pass. Larger blocks take fewer passes, of more vectors in all. With 2,
        both copies of a double eigenvalue are seen at once, and the search for what was missed is
        mostly saved; larger ones pay where a pass of many vectors costs little more than one of 1.
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
    factorisation = RestartedArnoldi(
        operator, start, seed, min(_require.integer("block", block, 1), operator.shape[0])
    )
    search, complete = _searched(factorisation, k, which, symmetric, rtol, subspace, right)
    result, sound = certified(search, complete)
    if complete and not sound and search.complete():
        result, sound = certified(search, True)
    if left or (complete and not sound):
        result = _with_left(result, search, complete, subspace, max_products, left)
    result = rescaled(result, search.factorisation.unit)
    if not result.converged:
        warnings.warn(result.message, ConvergenceWarning, stacklevel=2)
    return result


BUDGET = 3000
"""Products by default where dense matrices of A's size do not fit: ten times `ROOM`."""
ROOM = 300
"""Steps of the largest Krylov space by default where dense matrices of A's size do not fit: its
small eigenvalue problems cost less than a network's products.
"""
LEAST = 5
"""Fewest products for a result: two steps, the noise, two residuals."""


def _searched(
    factorisation: RestartedArnoldi,
    k: int,
    which: Which,
    symmetric: bool,
    rtol: float,
    subspace: int | None,
    max_products: int | None,
) -> tuple[KrylovSchur, bool]:
    """Return the iteration at its end, and whether it converged; all limits that were not given are
    chosen here.
    """
    n, reserve = factorisation.size, k + 3  # the residuals, and a product with A^T
    fits = 32 * n * n <= DENSE
    budget = (2 * n if fits else BUDGET) + reserve if max_products is None else max_products
    whole = fits and subspace is None and budget - reserve > n
    room = max(n // 2, k + 4) if whole else max(k + 4, min(max(3 * k + 20, ROOM), DENSE // (8 * n)))
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
        # eig scales up rounding in a matrix that falls apart, not in a Schur form
        T, Z = scipy.linalg.schur(f.in_units[0])
        values, vectors = scipy.linalg.eig(T, left=True, right=False)
        return replace(result, left=f.basis @ (Z @ vectors[:, matched(result.values, values)]))
    left_over = None if max_products is None else max_products - result.products
    if left_over is not None and left_over < LEAST:
        return _without_left(result, 0, asked)
    if subspace is not None:  # which may hold one value more, of a pair
        subspace = max(subspace, k + 4)
    try:
        transposed = RestartedArnoldi(f.operator.operator.T, None, f.seed + 1, f.block)
        other, found = _searched(
            transposed, k, search.which, False, search.rtol, subspace, left_over
        )
    except InputError:
        if asked:
            raise
        return result  # there is no rmatvec
    of_transpose, _ = certified(other, found)
    if len(of_transpose.values) < k:  # so few products were left
        return _without_left(result, of_transpose.products, asked)
    of_transpose = rescaled(of_transpose, other.factorisation.unit / f.unit)
    return certified_from_both_sides(result, search, complete, of_transpose, found)


def _without_left(result: Eigenpairs, spent: int, asked: bool) -> Eigenpairs:
    """Return what there is where the products that were left tell no left eigenvectors; a result
    without what was asked for has not converged.
    """
    counted = replace(
        result, products=result.products + spent, certificate=result.certificate + spent
    )
    if not asked:
        return counted
    message = "not converged: too few products were left for left eigenvectors: allow more"
    return replace(counted, converged=False, message=message)


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

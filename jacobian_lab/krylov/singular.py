r"""Singular triplets with certificates: eigenpairs of A^T A, or the dense decomposition, and
residuals of A itself.

    A v = s u,    A^T u = s v

Linear algebra only: A is any real matrix or `LinearOperator`.

>>> import numpy as np
>>> result = singular_values(np.diag([3.0, -2.0, 1.0]), k=2)
>>> result.values.round(6).tolist(), result.converged
([3.0, 2.0], True)

References
----------
Golub, Van Loan (2013), *Matrix computations*, section 8.6.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning
from jacobian_lab.krylov.certificates import Eigenpairs
from jacobian_lab.krylov.counting import Counted
from jacobian_lab.krylov.eigen import BUDGET, eigenpairs
from jacobian_lab.krylov.least_squares import as_matrix
from jacobian_lab.krylov.operators import DENSE, Operator
from jacobian_lab.krylov.tables import goal_reached, listing

Array = NDArray[np.float64]


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
    """Rigorous bound of each value's distance to a singular value, shape (k,): residual plus
    noise.
    """
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
    path: str
    """How the products were computed: see `jacobian_lab.krylov.operators.Provenance`."""
    product_error: float
    """Relative error of a product that the check of the operator's maker could not exclude; it is
    not in `errors`.
    """

    def __repr__(self) -> str:
        return listing(
            "singular value", self.values, self.errors, self.residuals, self.message, self.products
        )


def singular_values(
    A: LinearOperator | NDArray[Any],
    k: int = 6,
    *,
    rtol: float = 1e-9,
    subspace: int | None = None,
    block: int = 2,
    max_products: int | None = None,
    seed: int = 0,
) -> SingularValues:
    """Return the k largest singular values of a real operator: `eigenpairs` of A^T A, then the
    decomposition of A V.

    The values come from A V, where V spans the vectors found, and the residuals are A's own: the
    square costs no digits of large values. Where the square does not tell them well enough, and
    dense matrices of A's size fit, A is made dense.

    Parameters
    ----------
    A : LinearOperator or array, shape (rows, columns)
    k : int
        How many, 1 ... min(rows, columns).
    rtol : float
        Residual to reach, relative to |A|.
    subspace : int, optional
        As in `eigenpairs`, for A^T A. If it is given, A is never made dense.
    block : int
        As in `eigenpairs`: the vectors of a pass.
    max_products : int, optional
        Most products with A and A^T, at least 16. By default a quarter of min(rows, columns) for
        A^T A, and then those of the dense matrix, if it fits; else 3000.
    seed : int

    Warns
    -----
    ConvergenceWarning
        If it stopped before; the partial result is returned.
    """
    counted = Counted(A, scaled=True)
    small, large = sorted(counted.shape)
    k = _require.integer("k", k, 1, small, "min(rows, columns)")
    seed, rtol = _require.seed(seed), _require.real("rtol", rtol, "(0, 1)")
    block = _require.integer("block", block, 1)
    if subspace is not None:
        _require.integer("subspace", subspace, min(small, k + 4))
    if max_products is not None:
        _require.integer("max_products", max_products, LEAST)
    price = small + 2 * k
    dense = (
        32 * small * large <= DENSE
        and subspace is None
        and (max_products is None or max_products >= price)
    )
    limit = (
        (BUDGET if max_products is None else max_products)
        if not dense
        else (small // 4 if max_products is None else min(small // 4, max_products - price))
    )
    found = None
    with counted.progress("singular values", price if dense else limit):
        if not dense or limit >= 4 * k + LEAST:
            found = _by_square(counted, k, rtol, subspace, block, limit, seed)
        if found is None or (dense and not found.converged):
            found = _dense(counted, k, rtol)
    if not found.converged:
        warnings.warn(found.message, ConvergenceWarning, stacklevel=2)
    unit = counted.unit
    return replace(
        found,
        values=found.values * unit,
        residuals=found.residuals * unit,
        errors=found.errors * unit,
        tolerance=found.tolerance * unit,
        noise=found.noise * unit,
    )


LEAST = 16
"""Fewest products for a result: five with A^T A, and three for each of two values."""


def _by_square(
    counted: Counted,
    k: int,
    rtol: float,
    subspace: int | None,
    block: int,
    limit: int,
    seed: int,
) -> SingularValues:
    """Return the triplets from eigenpairs of A^T A, or of A A^T if that is smaller, for at most
    `limit` products.
    """
    eps, goal, start = float(np.finfo(counted.operator.dtype).eps), rtol / 10, None
    gram = _gram(counted)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said later, of A
            found = eigenpairs(
                gram,
                k,
                "LR",
                symmetric=True,
                rtol=goal,
                subspace=subspace,
                block=block,
                start=start,
                seed=seed,
                max_products=max((limit - counted.products - 3 * k) // 2, 5),
            )
        triplets, V = _from_square(counted, found, k, rtol)
        worst = float(triplets.residuals.max())
        if (
            worst <= triplets.tolerance
            or goal <= eps
            or not found.converged
            or limit - counted.products < 2 * (found.products + k) + 3 * k
        ):
            return triplets
        # the square needs more digits than A
        goal, start = max(goal * triplets.tolerance / worst / 2, eps), V.sum(1)


def _gram(counted: Counted) -> Operator:
    """Return A^T A, or A A^T if that is smaller."""
    forward, back = _smaller_side(counted)

    def apply(V: Array) -> Array:
        return np.asarray(back @ (forward @ V))

    n = forward.shape[1]
    dtype, known = np.dtype(counted.operator.dtype), counted.provenance
    return Operator((n, n), dtype, apply, apply, rounding=known.rounding)


def _smaller_side(counted: Counted) -> tuple[LinearOperator, LinearOperator]:
    """Return A and A^T, or A^T and A if A has fewer rows than columns."""
    wide = counted.shape[0] < counted.shape[1]
    return (counted.T, counted) if wide else (counted, counted.T)


def _from_square(
    counted: Counted, found: Eigenpairs, k: int, rtol: float
) -> tuple[SingularValues, Array]:
    """Return the triplets of A on the eigenvectors of its square, and V, rotated to them."""
    forward, _ = _smaller_side(counted)
    U, s, W = np.linalg.svd(forward @ found.vectors, full_matrices=False)
    V, relative = found.vectors @ W.T, found.noise / s[0] ** 2 if s[0] else 0.0
    triplets = _triplets(
        counted,
        (U, s, V) if forward is counted else (V, s, U),
        rtol,
        relative,
        found.converged and len(s) == k,
    )
    # how much larger a square outside may be
    doubt = float((found.errors - found.residuals).max()) - found.noise
    return replace(triplets, errors=triplets.errors + np.sqrt(s**2 + max(doubt, 0.0)) - s), V


def _dense(counted: Counted, k: int, rtol: float) -> SingularValues:
    """Return the triplets by LAPACK on the dense matrix, from as many products as its smaller side
    has.
    """
    rows, columns = counted.shape
    matrix = as_matrix(counted) if columns <= rows else as_matrix(counted.T).T
    U, s, Vt = scipy.linalg.svd(matrix, full_matrices=False)
    return _triplets(counted, (U[:, :k], s[:k], Vt[:k].T), rtol, 0.0, True)


def _triplets(
    counted: Counted,
    found: tuple[Array, Array, Array],
    rtol: float,
    relative: float,
    complete: bool,
) -> SingularValues:
    """Return the triplets with fresh residuals, in the operator's units; `relative` is the noise
    measured.
    """
    U, s, V = found
    residuals = np.maximum(
        np.linalg.norm(counted @ V - U * s, axis=0), np.linalg.norm(counted.T @ U - V * s, axis=0)
    )
    noise = max(counted.rounding, relative) * float(s[0])
    tolerance = max(rtol * float(s[0]), noise)
    converged = complete and bool((residuals <= tolerance).all())
    message = (
        f"converged to {goal_reached(tolerance, noise, rtol)}"
        if converged
        else (
            f"not converged: {int((residuals <= tolerance).sum())} of {len(s)} residuals are below"
            f" {tolerance:.1e}, or the search outside did not settle; allow more products, or ask"
            " for fewer values"
        )
    )
    path, product_error, _ = counted.provenance
    return SingularValues(
        s,
        U,
        V,
        residuals,
        residuals + noise,
        converged,
        tolerance,
        noise,
        counted.products,
        message,
        path,
        product_error,
    )

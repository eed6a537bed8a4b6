"""Any matrix or `LinearOperator` as a real operator whose products are checked.

    real_operator(A), square(A)    A as an operator of real numbers, or an error that says why not
    provenance(A)                  how products with A are computed, and their known errors

An operator that others wrote may multiply vectors of shape (n,) only, or lack a transpose: both are
noticed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from jacobian_lab import _require
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.operators import (
    Apply,
    Array,
    ByMatrices,
    Matrix,
    Operator,
    Provenance,
    floating,
)

MatrixLinearOperator = type(aslinearoperator(np.zeros((1, 1))))
"""SciPy's operator of a matrix, which has no public name."""


def real_operator(A: Matrix) -> LinearOperator:
    """Return A as a LinearOperator of real floating point numbers, whose products are checked, or
    raise if it is none.
    """
    try:
        operator = None if isinstance(A, np.ndarray) and A.ndim != 2 else aslinearoperator(A)
    except (TypeError, ValueError):
        operator = None
    if operator is None or 0 in operator.shape:
        kind = _require.shown(A) if isinstance(A, np.ndarray) else type(A).__name__
        raise InputError(f"expected a LinearOperator or a numpy matrix: got {kind}")
    if isinstance(A, np.ndarray) and A.dtype.kind == "f":
        _require.array("the matrix", A)
    dtype = _precision(operator)
    if isinstance(A, ByMatrices):
        return operator
    if not isinstance(A, LinearOperator):
        return operator if operator.dtype == dtype else aslinearoperator(A.astype(dtype))
    known = provenance(A)
    return Operator(
        A.shape,
        dtype,
        _foreign(A, False),
        _foreign(A, True),
        path=known.path,
        product_error=known.product_error,
        rounding=known.rounding,
    )


def square(A: Matrix) -> LinearOperator:
    """Return A as a LinearOperator, or raise if it is not square and real."""
    operator = real_operator(A)
    if operator.shape[0] != operator.shape[1]:
        raise InputError(
            f"expected a square operator: got {operator.shape[0]} x {operator.shape[1]}"
        )
    return operator


def provenance(A: Matrix) -> Provenance:
    """Return how products with A are computed; of a sum or product of operators, what its worst
    part says.
    """
    if isinstance(A, ByMatrices):
        return A.provenance
    if not isinstance(A, LinearOperator) or isinstance(A, MatrixLinearOperator):
        return Provenance("matrix", 0.0, 0.0)
    parts = [provenance(part) for part in _parts(A)]
    if not parts:
        return Provenance("as given", float("nan"), 0.0)
    worst = max(
        parts,
        key=lambda p: (np.nan_to_num(p.product_error, nan=np.inf), p.rounding, p.path != "matrix"),
    )
    return Provenance(worst.path, worst.product_error, max(part.rounding for part in parts))


def _precision(A: LinearOperator) -> np.dtype[Any]:
    """Return the dtype of A's products; of operators that SciPy made of others, the coarsest: a
    multiple by one of Python's numbers has float64 there.
    """
    dtypes = [floating(A.dtype), *map(_precision, _parts(A))]
    return max(dtypes, key=lambda dtype: np.finfo(dtype).eps)


def _parts(A: LinearOperator) -> list[LinearOperator]:
    """Return the operators that SciPy made A of: those of a sum, a product, a multiple, a power, a
    transpose.
    """
    return [part for part in getattr(A, "args", ()) if isinstance(part, LinearOperator)]


def _foreign(A: LinearOperator, transposed: bool) -> Apply:
    """Return the products of an operator that others wrote, on matrices.

    SciPy's default for a matrix hands columns of shape (n, 1) to a `matvec` that may be written for
    (n,) only: here, columns go one at a time as vectors, unless the operator has its own `matmat`.
    """
    name = "rmatvec" if transposed else "matvec"
    columns, rows = A.shape[::-1] if not transposed else A.shape
    whole = _has_matmat(A, transposed)

    def vector(x: Array) -> Array:
        y = np.asarray(A._rmatvec(x) if transposed else A._matvec(x))
        if y.shape not in ((rows,), (rows, 1)):
            raise InputError(
                f"{name} of the {A.shape[0]} x {A.shape[1]} operator returns shape {y.shape} for a"
                f" vector of shape ({columns},): expected ({rows},)"
            )
        return y.reshape(rows)

    def apply(X: Array) -> Array:
        try:
            if whole:
                return np.asarray(A._rmatmat(X) if transposed else A._matmat(X))
            return (
                np.stack([vector(x) for x in np.ascontiguousarray(X.T)], axis=1)
                if X.shape[1]
                else np.zeros((rows, 0))
            )
        except NotImplementedError as error:
            raise InputError(
                f"the {A.shape[0]} x {A.shape[1]} operator has no {name}, which is needed here:"
                f" give LinearOperator(..., {name}=...)"
            ) from error
        except InputError:
            raise
        except ValueError as error:
            raise InputError(
                f"{name} of the {A.shape[0]} x {A.shape[1]} operator failed on vectors of shape"
                f" ({columns},): {error}"
            ) from error

    return apply


def _has_matmat(A: LinearOperator, transposed: bool) -> bool:
    """Return whether A multiplies matrices by code of its own, not by SciPy's loop over columns of
    shape (n, 1).
    """
    parts = _parts(A)
    if isinstance(A, ByMatrices | MatrixLinearOperator):
        return True
    if parts:  # a transpose, as SciPy makes it, has its one part as A.A
        return all(
            _has_matmat(part, transposed != (getattr(A, "A", None) is part)) for part in parts
        )
    given = vars(A).get(f"_CustomLinearOperator__{'r' * transposed}matmat_impl", A)
    if given is not A:  # made by LinearOperator(shape, matvec, ...)
        return given is not None
    own, loop = (
        (type(A)._rmatmat, LinearOperator._rmatmat)
        if transposed
        else (type(A)._matmat, LinearOperator._matmat)
    )
    return own is not loop

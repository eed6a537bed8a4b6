"""Real operators for linear algebra: given by products with matrices, counted, checked. No tensors
here.

    Operator(shape, dtype, ...)    a `scipy.sparse.linalg.LinearOperator`, by its products
    Counted(A)                     A in float64, with the number of its products
    provenance(A)                  how products with A are computed, and their known errors
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from jacobian_lab import _require
from jacobian_lab.errors import InputError

Array: TypeAlias = NDArray[Any]
Apply: TypeAlias = Callable[[Array], Array]
Matrix: TypeAlias = LinearOperator | NDArray[Any]
MatrixLinearOperator = type(aslinearoperator(np.zeros((1, 1))))
"""SciPy's operator of a matrix, which has no public name."""
DENSE = 2**30
"""Bytes that a dense matrix and three more of its size may take: n x n up to n = 5,792."""


class Provenance(NamedTuple):
    """How the products of an operator are computed, and which errors they are known to have."""

    path: str
    """Such as "matrix", "as given", "linearised" or "central difference"."""
    product_error: float
    """Relative error of a product that the check of the operator's maker could not exclude; NaN if
    nobody checked.
    """
    rounding: float
    """Relative error that every product is known to have beyond its dtype's rounding."""


class Operator(LinearOperator):  # type: ignore[misc]
    """A real linear operator that is given by its products with matrices, and asks for nothing
    else.

    Parameters
    ----------
    shape : (int, int)
    dtype : numpy dtype
        float32 or float64: the precision of the products. As in numpy, a float32 operator times a
        float64 vector is a float64 vector, so that a Krylov basis in float64 stays one.
    apply : callable
        `apply(V)`, the product with a real matrix, (columns, k) -> (rows, k).
    apply_transpose : callable
        `apply_transpose(U)`, the product of the transpose, (rows, k) -> (columns, k).
    path, product_error, rounding
        As in `Provenance`; attributes, which `.T` and `.H` share.

    Notes
    -----
    SciPy's own default for `J @ V` is a loop over columns; here a matrix stays one call, also
    through `.T`, `.H`, sums and products. Complex vectors, such as eigenvectors, travel as their
    real and imaginary parts in one call.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: DTypeLike,
        apply: Apply,
        apply_transpose: Apply,
        *,
        path: str = "as given",
        product_error: float = 0.0,
        rounding: float = 0.0,
    ) -> None:
        super().__init__(_floating(dtype), shape)
        self._apply, self._apply_transpose = apply, apply_transpose
        self.path, self._product_error, self.rounding = path, product_error, rounding

    @property
    def product_error(self) -> float:
        """Relative error of a product that the check of its maker could not exclude."""
        return self._product_error

    def __matmul__(self, x: Any) -> Any:
        if np.isscalar(x):
            raise InputError(
                f"a product A @ x takes a vector or a matrix: got {_require.shown(x)}; write 2 * A"
                " for a multiple"
            )
        return super().__matmul__(x)

    def dot(self, x: Any) -> Any:
        """Return `A x`: a product with a vector or matrix, or with a number or an operator another
        operator.
        """
        if not (np.isscalar(x) or isinstance(x, LinearOperator) or issparse(x)):
            x = self._checked(x, self.shape[1])
        return super().dot(x)

    def matvec(self, x: ArrayLike) -> Array:
        """Return `A x`, x of shape (columns,) or (columns, 1)."""
        return super().matvec(self._checked(x, self.shape[1]))

    def rmatvec(self, x: ArrayLike) -> Array:
        """Return `A^H x`, x of shape (rows,) or (rows, 1)."""
        return super().rmatvec(self._checked(x, self.shape[0]))

    def matmat(self, X: ArrayLike) -> Array:
        """Return `A X`, X of shape (columns, k)."""
        return super().matmat(self._checked(X, self.shape[1]))

    def rmatmat(self, X: ArrayLike) -> Array:
        """Return `A^H X`, X of shape (rows, k)."""
        return super().rmatmat(self._checked(X, self.shape[0]))

    def _checked(self, x: ArrayLike, length: int) -> Array:
        try:
            array = np.asarray(x)
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(
                f"a product takes a vector or a matrix of numbers: got {_require.shown(x)}"
            ) from error
        if array.ndim and array.dtype.kind not in "fiubc":
            raise InputError(
                f"a product takes a vector or a matrix of numbers: got {_require.shown(x)}"
            )
        if array.ndim not in (1, 2) or array.shape[0] != length:
            raise InputError(
                f"a product with this {self.shape[0]} x {self.shape[1]} operator takes shape"
                f" ({length},) or ({length}, k): got {array.shape}. Flatten an image with"
                " .reshape(-1)"
            )
        return array

    def _matvec(self, x: Array) -> Array:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(x.reshape(-1, 1))[:, 0]

    def _matmat(self, X: Array) -> Array:
        return self._real(self._apply, X, self.shape[0])

    def _rmatmat(self, X: Array) -> Array:
        return self._real(self._apply_transpose, X, self.shape[1])

    def _real(self, apply: Apply, X: Array, rows: int) -> Array:
        if np.iscomplexobj(X):
            k = X.shape[1]
            parts = self._real(apply, np.concatenate([X.real, X.imag], axis=1), rows)
            return np.asarray(parts[:, :k] + 1j * parts[:, k:])
        product = np.asarray(apply(X))
        if product.shape != (rows, X.shape[1]):
            raise InputError(
                f"a product of the {self.shape[0]} x {self.shape[1]} operator has shape"
                f" {product.shape}: expected {(rows, X.shape[1])}"
            )
        if np.iscomplexobj(product):
            raise InputError(
                f"a product of the operator is {product.dtype}, but its dtype is {self.dtype}:"
                " expected real numbers; take the real or the imaginary part"
            )
        return product.astype(np.result_type(self.dtype, X.dtype), copy=False)

    def _transpose(self) -> Operator:
        return Operator(
            (self.shape[1], self.shape[0]),
            self.dtype,
            self._apply_transpose,
            self._apply,
            path=self.path,
            product_error=self.product_error,
            rounding=self.rounding,
        )

    _adjoint = _transpose


class Counted(LinearOperator):  # type: ignore[misc]
    """An operator in float64 that counts its products, `products`: a matrix of k columns counts k.

    Parameters
    ----------
    A : LinearOperator or array
    scaled : bool
        Divide every product by `unit`: a power of two near the largest entry of the first product
        that is not zero, if squares of squares of that entry overflow or underflow in the
        operator's dtype, and else 1.
    """

    def __init__(self, A: Matrix, scaled: bool = False) -> None:
        self.operator = real(A)
        self.provenance = provenance(A)
        self.products = 0
        self.unit = 1.0
        self._undecided = scaled
        self._tell: Callable[[int], Any] | None = None
        super().__init__(np.dtype(np.float64), self.operator.shape)

    @property
    def rounding(self) -> float:
        """Relative error of a product: the rounding of its sums in A's dtype, or what it is known
        to have beyond that.
        """
        return self.rounding_with(1.0)

    def rounding_with(self, room: float) -> float:
        """Return `rounding`, that of the sums with so much room."""
        eps = float(np.finfo(self.operator.dtype).eps)
        return max(room * eps * float(np.sqrt(max(self.shape))), self.provenance.rounding)

    def at_scale(self, largest: float) -> None:
        """Fix the unit for entries up to `largest`."""
        if largest and np.isfinite(largest):
            self._undecided = False
            ordinary = float(np.finfo(self.operator.dtype).max) ** 0.25
            if not 1 / ordinary <= largest <= ordinary:
                self.unit = float(2.0 ** np.floor(np.log2(largest)))

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[None]:
        """Show how many of `total` products are done, after two seconds, on a terminal, where tqdm
        is installed.
        """
        try:
            from tqdm import tqdm
        except ImportError:
            yield
            return
        with tqdm(
            total=total, desc=what, unit="product", delay=2, disable=None, leave=False
        ) as bar:
            self._tell = bar.update
            try:
                yield
            finally:
                self._tell = None

    def _counted(self, product: Callable[[Array], Array], X: Array) -> Array:
        found = np.asarray(product(X), dtype=np.float64)
        self.products += X.shape[1]
        if self._undecided:
            self.at_scale(float(np.abs(found).max(initial=0.0)))
        if self._tell is not None:
            self._tell(X.shape[1])
        return found if self.unit == 1 else found / self.unit

    def _matmat(self, X: Array) -> Array:
        return self._counted(self.operator.matmat, X)

    def _rmatmat(self, X: Array) -> Array:
        return self._counted(self.operator.rmatmat, X)

    def _matvec(self, x: Array) -> Array:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(x.reshape(-1, 1))[:, 0]


def provenance(A: Matrix) -> Provenance:
    """Return how products with A are computed; of a sum or product of operators, what its worst
    part says.
    """
    if isinstance(A, Operator):
        return Provenance(A.path, A.product_error, A.rounding)
    if isinstance(A, Counted):
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


def real(A: Matrix) -> LinearOperator:
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
    dtype = _floating(operator.dtype)
    if isinstance(A, Operator | Counted):
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
    operator = real(A)
    if operator.shape[0] != operator.shape[1]:
        raise InputError(
            f"expected a square operator: got {operator.shape[0]} x {operator.shape[1]}"
        )
    return operator


def _floating(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of the products of an operator: integers and truth values become float64."""
    given = np.dtype(dtype)
    if given.kind == "c":
        raise InputError(
            f"expected a real operator: got {given}; take its real or its imaginary part"
        )
    if given.kind not in "fiub":
        raise InputError(f"expected an operator of real numbers: got {given}")
    return given if given.kind == "f" else np.dtype(np.float64)


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
    if isinstance(A, Operator | Counted | MatrixLinearOperator):
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

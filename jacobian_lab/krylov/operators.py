"""Real operators for linear algebra, given by their products with matrices.

    Operator(shape, dtype, ...)    a `scipy.sparse.linalg.LinearOperator`, by its products
    Provenance                     how the products are computed, and their known errors

Operators of other origin become one in `jacobian_lab.krylov.conversion`; products are counted in
`jacobian_lab.krylov.counting`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from operator import attrgetter
from pickle import PicklingError
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import _require
from jacobian_lab.errors import InputError

Array: TypeAlias = NDArray[Any]
Apply: TypeAlias = Callable[[Array], Array]


def at_unit_scale(apply: Apply) -> Apply:
    """Return a product that divides each column by its largest entry before, and multiplies by it
    after: in float16 small columns vanish, and large ones overflow.
    """

    def scaled(V: Array) -> Array:
        size = np.abs(V).max(0, keepdims=True)
        size = np.where((size > 0) & np.isfinite(size), size, 1)
        found = apply(V / size)
        return np.asarray((found * size).astype(found.dtype))

    return scaled


AUDIT = ": audit the operator"
"""The remedy for products that are not finite."""
Matrix: TypeAlias = LinearOperator | NDArray[Any]
DENSE = 2**30
"""Bytes that a dense matrix and three more of its size may take: 1 GiB, n x n up to n = 5,792."""


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


class ByMatrices(LinearOperator, ABC):  # type: ignore[misc]
    """An operator whose products with matrices are one call; that with a vector is one of them."""

    @property
    @abstractmethod
    def provenance(self) -> Provenance:
        """How the products are computed."""

    def _matvec(self, x: Array) -> Array:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(x.reshape(-1, 1))[:, 0]


class Operator(ByMatrices):
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
    made_by : (callable, tuple), optional
        A function and its arguments that make the operator again, where it is unpickled.

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
        made_by: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
    ) -> None:
        super().__init__(floating(dtype), shape)
        self._made_by = made_by
        self._apply, self._apply_transpose = apply, apply_transpose
        self.path, self._product_error, self.rounding = path, product_error, rounding

    @property
    def product_error(self) -> float:
        """Relative error of a product that the check of its maker could not exclude."""
        return self._product_error

    @property
    def provenance(self) -> Provenance:
        """How the products are computed."""
        return Provenance(self.path, self.product_error, self.rounding)

    def __reduce__(self) -> Any:
        if self._made_by is None:
            raise PicklingError(
                "this operator is functions, which cannot be pickled: pickle what it is made of"
            )
        return self._made_by

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

    def _matmat(self, X: Array) -> Array:
        return self._real(self._apply, X, self.shape[0])

    def _rmatmat(self, X: Array) -> Array:
        return self._real(self._apply_transpose, X, self.shape[1])

    def _real(self, apply: Apply, X: Array, rows: int) -> Array:
        if np.iscomplexobj(X):
            k = X.shape[1]
            parts = self._real(apply, np.concatenate([X.real, X.imag], axis=1), rows)
            return np.asarray(parts[:, :k] + 1j * parts[:, k:])
        if not X.shape[1]:  # what few functions take
            return np.zeros((rows, 0), np.result_type(self.dtype, X.dtype))
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
            made_by=(attrgetter("T"), (self,)),
        )

    _adjoint = _transpose


def floating(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of the products of an operator: integers, truth values and what has more
    digits, which no solver keeps, become float64.
    """
    given = np.dtype(dtype)
    if given.kind == "c":
        raise InputError(
            f"expected a real operator: got {given}; take its real or its imaginary part"
        )
    if given.kind not in "fiub":
        raise InputError(f"expected an operator of real numbers: got {given}")
    return given if given.kind == "f" and given.itemsize <= 8 else np.dtype(np.float64)

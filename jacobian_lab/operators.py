"""Real operators for linear algebra: given by products with matrices, counted, checked. No tensors here.

    Operator(shape, dtype, apply, apply_transpose)     a `scipy.sparse.linalg.LinearOperator`
    Counted(A)                                         A in float64, with the number of its products
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from jacobian_lab.errors import InputError

Array: TypeAlias = NDArray[Any]
Apply: TypeAlias = Callable[[Array], Array]
Matrix: TypeAlias = LinearOperator | NDArray[Any]


class Operator(LinearOperator):  # type: ignore[misc]
    """A real linear operator that is given by its products with matrices, and asks for nothing else.

    Parameters
    ----------
    shape : (int, int)
    dtype : numpy dtype
        float32 or float64: the precision of the products. As in numpy, a float32 operator times a float64 vector is a
        float64 vector, so that a Krylov basis in float64 stays one.
    apply : callable
        `apply(V)`, the product with a real matrix, (columns, k) -> (rows, k).
    apply_transpose : callable
        `apply_transpose(U)`, the product of the transpose, (rows, k) -> (columns, k).

    Notes
    -----
    SciPy's own default for `J @ V` is a loop over columns; here a matrix stays one call, also through `.T`, `.H`, sums
    and products. Complex vectors, such as eigenvectors, travel as their real and imaginary parts in one call.
    """

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike, apply: Apply, apply_transpose: Apply) -> None:
        super().__init__(np.dtype(dtype), shape)
        self._apply, self._apply_transpose = apply, apply_transpose

    def dot(self, x: Any) -> Any:  # noqa: ANN401 - a number, an operator or an array, and what SciPy makes of it
        """Return `A x`: a product with a vector or matrix, or with a number or an operator another operator."""
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
        array = np.asarray(x)
        if array.ndim not in (1, 2) or array.shape[0] != length:
            raise InputError(f"a product with this {self.shape[0]} x {self.shape[1]} operator takes shape ({length},) or "
                             f"({length}, k): got {array.shape}. Flatten an image with .reshape(-1)")
        return array

    def _matvec(self, x: Array) -> Array:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(x.reshape(-1, 1))[:, 0]

    def _matmat(self, X: Array) -> Array:
        return self._real(self._apply, X)

    def _rmatmat(self, X: Array) -> Array:
        return self._real(self._apply_transpose, X)

    def _real(self, apply: Apply, X: Array) -> Array:
        if not np.iscomplexobj(X):
            return np.asarray(apply(X), dtype=np.result_type(self.dtype, X.dtype))
        k = X.shape[1]
        parts = np.asarray(apply(np.concatenate([X.real, X.imag], axis=1)), dtype=np.result_type(self.dtype, X.real.dtype))
        return np.asarray(parts[:, :k] + 1j * parts[:, k:])

    def _transpose(self) -> Operator:
        return Operator((self.shape[1], self.shape[0]), self.dtype, self._apply_transpose, self._apply)

    _adjoint = _transpose


class Counted(LinearOperator):  # type: ignore[misc]
    """An operator in float64 that counts its products, `products`: a matrix of k columns counts k."""

    def __init__(self, A: Matrix) -> None:
        self.operator = real(A)
        self.products = 0
        super().__init__(np.dtype(np.float64), self.operator.shape)

    def _matmat(self, X: Array) -> Array:
        self.products += X.shape[1]
        return np.asarray(self.operator.matmat(X), dtype=np.float64)

    def _rmatmat(self, X: Array) -> Array:
        self.products += X.shape[1]
        return np.asarray(self.operator.rmatmat(X), dtype=np.float64)

    def _matvec(self, x: Array) -> Array:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatvec(self, x: Array) -> Array:
        return self._rmatmat(x.reshape(-1, 1))[:, 0]


def real(A: Matrix) -> LinearOperator:
    """Return A as a LinearOperator, or raise if it is none, or complex."""
    try:
        operator = aslinearoperator(A)
    except TypeError as error:
        raise InputError(f"expected a LinearOperator or a numpy matrix: got {type(A).__name__}") from error
    if np.issubdtype(operator.dtype, np.complexfloating):
        raise InputError(f"expected a real operator: got {operator.dtype}; take its real or its imaginary part")
    return operator


def square(A: Matrix) -> LinearOperator:
    """Return A as a LinearOperator, or raise if it is not square and real."""
    operator = real(A)
    if operator.shape[0] != operator.shape[1]:
        raise InputError(f"expected a square operator: got {operator.shape[0]} x {operator.shape[1]}")
    return operator

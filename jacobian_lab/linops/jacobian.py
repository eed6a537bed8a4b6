"""A denoiser's Jacobian as a `scipy.sparse.linalg.LinearOperator`, and operators made of it.

    J = JacobianOperator(denoiser, x_t, t)
    J @ v, J.T @ u, J @ V            # vectors, or a matrix as one batched pass
    symmetric_part(J), skew_part(J), restriction(J, mask), posterior_covariance(J)
    scipy.sparse.linalg.eigs(J, k=6)

A vector is a flattened sample, n = C H W entries in the order of `tensor.reshape(-1)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.derivative.products import Method, Products
from jacobian_lab.derivative.settings import made_under
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.conversion import provenance, real_operator, square
from jacobian_lab.krylov.operators import (
    Apply,
    Array,
    Matrix,
    Operator,
    Provenance,
    at_unit_scale,
)


class JacobianOperator(Operator):
    """`J = dD/dx_t` of a denoiser at one noisy sample, as a real n x n operator, n = C H W.

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode; its weights, and `x_t`, set device and precision.
    x_t : Tensor, shape (1, *shape) or shape
        The noisy sample.
    t : int or float
        Its time, in the denoiser's schedule. J and J^T are taken at the same one.
    products : {"exact", "forward", "central"}
        How `J v` is computed: exact derivative or finite differences. `J^T u` is always exact.
    step : float, optional
        Step of the finite differences relative to |x_t|; see
        `jacobian_lab.derivative.products.Products`.
    memory : int, optional
        Bytes that the vectors of one pass may take; see
        `jacobian_lab.derivative.products.Products`.

    Attributes
    ----------
    path : str
        How `J v` is computed: "linearised", "double backward", "forward mode", "central
        difference", "forward difference".
    product_error : float
        How far `J v`, and `J^T u` once it was asked for, may be off relative to its size, as far as
        central differences of the network's output and the adjoint identity tell. An exact product
        is usually far more exact than that.
    rounding : float
        Relative error that each product is known to have beyond rounding: that of the differences,
        where it is they, or of the two parts of D where they cancel in J v.
    products : Products
        The products on tensors, (K, *shape); `products.d` is D(x_t, t).
    sample_shape : (int, int, int)
    alpha_t, sigma_t : float
        The noise level at t.

    Raises
    ------
    InputError
        If x_t has a wrong shape or is not finite, t is not of the schedule, or the network is in
        training mode or returns something else at each call.

    Warns
    -----
    DerivativeWarning
        If exact products were asked for and only finite differences pass the check.

    Notes
    -----
    The dtype is float64 for a float64 network and float32 otherwise. ARPACK's default `tol=0` then
    means the rounding of that dtype.

    PyTorch's autocast belongs to the place where the operator is made, wherever it is used: under
    `torch.autocast("cpu", torch.bfloat16)` it is the Jacobian of the network as it computes there,
    whose products take half the time on a CPU with AMX; they are off by about a percent, and
    `product_error` says how far differences can tell.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Time,
        products: Method = "exact",
        step: float | None = None,
        memory: int | None = None,
    ) -> None:
        self.products = Products(denoiser, x_t, t, products, step, memory)
        self.sample_shape = denoiser.shape
        self.alpha_t, self.sigma_t = (float(c) for c in denoiser.schedule(t))
        n = self.products.x.numel()
        dtype = np.float64 if self.products.x.dtype == torch.float64 else np.float32
        made_of = denoiser, self.products.x, t, products, step, memory
        super().__init__(
            (n, n),
            dtype,
            _on_columns(self.products.jvp, self.products.x),
            _on_columns(self.products.vjp, self.products.x),
            path=self.products.path,
            rounding=self.products.rounding,
            # a recording is closures: it is made, and checked, anew where J is unpickled
            made_by=(made_under, (self.products.autocast, type(self), made_of)),
        )

    @property
    def product_error(self) -> float:
        """How far products may be off; the first J^T u is compared with J v."""
        return self.products.error

    def dense(self) -> Array:
        """Return J as a numpy array, (n, n), in chunks that fit in the operator's `memory`.

        Rows by `J^T u` for unit vectors u; columns by `J v` for finite differences, or where there
        is no J^T.
        """
        n = self.shape[0]
        dense, chunk = np.empty(self.shape, dtype=self.dtype), min(n, self.products.chunk())
        by_columns = self.path.endswith("difference") or not self.products.has_transpose()
        for start in range(0, n, chunk):
            units = np.eye(n, min(chunk, n - start), -start, dtype=self.dtype)
            if by_columns:
                dense[:, start : start + chunk] = self.matmat(units)
            else:
                dense[start : start + chunk] = self.rmatmat(units).T
        self.products.forget()
        return dense


def _on_columns(product: Callable[[Tensor], Tensor], x: Tensor) -> Apply:
    """Return a product on numpy columns; it holds no operator, which would be a cycle that keeps a
    recording alive.
    """
    own, precision = (
        (np.float64, torch.float64) if x.dtype == torch.float64 else (np.float32, torch.float32)
    )

    def apply(V: Array) -> Array:
        rows = torch.from_numpy(np.ascontiguousarray(V.T, dtype=own)).to(x.device, x.dtype)
        result = product(rows.reshape(-1, *x.shape[1:])).reshape(len(rows), -1)
        return np.asarray(result.cpu().to(precision).numpy().T)

    return at_unit_scale(apply) if x.dtype == torch.float16 else apply


def symmetric_part(A: Matrix) -> Operator:
    """Return `(A + A^T) / 2` for a square operator or matrix; a product costs one with A and one
    with A^T.
    """
    A = square(A)
    transpose = A.T

    def apply(V: Array) -> Array:
        return np.asarray((A @ V + transpose @ V) / 2)

    made = symmetric_part, (A,)
    return Operator(A.shape, A.dtype, apply, apply, made_by=made, **_of_part(A, apply))


def skew_part(A: Matrix) -> Operator:
    """Return `(A - A^T) / 2` for a square operator or matrix; a product costs one with A and one
    with A^T.
    """
    A = square(A)
    transpose = A.T

    def apply(V: Array) -> Array:
        return np.asarray((A @ V - transpose @ V) / 2)

    made = skew_part, (A,)
    return Operator(
        A.shape, A.dtype, apply, lambda V: -apply(V), made_by=made, **_of_part(A, apply)
    )


def _of_part(A: LinearOperator, part: Apply) -> dict[str, Any]:
    """Return the provenance of a part of A, measured by a product with A and one with the part."""
    known, n = provenance(A), A.shape[0]
    v = np.random.default_rng(0).standard_normal((n, 1))
    larger = _larger(A @ v, part(v))
    rounding = max(known.rounding, float(np.finfo(A.dtype).eps) * n**0.5 * (larger > 1))
    return Provenance(known.path, known.product_error * larger, rounding * larger)._asdict()


def _larger(whole: Array, own: Array) -> float:
    """Return by how much errors of whole products grow relative to what is kept of them."""
    size = float(np.linalg.norm(own))
    return max(1.0, float(np.linalg.norm(whole)) / size) if size else 1.0


def restriction(
    A: Matrix, rows: Tensor | ArrayLike, columns: Tensor | ArrayLike | None = None
) -> Operator:
    """Return the submatrix of A at the entries that masks mark: `R A C^T`, of shape (marked rows,
    marked columns).

    Parameters
    ----------
    A : LinearOperator or array
    rows, columns : array of bool
        Masks of as many entries as A has rows and columns, in any shape, such as (C, H, W).
        `columns` is `rows` by default.
    """
    A = real_operator(A)
    transpose = A.T
    r = _entries(rows, A.shape[0], "rows")
    c = _entries(rows if columns is None else columns, A.shape[1], "columns")

    def through(operator: LinearOperator, into: Array, out: Array) -> Apply:
        def apply(V: Array) -> Array:
            padded = np.zeros((operator.shape[1], V.shape[1]), dtype=V.dtype)
            padded[into] = V
            return np.asarray((operator @ padded)[out])

        return apply

    known = provenance(A)
    if known.rounding:  # differences may be as rough where J is small
        v = np.zeros(A.shape[1])
        v[c] = np.random.default_rng(0).standard_normal(len(c))
        larger = _larger(whole := A @ v, whole[r])
        known = Provenance(known.path, known.product_error * larger, known.rounding * larger)
    return Operator(
        (len(r), len(c)),
        A.dtype,
        through(A, c, r),
        through(transpose, r, c),
        made_by=(restriction, (A, rows, columns)),
        **known._asdict(),
    )


def posterior_covariance(J: JacobianOperator) -> Operator:
    """Return `Cov[x_0 | x_t] = (sigma_t^2 / alpha_t) J`, by Tweedie's second-order formula.

    As far as the network is a posterior mean: what its J is not symmetric or positive, this
    covariance is not either.
    """
    _require.instance(
        "J", J, JacobianOperator, "; of another operator the noise level is not known"
    )
    if J.alpha_t == 0:
        raise InputError(
            "at alpha_t = 0 the sample is pure noise, J = 0 says nothing of the covariance: take an"
            " earlier time"
        )
    scale, transpose = J.sigma_t**2 / J.alpha_t, J.T
    return Operator(
        J.shape,
        J.dtype,
        lambda V: scale * (J @ V),
        lambda V: scale * (transpose @ V),
        made_by=(posterior_covariance, (J,)),
        **provenance(J)._asdict(),
    )


def _entries(mask: Tensor | ArrayLike, n: int, name: str) -> Array:
    array = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask)
    if array.dtype != np.bool_:
        raise InputError(
            f"the mask of {name} must be boolean: got {array.dtype}; write mask > 0.5 or the like"
        )
    if array.size != n:
        raise InputError(
            f"the mask of {name} has {array.size} entries, shape {array.shape}: expected {n}, one"
            f" for each of the operator's {name}"
        )
    entries = np.flatnonzero(array)
    if not len(entries):
        raise InputError(f"the mask of {name} marks no entry: expected at least one True")
    return entries

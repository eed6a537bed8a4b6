r"""The Newton step: from an error e, the change wanted in D(x_t), to a change delta of x_t.

    "inexact"    J e      one product, or one finite difference: a forward pass
    "gradient"   J^T e    one backward pass: gradient descent on |e|^2 / 2
    "exact"      J^+ e    least squares with the dense J, singular values below rcond cut off
    "krylov"     k steps of GMRES on J delta = e: k products (Jacobian-free Newton-Krylov)
    "identity"   e        nothing

A step of size lambda turns e into `e - lambda J delta` to first order: `(I - lambda J^2) e` for the inexact direction.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor

from jacobian_lab.errors import InputError
from jacobian_lab.solve import gmres, lstsq

Kind: TypeAlias = Literal["inexact", "gradient", "exact", "krylov", "identity"]
Values = TypeVar("Values", Tensor, NDArray[Any])


def newton_direction(J: LinearOperator | NDArray[Any], e: Values, kind: Kind, *, rcond: float | None = None,
                     steps: int = 10) -> Values:
    """Return the direction delta in which to move x_t so that D(x_t) changes by e.

    Parameters
    ----------
    J : LinearOperator or array, shape (n, n)
        Such as a `JacobianOperator`; for several exact directions at one point pass `J.dense()`.
    e : Tensor or array of n entries, in any shape
        The change wanted in D(x_t); scale as the pixels.
    kind : {"inexact", "gradient", "exact", "krylov", "identity"}
    rcond : float, optional
        For "exact": singular values up to rcond times the largest count as zero; see `jacobian_lab.solve.lstsq`.
    steps : int
        For "krylov": products spent.

    Returns
    -------
    Tensor or array
        Of the type, shape, dtype and device of `e`.

    Raises
    ------
    InputError
        If the kind is unknown, or e has a wrong number of entries or is not finite.

    References
    ----------
    Graikos, Jojic, Samaras (2025), *Fast constrained sampling in pre-trained diffusion models*, arXiv 2410.18804.
    Knoll, Keyes (2004), *Jacobian-free Newton-Krylov methods*.
    """
    if kind not in get_args(Kind):
        raise InputError(f"unknown direction {kind!r}: expected one of {', '.join(get_args(Kind))}")
    vector = _vector(e, J.shape[1])
    match kind:
        case "inexact":
            delta = J @ vector
        case "gradient":
            delta = aslinearoperator(J).T @ vector
        case "exact":
            delta = lstsq(J, vector, rcond).x
        case "krylov":
            delta = gmres(J, vector, steps).x
        case "identity":
            delta = vector.copy()
    if isinstance(e, Tensor):
        return torch.from_numpy(np.array(delta)).to(e).reshape(e.shape)
    return np.asarray(delta, dtype=e.dtype).reshape(e.shape)


def _vector(e: Tensor | NDArray[Any], n: int) -> NDArray[np.float64]:
    """Return e as a float64 vector of n entries, or raise."""
    if not (e.is_floating_point() if isinstance(e, Tensor) else e.dtype.kind == "f"):
        raise InputError(f"e must be real floating point: got {e.dtype}; the direction is handed back in its dtype")
    vector = np.asarray(e.detach().cpu().double() if isinstance(e, Tensor) else e, dtype=np.float64).reshape(-1)
    if len(vector) != n:
        raise InputError(f"e has {len(vector)} entries, shape {tuple(e.shape)}: expected {n}, one for a column of J")
    if not np.isfinite(vector).all():
        bad = int((~np.isfinite(vector)).sum())
        raise InputError(f"e has {bad} values of {len(vector)} that are not finite (NaN or infinite)")
    return vector


def dynamic_step_size(direction: Values, largest_change: float) -> float:
    """Return `lambda = c / max |direction|`, so that no entry of x_t moves by more than c = `largest_change`.

    References
    ----------
    Graikos, Jojic, Samaras (2025), the step size of the paper's algorithm.
    """
    largest = float(abs(direction).max())
    if not np.isfinite(largest):
        raise InputError(f"the direction is not finite: its largest entry is {largest}")
    if largest == 0:
        raise InputError("the direction is zero everywhere: no step size moves x_t along it")
    return largest_change / largest

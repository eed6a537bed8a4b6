r"""Orthogonalisation by classical Gram-Schmidt, twice: orthogonal to rounding, and matrix products
in place of a loop over the basis.

References
----------
Giraud, Langou, Rozloznik (2005), *The loss of orthogonality in the Gram-Schmidt process*: twice is
enough.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from jacobian_lab import _require
from jacobian_lab.errors import InputError

Array: TypeAlias = NDArray[np.float64]


def project_out(Q: Array, w: Array) -> tuple[Array, Array]:
    """Return `w - Q h`, orthogonal to the columns of Q, and h, shape (m,)."""
    h = Q.T @ w
    w = w - Q @ h
    again = Q.T @ w  # twice is enough
    return w - Q @ again, h + again


def ranked(W: Array, most: int, least: float) -> tuple[Array, Array, int]:
    """Return q and R, `W = q R`, with at most so many columns, and how many of them are above
    rounding.
    """
    if W.shape[1] == 1:
        size = float(np.linalg.norm(W))
        rank = int(most > 0 and size > least)
        return W / size if rank else W, np.array([[size]]), rank
    q, R, order = scipy.linalg.qr(W, mode="economic", pivoting=True)
    rank = min(int((np.abs(np.diag(R)) > least).sum()), most)
    return q, R[:, np.argsort(order)], rank


def orthogonal_to(Q: Array, vector: Array) -> Array:
    """Return the part of a vector that is orthogonal to the columns of Q, at length 1."""
    # a vector that lies nearly in the space loses its digits in the first pass
    for _ in range(3):
        vector = vector / np.linalg.norm(vector)
        vector = vector - Q @ (Q.T @ vector)
    return vector / np.linalg.norm(vector)


def unit_vector(start: ArrayLike, n: int) -> Array:
    """Return a start vector of n entries at length 1, or raise."""
    vector = _require.array("the start vector", start, (n,))
    if not vector.any():
        raise InputError(
            "the start vector is zero: expected a direction, such as a random one (leave it out)"
        )
    vector = vector / np.abs(vector).max()
    return vector / np.linalg.norm(vector)

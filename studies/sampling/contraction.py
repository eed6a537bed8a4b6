r"""How much of the error does one inexact Newton step leave: as measured, and as the dense Jacobian
predicts it.

    e  ->  (I - lambda P J^2 P) e        P the mask, lambda the size of the step

Linear algebra on one dense J, (n, n), or on a few products where J is too large; what a study makes
of many of them is in `studies.sampling.convergence`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import Denoiser, arnoldi, restriction, symmetric_part
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.krylov.operators import Matrix, Operator
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.newton import newton_direction
from jacobian_lab.sampling.step_size import Spectral, StepSize
from studies.frame.models import DENSE
from studies.frame.study import Arrays

RANKS = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500])
"""Sizes of the leading eigenspaces whose share of e is measured."""
STEPS = 10
"""Arnoldi steps for the largest eigenvalues where J is not written down."""
UNKNOWN: Arrays = {
    name: np.array(np.nan)
    for name in (
        *("measured", "move", "arnoldi", "linear", "symmetric", "without_mask", "real", "complex"),
        *("mask", "mu", "ratio", "radius", "radius_mask", "reached"),
    )
} | {name: np.full(len(RANKS), np.nan) for name in ("share", "share_mask")}
"""What `contraction` returns, where there is nothing to measure."""


def contraction(
    denoiser: Denoiser,
    x_t: Tensor,
    t: int | float,
    constraint: Inpainting,
    rule: StepSize,
    progress: float = 0.0,
) -> Arrays:
    """Take one inexact step at x_t, (1, C, H, W); return |e after| / |e before| as measured, and as
    J predicts it.

    From the dense J up to n = DENSE, from products beyond.
    """
    J = BatchJacobian(denoiser, x_t, t)
    e = constraint.error(J.d)
    g = newton_direction(J, e, "inexact")
    size = rule(J, e, g, constraint, progress).reshape(-1, 1, 1, 1)
    after = constraint.error(J.denoise(x_t + size * g))
    A = J.block(0)
    known = constraint.mask.expand_as(x_t)[0].reshape(-1).cpu().numpy()
    error = J.arrays(e)[0]
    found = (
        predictions(A.dense().astype(np.float64), known, error, float(size))
        if A.shape[0] <= DENSE
        else predictions_by_products(A, known, error, float(size))
    )
    return found | {
        "arnoldi": np.array(float(Spectral().mu(J, e)[0])),
        "measured": np.array(float(after.norm() / e.norm())),
        "move": np.array(float((size * g).abs().max())),
    }


def predictions(
    A: NDArray[np.float64], known: NDArray[np.bool_], e: NDArray[np.float64], size: float
) -> Arrays:
    """Return what the dense J, (n, n), says of a step of `size` from the error e, (n,), seen at the
    known entries.

    Returns
    -------
    dict
        Factors |e after| / |e before|: "linear" as above, "symmetric" with (J + J^T) / 2 for J,
        "without_mask" with 1 for P; by the largest eigenvalue mu of J as "real" and "complex", or
        nu of P J^2 P, "mask"; by all eigenvalues, the spectral "radius" and "radius_mask". Then
        "share" and "share_mask", the part of |e|^2 in the leading eigenspaces of J and of P J^2 P,
        by their sizes `RANKS`; "reached", in those of P J^2 P with `|lambda nu| > 0.1`, what a step
        can change; and "mu", |mu|, and "ratio", |nu / mu^2| of the largest eigenvalues, what the
        mask leaves.
    """
    mu, share = _eigenspaces(A, e)
    nu, share_mask = _eigenspaces((A @ A)[np.ix_(known, known)], e[known])
    reached = int((size * abs(nu) > 0.1).sum())
    return _factors(A, (A + A.T) / 2, known, e, size, mu[0], nu[0]) | {
        "radius": np.array(abs(1 - size * mu**2).max()),
        "radius_mask": np.array(abs(1 - size * nu).max()),
        "share": share[np.minimum(RANKS, len(share)) - 1],
        "share_mask": share_mask[np.minimum(RANKS, len(share_mask)) - 1],
        "reached": np.array(share_mask[reached - 1] if reached else 0.0),
    }


def predictions_by_products(
    A: Operator, known: NDArray[np.bool_], e: NDArray[np.float64], size: float
) -> Arrays:
    """Return the same from products with J: mu and nu by a few Arnoldi steps from e; NaN for what
    takes whole eigenspaces.
    """
    square = Operator(A.shape, A.dtype, lambda V: A @ (A @ V), lambda U: A.T @ (A.T @ U))
    mu, nu = (
        arnoldi(B, STEPS, start).ritz()[0][0]
        for B, start in ((A, e), (restriction(square, known), e[known]))
    )
    whole = ("radius", "radius_mask", "reached", "share", "share_mask")
    return _factors(A, symmetric_part(A), known, e, size, mu, nu) | {
        key: UNKNOWN[key] for key in whole
    }


def _factors(
    A: Matrix,
    S: Matrix,
    known: NDArray[np.bool_],
    e: NDArray[np.float64],
    size: float,
    mu: complex,
    nu: complex,
) -> Arrays:
    """Return the factors that J, its symmetric part, and the largest eigenvalues mu of J and nu of
    P J^2 P predict.
    """
    length = float(np.linalg.norm(e))
    after = {
        "linear": known * (A @ (A @ e)),
        "symmetric": known * (S @ (S @ e)),
        "without_mask": A @ (A @ e),
    }
    return {
        name: np.array(np.linalg.norm(e - size * change) / length) for name, change in after.items()
    } | {
        "real": np.array(abs(1 - size * abs(mu) ** 2)),
        "complex": np.array(abs(1 - size * mu**2)),
        "mask": np.array(abs(1 - size * nu)),
        "mu": np.array(abs(mu)),
        "ratio": np.array(abs(nu) / abs(mu) ** 2),
    }


def _eigenspaces(
    A: NDArray[np.float64], e: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the eigenvalues of A from the largest down, and the part of |e|^2 in the span of the
    first k eigenvectors.
    """
    values, vectors = np.linalg.eig(A)
    order = np.argsort(-abs(values))
    basis, _ = np.linalg.qr(vectors[:, order])
    return values[order], np.cumsum(abs(basis.conj().T @ e) ** 2) / (e @ e)

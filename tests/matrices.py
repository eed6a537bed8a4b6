"""Matrices on which methods for spectra fail: repeated, clustered, defective, far from normal."""

import numpy as np
import scipy.linalg
from scipy.optimize import linear_sum_assignment

from jacobian_lab.krylov.operators import Operator
from jacobian_lab.krylov.schur import RANKS

RNG = np.random.default_rng(0)
SCALES = [
    (1e-150, 1e-300),
    (1e-150, 1.0),
    (1e-150, 1e150),
    (1e-300, 1e-300),
    (1e-300, 1.0),
    (1e150, 1.0),
    (1e150, 1e300),
    (1e300, 1e150),
    (1e300, 1.0),
]
"""Of a matrix and of a right-hand side: a solver is free of them."""


def by_differences(A, rounding=1e-5):
    """An operator whose products are known to be rough."""
    return Operator(
        A.shape,
        A.dtype,
        lambda V: A @ V,
        lambda U: A.T @ U,
        path="central difference",
        product_error=1e-3,
        rounding=rounding,
    )


def similar(T):
    S = RNG.standard_normal((len(T), len(T)))
    return S @ T @ np.linalg.inv(S)


def jordan(value, size):
    return value * np.eye(size) + np.diag(np.ones(size - 1), 1)


REPEATED = np.diag([5.0, 5, 5, 4, 3, 2, *(0.5**i for i in range(34))])
ADVERSARIAL = {
    "repeated": REPEATED,
    "repeated, nonsymmetric": similar(REPEATED),
    "identity": np.eye(30),
    "zero": np.zeros((20, 20)),
    "rank one": np.outer(RNG.standard_normal(30), RNG.standard_normal(30)),
    "rank one, nilpotent": np.eye(20, k=3) * (np.arange(20) < 1),
    "nilpotent": np.eye(30, k=1),
    "defective": scipy.linalg.block_diag(
        jordan(3, 4), jordan(2, 3), np.diag(np.linspace(0, 1, 30))
    ),
    "defective, dense": similar(
        scipy.linalg.block_diag(jordan(3, 4), np.diag(np.linspace(0, 1, 30)))
    ),
    "Grcar": scipy.linalg.toeplitz([1, -1, *[0] * 48], [1, 1, 1, 1, *[0] * 46]).astype(float),
    "Hilbert": scipy.linalg.hilbert(30),
    "equal moduli": np.roll(np.eye(36), 1, 0),
    "orthogonal": np.linalg.qr(RNG.standard_normal((40, 40)))[0],
    "skew": (lambda a: a - a.T)(RNG.standard_normal((40, 40))),
    "clustered": np.diag(np.r_[1 + 1e-9 * np.arange(10), RNG.random(30) / 2]),
    "large": 1e120 * RNG.standard_normal((30, 30)),
    "small": 1e-120 * RNG.standard_normal((30, 30)),
    "random": RNG.standard_normal((120, 120)),
    "one": np.array([[3.0]]),
    "rotation": np.array([[0.0, 1], [-1, 0]]),
}


def decaying():
    """A nonsymmetric 300 x 300 matrix with a spectrum that falls as a denoiser's does."""
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    S = Q @ np.diag(10 / np.arange(1, 301) ** 1.5) @ Q.T
    return S + 0.1 * S @ rng.standard_normal((300, 300)) / 17


def blur(side, width=1.0):
    """A Gaussian blur on a torus: most eigenvalues four times, those of the second and third rank
    too.
    """
    d = np.minimum(np.arange(side), side - np.arange(side))
    row = np.exp(-((d / width) ** 2))
    return np.kron(*2 * [scipy.linalg.circulant(row / row.sum())])


def ranked_right(result, which, true):
    """Whether the ranks are those of the most wanted, each within its stated error."""
    reached = np.sort(RANKS[which](result.values) + result.errors)[::-1]
    wanted = np.sort(RANKS[which](true))[::-1][: len(reached)]
    distance = np.maximum(abs(result.values[:, None] - true) - result.errors[:, None], 0)
    return (wanted - reached).max() <= 1e-13 and distance[
        linear_sum_assignment(distance)
    ].max() <= 1e-13

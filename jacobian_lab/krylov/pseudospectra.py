r"""What the eigenvalues of a nonsymmetric operator do not say: numerical range, pseudospectra,
Bendixson's box.

    numerical range    W(A) = { x^H A x : |x| = 1 }, convex; the hull of the spectrum if A is normal
    pseudospectrum     sigma_min(z I - A) <= eps: where eigenvalues of A + E, |E| <= eps, can lie
    Bendixson's box    Re in [lambda_min(S), lambda_max(S)], |Im| <= |K|,  A = S + K

Each takes a matrix, and is then exact; or an `Arnoldi` factorisation A Q_m = Q_{m+1} H, and costs
no further product. What the factorisation gives lies inside the true set and grows to it with m:
W(Q^T A Q) is in W(A), and `sigma_min(z I - H) >= sigma_min(z I - A)`, with I and H of shape (m + 1,
m).

>>> import numpy as np
>>> jordan = np.array([[0.0, 1.0], [0.0, 0.0]])
>>> np.abs(numerical_range(jordan, 8)).round(6).tolist()  # a disc around the double eigenvalue 0
[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]

References
----------
Trefethen, Embree (2005), *Spectra and pseudospectra*, sections 17, 39, 40; Johnson (1978),
*Numerical determination of the field of values*; Toh, Trefethen (1996), *Calculation of
pseudospectra by the Arnoldi iteration*; Bendixson (1902).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

from jacobian_lab import _require
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.factorisation import Arnoldi

Given: TypeAlias = Arnoldi | NDArray[Any]
MOST = 10**6
"""Points of a numerical range at most."""
BATCH = 2**22
"""Numbers in the matrices whose singular values are taken at a time."""


class Box(NamedTuple):
    """Bendixson's box: every eigenvalue has its real part in [left, right] and its imaginary part
    in [-height, height].
    """

    left: float
    right: float
    height: float


def numerical_range(A: Given, points: int = 64) -> NDArray[np.complex128]:
    """Return points on the boundary of W(A), counterclockwise, shape (points,).

    At the angle theta the largest eigenvector x of `(e^{-i theta} A + e^{i theta} A^T) / 2` gives
    the boundary point `x^H A x` that lies farthest in the direction theta.

    Parameters
    ----------
    A : Arnoldi or array, shape (n, n)
    points : int
        How many angles, at least 3.
    """
    M = _projected(A)
    points = _require.integer("points", points, 3, MOST)
    boundary = np.empty(points, dtype=np.complex128)
    last = [len(M) - 1, len(M) - 1]
    for i in range(points // 2 + 1):  # W(A) of a real A is symmetric about the real axis
        rotated = np.exp(-2j * np.pi * i / points) * M
        x = eigh((rotated + rotated.conj().T) / 2, subset_by_index=last)[1][:, 0]
        boundary[i] = x.conj() @ M @ x
        if i:
            boundary[points - i] = boundary[i].conj()
    return boundary


def pseudospectrum(A: Given, z: ArrayLike) -> NDArray[np.float64]:
    """Return `sigma_min(z I - A)` at each z, or an upper bound of it from a factorisation, in the
    shape of z.

    A contour of it at eps bounds the eps-pseudospectrum, or, from a factorisation, a set inside of
    it.

    Parameters
    ----------
    A : Arnoldi or array, shape (n, n)
    z : array of complex
    """
    square = _projected(A)
    M = A.hessenberg if isinstance(A, Arnoldi) else square
    try:
        points = np.asarray(z, dtype=np.complex128)
    except (TypeError, ValueError) as error:
        raise InputError(f"z must be complex numbers: got {_require.shown(z)}") from error
    if z is None or not np.isfinite(points).all():
        raise InputError(f"z must be finite complex numbers: got {_require.shown(z)}")
    flat = points.reshape(-1)
    eye = np.eye(*M.shape)
    found = [
        np.linalg.svd(some[:, None, None] * eye - M, compute_uv=False)[:, -1]
        for some in np.array_split(flat, max(1, flat.size * M.size // BATCH))
        if some.size
    ]
    return np.concatenate([np.zeros(0), *found]).reshape(points.shape)


def bendixson_box(A: Given) -> Box:
    """Return the box that symmetric and skew part put around the spectrum; from a factorisation,
    around its Ritz values.
    """
    M = _projected(A)
    real, skew = np.linalg.eigvalsh(M / 2 + M.T / 2), np.linalg.eigvalsh((M / 2 - M.T / 2) / 1j)
    return Box(float(real[0]), float(real[-1]), float(np.abs(skew).max()))


def _projected(A: Given) -> NDArray[np.float64]:
    """Return the matrix, or the operator on the space of a factorisation."""
    M = np.asarray(A.projected if isinstance(A, Arnoldi) else A)
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not M.size:
        raise InputError(
            "expected a square matrix, or a factorisation of at least one step: got shape"
            f" {M.shape}"
        )
    return _require.array("the matrix", M)

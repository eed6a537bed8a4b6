r"""The density with the largest entropy among all that have four given moments.

On an interval around the mean it is `exp(polynomial of degree 4)`: unimodal or bimodal, and the
Gaussian where skewness and excess kurtosis are 0. Its coefficients minimise a convex function, the
dual

    log integral phi(z) exp(sum_k c_k h_k(z)) dz - sum_k c_k E[h_k]

in Hermite's polynomials h_k, orthonormal under the Gaussian phi, z the standardised variable.

References
----------
Mead, Papanicolaou (1984), *Maximum entropy in the problem of moments*; Manor, Michaeli (2024), who
draw it along principal components of a denoiser's posterior.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.polynomial.hermite_e import hermeval
from numpy.typing import ArrayLike, NDArray

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.linops.cumulants import PosteriorMoments

Array = NDArray[np.float64]
HALF_WIDTH = 8.0
"""Standard deviations on either side of the mean: a density with heavy tails has no maximum-entropy
one on the whole line, and on an interval it puts the little that it needs at the ends.
"""
GRID = 6401
"""Points at which it is integrated, and checked at twice as many: peaks, and what is at the ends,
may be too narrow.
"""
ENDS = (3 / 8, 7 / 6, 23 / 24)
"""Weights next to the ends, which make the trapezoidal rule one of order 4 (Gregory)."""
WANTED = 1e-6
"""How closely the moments must be met, in standardised units."""
PROMINENCE = 0.05
"""Height of a mode above the valley beside it, relative to the highest, from which it counts."""


@dataclass(frozen=True)
class Density:
    """A density on the line, at points that are equally spaced."""

    points: Array
    logs: Array
    """Logarithm of the density at the points."""
    residual: float
    """Largest miss of E[h_k], k = 0 ... 4; h_k are Hermite's polynomials of the standardised
    variable.
    """
    converged: bool

    @property
    def values(self) -> Array:
        """The density at the points."""
        return np.asarray(np.exp(self.logs))

    def __call__(self, y: ArrayLike) -> Array:
        """Return the density at y; 0 outside of the points."""
        return np.asarray(np.exp(self.log(y)))

    def log(self, y: ArrayLike) -> Array:
        """Return the logarithm of the density at y; -inf outside of the points."""
        from scipy.interpolate import CubicSpline

        at = np.asarray(y, dtype=np.float64)
        outside = (at < self.points[0]) | (at > self.points[-1])
        return np.where(outside, -np.inf, CubicSpline(self.points, self.logs)(at))

    @property
    def modes(self) -> Array:
        """Where its modes are, ends of the interval left out."""
        from scipy.signal import find_peaks

        values = self.values
        found, _ = find_peaks(values, prominence=PROMINENCE * values.max())
        return np.asarray(self.points[found])


def maximum_entropy(moments: PosteriorMoments) -> Density:
    """Return the density of largest entropy with the four moments, on 8 standard deviations to
    either side of the mean.

    Raises
    ------
    InputError
        If no distribution has the moments: kurtosis below 1 + skewness^2.

    Warns
    -----
    ConvergenceWarning
        If the moments are not met to 1e-6: next to the impossible ones, or with tails so heavy that
        the interval is too short. Also if a moment's error is infinite: it is then a guess.
    """
    _require.instance("moments", moments, PosteriorMoments)
    skewness, excess = moments.skewness, moments.excess_kurtosis
    if not moments.possible:
        raise InputError(
            f"no distribution has skewness {skewness:.3g} and kurtosis {excess + 3:.3g}: expected a"
            f" kurtosis of at least 1 + skewness^2 = {1 + skewness**2:.3g}. The denoiser is no"
            " posterior mean there"
        )
    z = np.linspace(-HALF_WIDTH, HALF_WIDTH, GRID)
    logs, residual = _standardised(z, skewness, excess)
    settled = bool(np.isfinite(moments.errors).all())
    converged = residual <= WANTED and settled
    if not converged:
        why = "" if settled else ", which themselves are not known (an error is infinite)"
        warnings.warn(
            f"the maximum-entropy density misses its moments by {residual:.1g}{why}: skewness"
            f" {skewness:.3g}, kurtosis {excess + 3:.3g}",
            ConvergenceWarning,
            stacklevel=2,
        )
    s = moments.deviation
    return Density(moments.mean + s * z, logs - np.log(s), residual, bool(converged))


def _standardised(z: Array, skewness: float, excess: float) -> tuple[Array, float]:
    """Return the logarithm of the density of the standardised variable at z, and what its moments
    miss.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    target = np.array([0, 0, skewness / np.sqrt(6), excess / np.sqrt(24)])
    base, H = _quadrature(z)

    def expected(c: Array) -> tuple[Array, float]:
        logs = base + c @ H
        total = float(logsumexp(logs))
        return np.exp(logs - total), total

    def dual(c: Array) -> tuple[float, Array]:
        p, total = expected(c)
        return total - float(c @ target), H @ p - target

    def curvature(c: Array) -> Array:
        p, _ = expected(c)
        centred = H - (H @ p)[:, None]
        return np.asarray((centred * p) @ centred.T)

    found = minimize(
        dual, np.zeros(4), jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10}
    )
    c = np.asarray(found.x)
    _, total = expected(c)
    base, finer = _quadrature(np.linspace(z[0], z[-1], 2 * len(z) - 1))
    p = np.exp(base + c @ finer - total)
    misses = np.append(finer @ p - target, p.sum() - 1)
    return -(z**2) / 2 + c @ H - total, float(np.abs(misses).max())


def _quadrature(z: Array) -> tuple[Array, Array]:
    """Return the logarithms of the Gaussian's weights at points z, but for a constant, and the
    polynomials of orders 1 to 4 there.
    """
    weight = np.gradient(z)
    weight[: len(ENDS)] *= ENDS
    weight[-len(ENDS) :] *= ENDS[::-1]
    H = [hermeval(z, np.eye(5)[k]) / np.sqrt(factorial(k)) for k in range(1, 5)]
    return np.log(weight) - z**2 / 2, np.stack(H)

r"""Moments of the posterior along a direction, the third and fourth by differences of J v.

p(x_0 | x_t) is an exponential family in `a x_t / s^2` (a = alpha_t, s = sigma_t): its cumulants are
derivatives of D. Along a unit vector v, with `g(h) = v^T J(x_t + h v) v`, those of v^T x_0 are

    k_1 = v^T D(x_t)     k_2 = (s^2/a) g(0)     k_3 = (s^2/a)^2 g'(0)     k_4 = (s^2/a)^3 g''(0)

and its central moments are k_2, k_3 and k_4 + 3 k_2^2. g comes from exact products J v; only its
two derivatives are differences, extrapolated to h = 0 by Richardson's method.

References
----------
Manor, Michaeli (2024), *On the posterior distribution in denoising: application to uncertainty
quantification*, theorem 1 and its corollary along a direction.

Moré, Wild (2011), *Estimating computational noise*: the noise of a smooth function, from
differences over points close to each other (Hamming).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.linops.batch_jacobian import BatchJacobian

Array = NDArray[np.float64]
REACH = 0.5
"""Largest step of the differences: it moves the posterior's mean by this many standard deviations.
Two equal modes, the hardest case near it, have the nearest pole of g at pi / 2.
"""
HALVINGS = 5
"""How often the step is halved: rounding in float64 then costs 1e-12 of g''."""
TRIES = 3
"""How often the steps go on where the last left off, if the error of the fourth moment is above the
root of the rounding: a rare mode far away, or a network that is rough along v, needs short ones.
"""
ROUNDING = 64
"""Rounding errors of g, in units of the network's precision: convolutions sum thousands of
terms.
"""
NEAR = 6
"""Points close to x_t, and to the farthest point beside it, at which the noise of g and of the mean
is measured: what a network rounds where its own terms cancel is not seen from outside.
"""
DOUBT = 8
"""Standard deviations of that noise, from NEAR - 2 second differences, in an error."""


@dataclass(frozen=True)
class PosteriorMoments:
    """Moments of v^T x_0 given x_t, with their errors.

    They are those of a distribution as far as the denoiser is a posterior mean; `possible` says
    whether any distribution has them.
    """

    mean: float
    """v^T D(x_t)."""
    variance: float
    third: float
    """Third central moment."""
    fourth: float
    """Fourth central moment."""
    errors: tuple[float, float, float, float]
    """How far each may be off, by rounding and extrapolation; infinite if it does not settle."""
    products: int
    """Products J v that they took."""

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return float(np.sqrt(self.variance))

    @property
    def skewness(self) -> float:
        """Third central moment over deviation^3; 0 of a Gaussian."""
        return self.third / self.deviation**3

    @property
    def excess_kurtosis(self) -> float:
        """Fourth central moment over variance^2, less 3; 0 of a Gaussian."""
        return self.fourth / self.variance**2 - 3

    @property
    def skewness_error(self) -> float:
        """How far the skewness may be off, to first order in the errors."""
        _, of_variance, of_third, _ = self.errors
        of_deviation = of_variance / self.variance / 2
        return of_third / self.deviation**3 + 3 * abs(self.skewness) * of_deviation

    @property
    def kurtosis_error(self) -> float:
        """How far the excess kurtosis may be off, to first order in the errors."""
        _, of_variance, _, of_fourth = self.errors
        return (of_fourth + 2 * self.fourth * of_variance / self.variance) / self.variance**2

    @property
    def possible(self) -> bool:
        """Whether a distribution has these moments, as far as their errors tell: kurtosis >= 1 +
        skewness^2 (Pearson); of two points it is equal.
        """
        doubt = self.kurtosis_error + 2 * abs(self.skewness) * self.skewness_error
        return not self.excess_kurtosis + 2 + doubt < self.skewness**2

    def __repr__(self) -> str:
        names = ("mean", "variance", "third", "fourth")
        parts = [
            f"{name} {getattr(self, name):.4g} +- {error:.1g}"
            for name, error in zip(names, self.errors, strict=True)
        ]
        return (
            f"PosteriorMoments: {', '.join(parts)}; skewness {self.skewness:.3g} +-"
            f" {self.skewness_error:.1g}, excess kurtosis {self.excess_kurtosis:.3g} +-"
            f" {self.kurtosis_error:.1g} ({self.products} products)"
        )


@torch.no_grad()
def posterior_moments(
    denoiser: Denoiser, x_t: Tensor, t: int | float, direction: ArrayLike
) -> PosteriorMoments:
    """Return the first four moments of v^T x_0 given x_t, v along a direction.

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode, float64 if it can be: float32 leaves three digits of the fourth moment.
    x_t : Tensor, shape (1, *shape) or shape
        The noisy sample.
    t : int or float
        Its time, in the denoiser's schedule.
    direction : array, shape (n,) or shape
        Such as a leading eigenvector of `symmetric_part(J)`; its length does not matter.

    Raises
    ------
    InputError
        If the direction is zero, or v^T J v is not positive: no posterior has such a variance.
        Also where `BatchJacobian` refuses the network.

    Notes
    -----
    One product at x_t, and one at each of 12 points beside it, as a batch; up to 36 where g
    changes within a small part of the posterior's deviation. 12 more, close to x_t and to the
    farthest of the others, measure the network's noise.
    """
    _require.instance("denoiser", denoiser, Denoiser)
    x = denoiser.batched(x_t)
    v, flat = _unit(direction, x)
    a, s = (float(c) for c in denoiser.schedule(t))
    if a == 0:
        raise InputError("at alpha_t = 0 x_t says nothing of x_0: take an earlier time")
    if s == 0:
        raise InputError("at sigma_t = 0 x_t is x_0, which has no variance: take a later time")
    scale = s**2 / a
    (centre,), off, _ = _curvatures(denoiser, x, t, v, flat, np.zeros(1))
    if centre <= 0:
        raise InputError(
            f"v^T J v is {centre:.3g} along the direction: no posterior has a variance that is not"
            " positive. Take a leading eigenvector of symmetric_part(J)"
        )
    variance = scale * float(centre)
    steps = REACH * scale / np.sqrt(variance) * 0.5 ** np.arange(HALVINGS + 1)
    off, far, mean, mean_off = _measured(denoiser, x, t, v, flat, steps[0], off)
    derivatives, errors, tries = np.zeros(2), np.full(2, np.inf), 0
    wanted = 3 * variance**2 / scale**3 * np.sqrt(_rounding(x))
    while tries < TRIES and not errors[1] <= wanted:
        values, more, _ = _curvatures(denoiser, x, t, v, flat, np.concatenate([steps, -steps]))
        far, tries = max(far, more), tries + 1
        found, theirs = extrapolated(steps, values.reshape(2, -1), float(centre), far)
        better = theirs < errors
        derivatives, errors = np.where(better, found, derivatives), np.minimum(theirs, errors)
        if not better[1]:
            break
        steps = steps * 0.5**HALVINGS
    off = max(off, _bias(values.reshape(2, -1), float(centre), far))
    stated = (
        mean_off,
        scale * off,
        scale**2 * float(errors[0]),
        scale**3 * float(errors[1]) + 6 * variance * scale * off,
    )
    third = scale**2 * float(derivatives[0])
    fourth = scale**3 * float(derivatives[1]) + 3 * variance**2
    products = 1 + 2 * NEAR + 2 * tries * len(steps)
    return PosteriorMoments(mean, variance, third, fourth, stated, products)


def _bias(values: Array, centre: float, rounding: float) -> float:
    """Return twice how far g(0) is from what values at h and -h say, 0 where they do not settle."""
    found, error = best(values.mean(0), np.full(values.shape[1], rounding))
    return 2 * abs(found - centre) if np.isfinite(error) else 0.0


def _measured(
    denoiser: Denoiser, x: Tensor, t: int | float, v: Tensor, flat: Array, step: float, off: float
) -> tuple[float, float, float, float]:
    """Return how far v^T J v may be off at x and at x + step v, at least `off`; and v^T D at x."""
    close = step * np.sqrt(torch.finfo(x.dtype).eps) * np.arange(NEAR)
    values, _, means = _curvatures(denoiser, x, t, v, flat, np.append(step - close, close))
    far, off = (max(off, DOUBT * noise(part)) for part in np.split(values, 2))
    size = float(denoiser(x, t).double().norm())
    size += _linear_part(denoiser, x, t) * float(x.double().norm())
    return off, far, float(means[NEAR]), max(_rounding(x) * size, DOUBT * noise(means[NEAR:]))


def _curvatures(
    denoiser: Denoiser, x: Tensor, t: int | float, v: Tensor, flat: Array, steps: Array
) -> tuple[Array, float, Array]:
    """Return v^T J v at x + h v for each step h, how far they may be off, and v^T D there."""
    moved = x + torch.from_numpy(steps).to(x).reshape(-1, *[1] * (x.ndim - 1)) * v
    J = BatchJacobian(denoiser, moved, t, products="exact")
    Jv = J.arrays(J.jvp(v.expand_as(moved)))
    rough = J.product_error if J.path.endswith("difference") else 0.0
    size = float(np.linalg.norm(Jv, axis=1).max())
    # c_x v and the network's part may cancel: each rounds by its own size
    off = max(_rounding(x) * (size + _linear_part(denoiser, x, t)), rough * size)
    return Jv @ flat, off, J.arrays(J.d) @ flat


def _linear_part(denoiser: Denoiser, x: Tensor, t: int | float) -> float:
    """Return |c_x| of `D = c_x x_t + c_out F`."""
    return float(denoiser.coefficients(x, t)[0].abs().max())


def _rounding(x: Tensor) -> float:
    return ROUNDING * float(torch.finfo(x.dtype).eps)


def noise(values: Array) -> float:
    """Return the standard deviation of the rounding in values of a smooth function at 3 or more
    points close to each other, equally far apart: second differences have 6 times its variance.
    """
    return float(np.sqrt(np.square(np.diff(values, 2)).mean() / 6))


def extrapolated(
    steps: Array, values: Array, centre: float, rounding: float = 0.0
) -> tuple[Array, Array]:
    """Return g'(0) and g''(0), and how far each may be off.

    Parameters
    ----------
    steps : array, shape (m,)
        h, each half of the one before, m >= 2.
    values : array, shape (2, m)
        g at h and at -h.
    centre : float
        g(0).
    rounding : float
        How far each value may be off.
    """
    plus, minus = values
    first = best((plus - minus) / (2 * steps), rounding / steps)
    second = best((plus - 2 * centre + minus) / steps**2, 4 * rounding / steps**2)
    return tuple(np.array(pair) for pair in zip(first, second, strict=True))  # type: ignore[return-value]


def best(differences: Array, rounding: Array) -> tuple[float, float]:
    """Return the entry of Richardson's table with the smallest error, and that error; infinite
    where the differences do not settle.

    The differences, (m,), have an error in even powers of h, which is halved from one to the next.
    They settle unless the last two are farthest apart, beyond rounding: the steps are then beyond a
    pole. An entry's error is the largest difference from its three neighbours that it was made of
    (Ridders compares two: one more leaves less to chance) and the rounding; and it is not less than
    its distance from the best entry of each shorter step, beyond that one's rounding.
    """
    changes = np.abs(np.diff(differences)) - 4 * rounding[1:]
    if changes.max() > 0 and changes.argmax() == len(changes) - 1:
        return float(differences[-1]), float("inf")
    row, found = differences[:1], list[tuple[float, float]]()
    for k in range(1, len(differences)):
        before, row = row, _next_row(row, differences[k])
        apart = np.maximum(np.abs(row[1:] - row[:-1]), np.abs(row[1:] - before))
        apart[:-1] = np.maximum(apart[:-1], np.abs(row[1:-1] - before[1:]))
        j = int(apart.argmin())
        # weights of a row sum to less than 2 in size
        found.append((float(row[1 + j]), float(apart[j] + 2 * rounding[k])))
    values, errors = np.transpose(found)
    for k in range(len(values) - 1):
        beyond = np.abs(values[k + 1 :] - values[k]) - 2 * rounding[k + 2 :]
        beyond[0] += 2 * rounding[k + 2]  # the next one counts in full: two may agree by chance
        errors[k] = max(errors[k], float(beyond.max()))
    chosen = int(errors.argmin())
    return float(values[chosen]), float(errors[chosen])


def _next_row(row: Array, difference: float) -> Array:
    """Return the next row of Richardson's table, which begins with the difference of half the
    step.
    """
    entries = [difference]
    for order, before in enumerate(row, 1):
        entries.append(entries[-1] + (entries[-1] - before) / (4**order - 1))
    return np.array(entries)


def _unit(direction: ArrayLike, x: Tensor) -> tuple[Tensor, Array]:
    """Return the direction at length 1, as a sample, (1, *shape), and flattened in float64."""
    given = direction.detach().cpu().numpy() if isinstance(direction, Tensor) else direction
    v = np.asarray(given, dtype=np.float64).reshape(-1)
    if v.size != x[0].numel() or len(x) != 1:
        raise InputError(
            f"the direction has {v.size} entries and x_t the shape {tuple(x.shape)}: expected one"
            f" sample, and a direction of {x[0].numel()} entries"
        )
    _require.finite("direction", v)
    length = float(np.linalg.norm(v))
    if length == 0:
        raise InputError("the direction is zero: expected such as a leading eigenvector of J")
    return torch.from_numpy(v / length).to(x).reshape(x.shape), v / length

r"""The inverse problems of the contest, on 32x32 digits: what is observed of each, as a constraint.

    half, box, random    the left half is known; all but the middle 16x16 pixels; 8 % of the pixels,
                         others for each digit
    super-resolution     8x8 pixels, bicubic
    blur                 a Gaussian of 1.5 pixels
    quantised            the 8x8 pixels in four levels: each is known to lie in an interval
    saturated            the blur through a sensor that saturates, y = tanh(2 B x)

Each comes without noise and, as "half, noise", with noise of 0.05; the blur is noisy unless it is
called "blur, exact", the sensor always, the levels never.

The sensor stands for the non-linear blurs of the literature, and not phase retrieval, |F x|: it has
one solution near every guess, so that one run of a method can be scored, and its slope tells where
that is. |F x| is the same for x and x turned by half a circle, six and nine among them, so that its
papers draw several samples and keep the best.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self, TypeAlias

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.losses import Loss
from jacobian_lab.constraints.masks import box, half, random_pixels
from jacobian_lab.constraints.observations import Map
from jacobian_lab.constraints.separable import (
    Separable,
    blurring,
    gaussian_blur,
    shrink,
    super_resolution,
)
from jacobian_lab.sampling.sampler import seed_of, seeded_noise
from mnist.data import SHAPE, digits

BLUR_WIDTH, NOISE, LEVELS = 1.5, 0.05, 4


class Quantised(Constraint):
    """Observations in levels, `y = Q(A x)`: each number of A x is known to lie in an interval.

    Parameters
    ----------
    linear : LinearConstraint
        Of the middles of the intervals.
    levels : int
        Intervals between -1 and 1, of one width; the two at the ends have no outer bound.
    """

    sigma = damping = 0.0

    def __init__(self, linear: LinearConstraint, levels: int) -> None:
        self.linear, self.levels = linear, levels
        self.y = linear.y

    def missing(self, x0: Tensor) -> Tensor:
        """Return the way from A x_0 to the nearest point of the intervals, (B, ...)."""
        Ax, y, reach = self.linear.forward(x0), self.y.to(x0), 1 / self.levels
        last = 1 - reach - 1e-3  # the middle of the last interval, less rounding
        low = torch.where(y < -last, -torch.inf, y - reach)
        high = torch.where(y > last, torch.inf, y + reach)
        return Ax.clamp(low, high) - Ax

    def error(self, x0: Tensor) -> Tensor:
        """Return `A^+` of what is missing."""
        return self.linear.pseudo_inverse(self.missing(x0))

    def residual(self, x0: Tensor) -> Tensor:
        """Return the root mean square of what is missing, (B,)."""
        return self.missing(x0).flatten(1).square().mean(1).sqrt()

    def seen(self, change: Tensor) -> Tensor:
        """Return `A^+ A change`."""
        return self.linear.seen(change)

    def project(self, x0: Tensor) -> Tensor:
        """Return x_0 with its error added: A x then lies in the intervals."""
        return x0 + self.error(x0)

    def count(self) -> int:
        """Return how many numbers are observed of each sample."""
        return self.y[0].numel()

    def select(self, index: slice | Tensor) -> Self:
        """Return the constraint of some of the samples."""
        chosen = copy.copy(self)
        chosen.linear = self.linear.select(index)
        chosen.y = chosen.linear.y
        return chosen


class Measured(Loss):
    """Observations `y = A(x) + sigma noise` by a differentiable map: the loss is the root mean
    square of `y - A(x)`, its target sigma.

    Parameters
    ----------
    y : Tensor, shape (B, ...)
    forward : callable
        A, (B, *shape) -> (B, ...).
    sigma : float
        Standard deviation of the noise.
    """

    damping = 0.0

    def __init__(self, y: Tensor, forward: Map, sigma: float) -> None:
        super().__init__(self.residual, sigma)
        self.y, self.forward, self.sigma = y, forward, sigma

    def missing(self, x0: Tensor) -> Tensor:
        """Return `y - A(x_0)`, (B, ...), with its graph."""
        return self.y.to(x0) - self.forward(x0)

    def residual(self, x0: Tensor) -> Tensor:
        """Return the root mean square of `y - A(x_0)`, (B,)."""
        return self.missing(x0).flatten(1).square().mean(1).sqrt()

    def count(self) -> int:
        """Return how many numbers are observed of each sample."""
        return self.y[0].numel()

    def select(self, index: slice | Tensor) -> Self:
        """Return the constraint of some of the samples."""
        return type(self)(self.y[index], self.forward, self.sigma)


Problem: TypeAlias = LinearConstraint | Quantised | Measured
Seeds: TypeAlias = Sequence[int]


def _noisy(y: Tensor, seeds: Seeds, sigma: float) -> Tensor:
    seeds = [seed_of(seed, 4) for seed in seeds]
    return y + sigma * seeded_noise(seeds, tuple(y.shape[1:]), y.device, y.dtype) if sigma else y


def _masked(kind: str, images: Tensor, seeds: Seeds, sigma: float = 0.0) -> LinearConstraint:
    match kind:
        case "half":
            mask = half(SHAPE)
        case "box":
            mask = box(SHAPE, 16)
        case _:
            mask = torch.stack([random_pixels(SHAPE, 0.08, seed_of(seed, 3)) for seed in seeds])
    return Inpainting(_noisy(images, seeds, sigma), mask.to(images.device), sigma)


def _shrunk(images: Tensor, seeds: Seeds, sigma: float = 0.0) -> LinearConstraint:
    return super_resolution(_noisy(shrink(images, 4), seeds, sigma), 4, sigma)


def _blurred(images: Tensor) -> Tensor:
    matrix = blurring(SHAPE[1], BLUR_WIDTH).to(images)
    return matrix @ images @ matrix.T


def _blur(images: Tensor, seeds: Seeds, sigma: float = NOISE) -> LinearConstraint:
    return gaussian_blur(_noisy(_blurred(images), seeds, sigma), BLUR_WIDTH, sigma)


def _quantised(images: Tensor, _: Seeds) -> Quantised:
    y = shrink(images, 4)
    middles = ((y + 1) / 2 * LEVELS).floor().clamp(0, LEVELS - 1)
    return Quantised(super_resolution((2 * middles + 1) / LEVELS - 1, 4), LEVELS)


def sensor(images: Tensor) -> Tensor:
    """Return what a sensor that saturates makes of blurred images."""
    return torch.tanh(2 * _blurred(images))


def _saturated(images: Tensor, seeds: Seeds) -> Measured:
    return Measured(_noisy(sensor(images), seeds, NOISE), sensor, NOISE)


MASKS = ("half", "box", "random")
PLAIN: dict[str, Callable[[Tensor, Seeds], LinearConstraint]] = {
    **{kind: partial(_masked, kind) for kind in MASKS},
    "super-resolution": _shrunk,
    "blur": _blur,
}
"""The five problems, each from images, (B, 1, 32, 32), and a seed for each."""
NOISY = {
    **{f"{kind}, noise": partial(_masked, kind, sigma=NOISE) for kind in MASKS},
    "super-resolution, noise": partial(_shrunk, sigma=NOISE),
    "blur, exact": partial(_blur, sigma=0.0),
}
"""The same with noise where they have none, and without where they have."""
NONLINEAR: dict[str, Callable[[Tensor, Seeds], Problem]] = {
    "quantised": _quantised,
    "saturated": _saturated,
}
TASKS: dict[str, Callable[[Tensor, Seeds], Problem]] = {**PLAIN, **NOISY, **NONLINEAR}


def problem(
    task: str, first: int, count: int, seed: int, device: str = "cpu"
) -> tuple[Problem, Tensor, Tensor]:
    """Return the observations of some held-out digits, the digits and their labels."""
    images, labels = (x[first : first + count].to(device) for x in digits("held-out"))
    return TASKS[task](images, [seed_of(seed, first + i) for i in range(count)]), images, labels


def observation_image(wanted: Problem) -> Tensor:
    """Return what is observed as images, (B, 1, 32, 32), for eyes and networks: y itself if it is
    an image with noise, else A^+ y.
    """
    if isinstance(wanted, Measured) or (wanted.sigma and tuple(wanted.y.shape[1:]) == SHAPE):
        return wanted.y
    linear = wanted.linear if isinstance(wanted, Quantised) else wanted
    assert isinstance(linear, Inpainting | Separable)
    return linear.pseudo_inverse(linear.y)

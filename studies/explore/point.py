"""J at one noisy sample, kept while it is looked at from all sides. No web library is known here.

point = Point(model, clean, t, seed, number)
at = point.entry(i)                            # J e_i, J^T e_i, and their figures
point.moved([at.column, at.row], change=1.0)   # D(x_t + lambda delta) along each
point.wish(e, steps=10, inverse=None)          # the directions towards a wish
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import InputError, _require, dynamic_step_size, newton_direction
from jacobian_lab.sampling.newton import Kind
from studies.frame.models import Model, operator_at

Array: TypeAlias = NDArray[Any]
RCOND = 0.05
"""Singular values of J below this share of the largest count as zero in `J^+ e`, as in the survey
of the study `directions`.
"""
RECORDING = Lock()
"""Networks are recorded one at a time: the sessions of a page share the model."""


@dataclass(frozen=True)
class AtEntry:
    """What one entry i of D and of x_t have to do with each other."""

    index: int
    column: Array
    """`J e_i`, (n,): what moves in D when entry i of x_t moves; the inexact Newton direction."""
    row: Array
    """`J^T e_i`, (n,): what D_i depends on; the direction of gradient descent."""

    @property
    def difference(self) -> Array:
        """`(J - J^T) e_i`, (n,): zero for the Jacobian of an exact posterior mean."""
        return self.column - self.row

    @property
    def diagonal(self) -> float:
        """J_ii."""
        return float(self.column[self.index])

    @property
    def cosine(self) -> float:
        """Of the angle between column and row."""
        return cosine(self.column, self.row)

    @property
    def asymmetry(self) -> float:
        """`|(J - J^T) e_i| / |(J + J^T) e_i|`."""
        whole = float(np.linalg.norm(self.column + self.row))
        return float(np.linalg.norm(self.difference)) / whole if whole else 0.0


@dataclass(frozen=True)
class Moved:
    """D after a step of x_t along a direction."""

    step: float
    """lambda."""
    after: Array
    """`D(x_t + lambda delta)`, (n,)."""
    largest: float
    """The largest |change| of an entry of D."""


@dataclass(frozen=True)
class Towards:
    """A direction towards a wish e, and how far it leads to first order."""

    kind: Kind
    delta: Array
    """(n,)."""
    residual: float
    """`|e - J delta| / |e|`."""
    best_step: float
    """The lambda with the least `|e - lambda J delta|`."""
    best_residual: float
    """`|e - lambda J delta| / |e|` at that lambda."""
    cosine: float
    """Of the angle between `J delta` and e."""


class Point:
    """J at x_t, a noisy version of one image.

    Parameters
    ----------
    model : Model
    clean : Tensor, shape (C, H, W)
        In the model's space.
    t : int or float
        Time of the model's schedule.
    seed : int
        Of the noise.
    number : int
        Of the image: seeds its noise, too, as in the studies.
    """

    def __init__(
        self, model: Model, clean: Tensor, t: int | float, seed: int, number: int = 0
    ) -> None:
        self.model, self.clean, self.t = model, clean, t
        self.seed = _require.seed(seed, "the seed")
        self.number = number
        with RECORDING:
            self.J = operator_at(model.denoiser, clean, number, t, seed)
            self.J.T @ np.ones(self.J.shape[0], self.J.dtype)  # J^T is recorded and checked, too
        self._one_at_a_time = Lock()

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.model.denoiser.shape

    @cached_property
    def x_t(self) -> Array:
        """The noisy sample, (n,)."""
        return flat(self.J.products.x)

    @cached_property
    def d(self) -> Array:
        """D(x_t), (n,)."""
        return flat(self.J.products.d)

    def entry(self, index: int) -> AtEntry:
        """Return column and row of J at entry `index` of the flattened sample."""
        n = self.J.shape[0]
        unit = np.zeros(n, self.J.dtype)
        unit[_require.integer("the entry", index, 0, n - 1)] = 1
        with self._one_at_a_time:
            return AtEntry(index, self.J @ unit, self.J.T @ unit)

    @torch.no_grad()
    def denoised(self, changes: Sequence[Array]) -> list[Array]:
        """Return `D(x_t + change)` for each change, (n,), in one pass."""
        x = self.J.products.x
        moved = x + torch.from_numpy(np.stack(changes)).to(x).reshape(-1, *self.shape)
        return list(flat(self.model.denoiser(moved, self.t)).reshape(len(changes), -1))

    def moved(self, directions: Sequence[Array], change: float) -> list[Moved | None]:
        """Return D after a step along each direction, of the size that moves an entry of x_t by
        `change` at most; None for a direction that is zero.
        """
        steps = [dynamic_step_size(g, change) if g.any() else 0.0 for g in directions]
        after = self.denoised([step * g for step, g in zip(steps, directions, strict=True)])
        return [
            Moved(step, d, float(abs(d - self.d).max())) if step else None
            for step, d in zip(steps, after, strict=True)
        ]

    def wish(self, e: Array, steps: int, inverse: Array | None = None) -> list[Towards]:
        """Return the directions towards a wish: inexact, gradient, krylov; exact if J^+ is there.

        Parameters
        ----------
        e : array, shape (n,)
            The change wanted of D(x_t).
        steps : int
            Of GMRES.
        inverse : array, shape (n, n), optional
            `pseudo_inverse` of the dense J.
        """
        if not e.any():
            raise InputError("the wish is zero everywhere: paint pixels of D(x_t) that it changes")
        kinds: tuple[Kind, ...] = ("inexact", "gradient", "krylov")
        with self._one_at_a_time:
            found = {kind: newton_direction(self.J, e, kind, steps=steps) for kind in kinds}
            if inverse is not None:
                found["exact"] = (inverse @ e).astype(e.dtype)
            images = (self.J @ np.stack(list(found.values()), axis=1)).T
        return [
            towards(kind, delta, image, e)
            for (kind, delta), image in zip(found.items(), images, strict=True)
        ]


def pseudo_inverse(dense: Array) -> Array:
    """Return J^+, (n, n), singular values below `RCOND` of the largest cut off: times e, it is
    `newton_direction(dense, e, "exact", rcond=RCOND)`, for many e.
    """
    return np.asarray(scipy.linalg.pinv(dense, rtol=RCOND))


def towards(kind: Kind, delta: Array, image: Array, e: Array) -> Towards:
    """Return the figures of a direction delta whose image is `J delta`."""
    square = float(image @ image)
    best = float(image @ e) / square if square else 0.0
    size = float(np.linalg.norm(e))
    residual, least = (float(np.linalg.norm(e - step * image)) / size for step in (1.0, best))
    return Towards(kind, delta, residual, best, least, cosine(image, e))


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of the angle between two vectors; 0 if one is zero."""
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


def flat(x: Tensor) -> Array:
    """Return a tensor's numbers as one vector, float32 or float64."""
    x = x.detach().cpu()
    return np.asarray((x if x.dtype == torch.float64 else x.float()).reshape(-1).numpy())

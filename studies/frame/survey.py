"""Studies of J over noisy samples and noise levels: options, points, and pieces that become
arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jacobian_lab import InputError, JacobianOperator
from studies.frame.models import Inputs, Model, operator_at
from studies.frame.options import OnModel
from studies.frame.study import Arrays, Pieces, check_times
from studies.frame.user_models import is_users


def collect(
    pieces: Pieces, title: str, compute: Callable[..., Arrays], **axes: Sequence[Any]
) -> Arrays:
    """Compute one piece for each combination of the axes; return the arrays, stacked along the
    axes.

    Parameters
    ----------
    pieces : Pieces
        Where each piece is kept, under the title and the values.
    title : str
        What the progress bar says.
    compute : callable
        From one value of each axis, in order, to arrays.
    **axes
        Name and values of each axis.
    """
    work = {}
    for cell in product(*axes.values()):
        label = "-".join(f"{axis}-{value}" for axis, value in zip(axes, cell, strict=True))
        work[f"{title.replace(' ', '-')}-{label}"] = partial(compute, *cell)
    found = pieces.each(title, work)
    shape = [len(values) for values in axes.values()]
    return {
        key: np.stack([f[key] for f in found]).reshape(*shape, *found[0][key].shape)
        for key in found[0]
    }


@dataclass(frozen=True)
class Points:
    """The noisy samples of a survey: each a digit, or the image, and a seed of its noise."""

    model: Model
    has_exact: bool
    """Whether there is the same model in float64 on the CPU, and its dense J fits."""
    inputs: Inputs
    samples: list[tuple[int, int]]
    """Index into the inputs, and seed."""

    @property
    def names(self) -> list[str]:
        """What each sample is called: its digit or image, and its seed if there are several."""
        several = len({seed for _, seed in self.samples}) > 1
        return [
            f"{self.inputs.names[k]}, seed {seed}" if several else self.inputs.names[k]
            for k, seed in self.samples
        ]

    def coordinates(self) -> Arrays:
        """Return what tells the samples apart, as `studies.frame.dataset.SAMPLES` describes it."""
        return {
            "sample": np.array(self.names),
            "digit": np.array([self.inputs.numbers[k] for k, _ in self.samples]),
            "seed": np.array([seed for _, seed in self.samples]),
        }

    @cached_property
    def exact(self) -> Model:
        """The same model in float64 on the CPU."""
        return self.model.opened("cpu", torch.float64)

    def operator(self, t: int | float, sample: int) -> JacobianOperator:
        """Return J at a noise level and sample."""
        k, seed = self.samples[sample]
        return operator_at(
            self.model.denoiser, self.inputs.clean[k], self.inputs.numbers[k], t, seed
        )

    def dense(self, t: int | float) -> NDArray[np.float64]:
        """Return the dense J of the first sample in float64, (n, n)."""
        k, seed = self.samples[0]
        clean = self.inputs.clean[k].cpu().double()
        return operator_at(self.exact.denoiser, clean, self.inputs.numbers[k], t, seed).dense()


@dataclass(frozen=True)
class Survey(OnModel):
    """Options of a study of J over noisy samples and noise levels."""

    digits: int = 3
    """Digits of the survey: this many, from `digit` on."""
    seeds: int = 1
    """Noises for each digit."""
    times: tuple[int | float, ...] = (100, 200, 300, 400, 500, 600, 700, 800, 900)
    """Noise levels of the survey, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        self.check_digits()
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1: got {self.seeds}")

    def has_double(self, model: Model) -> bool:
        """Return whether there is the same model in float64, and its dense J fits; say why not."""
        if not model.is_dense:
            return False
        try:
            if is_users(self.model):
                self.load("cpu", torch.float64)
        except InputError as error:
            print(f"no dense truth in float64: {error}", file=sys.stderr)
            return False
        return True

    def points(self, *more: int | float) -> Points:
        """Return the points; raise, before anything is computed, if the schedule lacks one of the
        times or of `more`.
        """
        model = self.load()
        for t in (*self.times, *more):
            model.denoiser.schedule(t)
        inputs = self.inputs(model, self.digits)
        seeds = range(self.seed, self.seed + self.seeds)
        return Points(
            model, self.has_double(model), inputs, list(product(range(len(inputs.numbers)), seeds))
        )

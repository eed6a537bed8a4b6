"""Constrained samples as they appear: a known part of the image, and what the model adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jacobian_lab import Inpainting, Newton, State, masks, sample, seeded_noise
from jacobian_lab.sampling.newton import Kind
from jacobian_lab.sampling.sampler import seed_of
from studies.frame.models import Model

COUNT = 3
"""Samples that are drawn at once."""
PRESETS = {
    "left half": lambda shape: masks.half(shape, "left"),
    "top half": lambda shape: masks.half(shape, "top"),
    "outside of a box": lambda shape: masks.box(shape, max(1, min(shape[1:]) // 2)),
    "random 10 %": lambda shape: masks.random_pixels(shape, 0.1),
}
"""What may be known."""


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn."""

    direction: Kind = "inexact"
    newton_steps: int = 5
    """At each time."""
    times: int = 20
    seed: int = 0


def constrained_states(
    model: Model, observed: Tensor, mask: Tensor, run: Drawing
) -> Iterator[State]:
    """Yield the states of samples that agree with the known entries.

    Parameters
    ----------
    observed : Tensor, shape (C, H, W)
        In the model's space; what the mask does not mark is not looked at.
    mask : Tensor of bool, shape (C or 1, H, W)
        True where an entry is known.
    """
    denoiser = model.denoiser
    seeds = [seed_of(run.seed, i) for i in range(COUNT)]
    noise = seeded_noise(seeds, denoiser.shape, model.device, model.dtype)
    constraint = Inpainting(observed[None], mask.to(torch.device(model.device)))
    newton = Newton(run.direction, steps=run.newton_steps)
    return sample(denoiser, noise, denoiser.schedule.times(run.times), constraint, newton)

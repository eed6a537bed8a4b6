r"""Noise levels that methods step through, for the denoiser of any schedule.

A sample x_t = alpha_t x_0 + sigma_t noise is, up to its scale, one of a variance-exploding schedule
and one of a rectified flow:

    x_t / alpha_t              = x_0 + r noise,                r = sigma_t / alpha_t
    x_t / (alpha_t + sigma_t)  = (1 - s) x_0 + s noise,        s = sigma_t / (alpha_t + sigma_t)

so that a method that is written for one of the three runs on a denoiser of another: it asks for
values of r or s, and gets the nearest times that the denoiser knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.sampling.sampler import ddim_step


@dataclass(frozen=True)
class NoiseLevel:
    """A time and its alpha_t and sigma_t; the clean image, to which a last step leads, has none."""

    time: int | float | None
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """`sigma_t / alpha_t`, the noise of a variance-exploding schedule."""
        return self.sigma / self.alpha if self.alpha else float("inf")

    @property
    def share(self) -> float:
        """`sigma_t / (alpha_t + sigma_t)`, the time of a rectified flow."""
        return self.sigma / (self.alpha + self.sigma)

    def mean(self, denoiser: Denoiser, x: Tensor, scale: float = 1.0) -> Tensor:
        """Return `D(scale x, t)`."""
        if self.time is None:
            raise InputError("the clean image is not a time of the denoiser")
        found: Tensor = denoiser(scale * x, self.time)
        return found


CLEAN = NoiseLevel(None, 1.0, 0.0)
Steps = list[tuple[NoiseLevel, NoiseLevel]]


def level(denoiser: Denoiser, time: int | float) -> NoiseLevel:
    """Return the level of a time of the schedule."""
    alpha, sigma = denoiser.schedule(time)
    return NoiseLevel(time, float(alpha), float(sigma))


def even_steps(denoiser: Denoiser, steps: int) -> Steps:
    """Return the levels of our sampler's times, each with the one that follows; the last step leads
    to the clean image.
    """
    return _pairs([level(denoiser, time) for time in denoiser.schedule.times(steps)])


def ladder(denoiser: Denoiser, steps: int, largest: float, smallest: float) -> list[NoiseLevel]:
    """Return `steps` levels at which `r^(1/7)` falls evenly from `largest` to `smallest`.

    References
    ----------
    Karras et al. (2022), *Elucidating the design space of diffusion-based generative models*, eq.
    5.
    """
    first, last = largest ** (1 / 7), smallest ** (1 / 7)
    return at_ratios(
        denoiser, [(first + i * (last - first) / max(1, steps - 1)) ** 7 for i in range(steps)]
    )


def ladder_steps(denoiser: Denoiser, steps: int, largest: float, smallest: float) -> Steps:
    """Return the levels of a ladder, each with the one that follows; the clean image replaces
    `smallest`, as in DAPS's code and those that follow it.
    """
    return _pairs(ladder(denoiser, steps + 1, largest, smallest)[:-1])


def flow_steps(denoiser: Denoiser, steps: int, shift: float = 1.0) -> Steps:
    """Return levels at which s falls evenly from 1, each with the one that follows; the last step
    leads to the clean image.

    Parameters
    ----------
    shift : float
        Above 1 more of the steps are at high noise: s becomes `shift s / (1 + (shift - 1) s)`.
    """
    shares = [1 - i / steps for i in range(steps)]
    shifted = [shift * s / (1 + (shift - 1) * s) for s in shares]
    return _pairs(at_ratios(denoiser, [s / (1 - s) if s < 1 else float("inf") for s in shifted]))


def at_ratios(denoiser: Denoiser, ratios: Sequence[float]) -> list[NoiseLevel]:
    """Return the levels that are nearest to values of r."""
    times = denoiser.schedule.time_of(torch.tensor(ratios, dtype=torch.float64)).tolist()
    return [level(denoiser, time) for time in times]


def stepped(
    denoiser: Denoiser, x: Tensor, x0: Tensor, now: NoiseLevel, after: NoiseLevel, eta: float
) -> Tensor:
    """Return x at the next level by DDIM, with a share `eta` of fresh noise; the last step leads to
    x0.
    """
    if now.time is None or after.time is None:
        return x0
    fresh = torch.randn_like(x) if eta else None
    return ddim_step(denoiser, x, x0, now.time, after.time, eta, fresh)


def _pairs(levels: list[NoiseLevel]) -> Steps:
    return list(pairwise([*levels, CLEAN]))

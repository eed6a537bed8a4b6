"""azula's denoisers (Rozet) in our operator, and ours in azula's samplers.

azula's time is in [0, 1], 0 being the clean sample, and its schedule a function of it.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.family import classes, has, packages, ready
from jacobian_lab.diffusion.continuous import ContinuousSchedule, VarianceExploding
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.schedule import DiscreteSchedule, Schedule
from jacobian_lab.errors import InputError


class Mean(nn.Module):
    """The mean of azula's posterior."""

    def __init__(self, denoiser: Any) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """Return the posterior mean for x, (B, *shape), at t, (B,)."""
        if "GaussianDenoiser" in classes(self.denoiser):  # the one that takes a single time
            if len(t) > 1 and not bool((t == t[0]).all()):
                raise InputError(f"azula's GaussianDenoiser takes one time for all: got {t}")
            t = t[0]
        return self.denoiser(x, t).mean


def is_azula(source: Any) -> bool:
    """Return whether a source is a denoiser of azula."""
    return "azula" in packages(source) and has(source, "schedule")


def load_azula(source: Any, *, shape: Shape) -> Denoiser:
    """Return an azula denoiser as ours, with azula's schedule.

    Parameters
    ----------
    source : azula.denoise.Denoiser
    shape : tuple of int
        Of a sample.
    """
    alpha, sigma = (partial(_level, source.schedule, which) for which in (0, 1))
    schedule = ContinuousSchedule(alpha, sigma)
    return Denoiser(Mean(ready(source)), schedule, "sample", _require.sizes("shape", shape)).eval()


def _level(schedule: Any, which: int, t: Tensor) -> Tensor:
    """Return alpha_t or sigma_t of azula's schedule; no lambda, which cannot be pickled."""
    level: Tensor = schedule(t)[which]
    return level


class AzulaDenoiser(nn.Module):
    """A denoiser as azula's samplers call it: `schedule(t)`, and `self(x_t, t).mean`.

    Parameters
    ----------
    denoiser : Denoiser

    Notes
    -----
    A table's time k is at `t = (k + 1) / T`, and t = 0 the clean sample; the time of a continuous
    schedule is `last t`; that of a variance-exploding one runs as its `times`, down to sigma_min.
    Samplers of second order ask for D at their last time: give them `stop` above 0.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.training = denoiser.training
        self.clean = -1 if isinstance(denoiser.schedule, DiscreteSchedule) else 0

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha_t, sigma_t), float64, of the shape of t."""
        own = self.time(t)
        clean = own == self.clean
        noisiest = _noisiest(self.denoiser.schedule)
        flat = torch.where(clean, torch.full_like(own, noisiest), own).flatten()
        alpha_t, sigma_t = (level.reshape(own.shape) for level in self.denoiser.schedule(flat))
        return (
            torch.where(clean, torch.ones_like(alpha_t), alpha_t),
            torch.where(clean, torch.zeros_like(sigma_t), sigma_t),
        )

    def time(self, t: Tensor) -> Tensor:
        """Return our times of azula's; the clean sample is at -1 of a table, and at 0 else."""
        t, schedule = t.double(), self.denoiser.schedule
        if isinstance(schedule, DiscreteSchedule):
            return (t * schedule.steps).round().long() - 1
        if isinstance(schedule, VarianceExploding):
            low, high = (s ** (1 / schedule.rho) for s in (schedule.sigma_min, schedule.last))
            return ((low + t * (high - low)) ** schedule.rho).clamp(max=schedule.last)
        return t * _noisiest(schedule)

    def forward(self, x_t: Tensor, t: Tensor) -> SimpleNamespace:
        """Return the posterior, of which azula reads the `mean`, shape of x_t."""
        return SimpleNamespace(mean=self.denoiser(x_t, self.time(t)))


def _noisiest(schedule: Schedule) -> float | int:
    """Return the noisiest time of a schedule."""
    return schedule.times(1)[0]


def to_azula(denoiser: Denoiser) -> AzulaDenoiser:
    """Return a denoiser as azula's samplers call it: `DDIMSampler(to_azula(denoiser))`.

    Parameters
    ----------
    denoiser : Denoiser

    References
    ----------
    Rozet et al., azula; its `azula.sample`.
    """
    _require.instance("denoiser", denoiser, Denoiser)
    return AzulaDenoiser(denoiser)

r"""Schedules of a continuous time: alpha_t and sigma_t as functions of t.

    RectifiedFlow           alpha = 1 - t,  sigma = t                      t in (0, 1]
    TrigonometricFlow       alpha = cos(pi t / 2),  sigma = sin(pi t / 2)  t in (0, 1]
    VarianceExploding       alpha = 1,  sigma = t: time is sigma           t in (0, sigma_max]
    VariancePreserving      alpha = exp(-B / 2),  sigma^2 = 1 - alpha^2    t in (0, 1]
    SubVariancePreserving   alpha = exp(-B / 2),  sigma = 1 - alpha^2      t in (0, 1]
    ContinuousSchedule      any pair of functions                          t in (0, last]

with `B = beta_min t + (beta_max - beta_min) t^2 / 2`.

>>> [float(c) for c in RectifiedFlow()(0.25)]
[0.75, 0.25]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.diffusion.schedule import MOST, Schedule, Time, as_tensor, ratio_tensor
from jacobian_lab.errors import InputError

Level: TypeAlias = Callable[[Tensor], Tensor]
GRID = 257
"""Times at which given functions are checked."""
HALVINGS = 60
"""Of the interval in which the time of a noise level is looked for: float64's digits."""


class ContinuousSchedule(Schedule):
    """Any pair of functions of a time in (0, last], 0 being the clean sample.

    Parameters
    ----------
    alpha, sigma : callable
        From float64 times, a tensor of any shape, to alpha_t (at least 0) and sigma_t (above 0).
    last : float
        The noisiest time.

    Raises
    ------
    InputError
        If at times in (0, last] a function is not finite or of the wrong sign, or the noise
        sigma / alpha does not grow with t, as where the time runs the other way.
    """

    name = "this schedule"

    def __init__(self, alpha: Level, sigma: Level, last: float = 1.0) -> None:
        self.last = _require.real("the last time", last, "(0, inf)")
        for what, function in (("alpha", alpha), ("sigma", sigma)):
            _require.function(what, function, "of times")
        self._alpha, self._sigma = alpha, sigma
        grid = torch.linspace(0, self.last, GRID, dtype=torch.float64, device="cpu")[1:]
        alpha_t, sigma_t = self._coefficients(grid)
        for what, level, least in (("alpha", alpha_t, 0.0), ("sigma", sigma_t, 5e-324)):
            fits = isinstance(level, Tensor) and level.shape == grid.shape
            bad = level[~(level.isfinite() & (level >= least))] if fits else None
            if bad is None or len(bad):
                raise InputError(
                    f"{what} must map times of shape (B,) to that many finite numbers"
                    f" {'>= 0' if what == 'alpha' else '> 0'}, a constant by torch.full_like: got"
                    f" {_require.shown(level if bad is None else float(bad[0]))}"
                )
        if not ((sigma_t / alpha_t).diff() > 0).all():  # infinite at most at last
            raise InputError(
                f"the noise sigma_t / alpha_t must grow with t on (0, {self.last:g}]: got"
                f" {float(sigma_t[0] / alpha_t[0]):.3g} at first and"
                f" {float(sigma_t[-1] / alpha_t[-1]):.3g} at last. Data are at t = 0; where time"
                " runs the other way, pass functions of 1 - t, and t -> 1 - t to the network"
            )

    def time_tensor(self, t: Time) -> Tensor:
        """Return `t` as a floating-point tensor; see `Schedule.time_tensor`."""
        time, wanted = as_tensor(t), f"{self.name} takes a time in (0, {self.last:g}]"
        if time.is_complex() or time.dtype == torch.bool:
            raise InputError(f"{wanted}: got {t!r} ({time.dtype})")
        if not isinstance(t, Tensor):
            time = torch.as_tensor(t, dtype=torch.float64, device="cpu")  # not through float32
        if not time.is_floating_point():
            time = time.double()
        if time.ndim > 1:
            raise InputError(f"times have shape () or (B,): got {tuple(time.shape)}")
        last = self.last * (1 + 2**-23)  # as float32 may have it
        if time.numel() and not ((time > 0) & (time <= last)).all():
            raise InputError(f"time {t!r} is outside this schedule: {wanted}")
        return time.clamp(max=self.last)

    def times(self, steps: int, last: float | None = None) -> list[float]:
        """Return `steps` evenly spaced times from the noisiest down to `last`; by default so spaced
        that one more would be 0, the clean sample.
        """
        steps = _require.integer("steps", steps, 1, MOST)
        end = self.last
        if last is not None:
            last = _require.real("the last time", last, f"(0, {end:g}]")
            found = [end - i * (end - last) / max(1, steps - 1) for i in range(steps)]
            return [*found[:-1], last] if steps > 1 else found  # without rounding
        return [end * (1 - i / steps) for i in range(steps)]

    def time_of(self, ratio: float | Tensor) -> Tensor:
        """Return the time by bisection; see `Schedule.time_of`."""
        wanted = ratio_tensor(ratio)
        low, high = torch.zeros_like(wanted), torch.full_like(wanted, self.last)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            alpha, sigma = self(middle)
            below = sigma < wanted * alpha
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """Return the derivatives of alpha_t and sigma_t in t, float64, of the shape of `t`."""
        time = self.time_tensor(t).double()
        alpha, sigma = (  # also where the caller differentiates, or records no gradient
            torch.func.grad(partial(_total, level))(time) for level in (self._alpha, self._sigma)
        )
        return alpha, sigma

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._alpha(t.double()), self._sigma(t.double())

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class RectifiedFlow(ContinuousSchedule):
    """The straight path from data to noise: `alpha_t = 1 - t`, `sigma_t = t`, t in (0, 1].

    References
    ----------
    Liu, Gong, Liu (2023), *Flow straight and fast*; time runs as in Esser et al. (2024), data at 0.
    """

    name = "a rectified flow"

    def __init__(self) -> None:
        super().__init__(_one_minus, _itself)

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """Return -1 and 1; see `ContinuousSchedule.rates`."""
        ones = torch.ones_like(self.time_tensor(t), dtype=torch.float64)
        return -ones, ones


class TrigonometricFlow(ContinuousSchedule):
    """A quarter of a circle: `alpha_t = cos(pi t / 2)`, `sigma_t = sin(pi t / 2)`, t in (0, 1].

    References
    ----------
    Albergo, Vanden-Eijnden (2023), *Building normalizing flows with stochastic interpolants*; the
    "GVP" path of Ma et al. (2024), *SiT*.
    """

    name = "a trigonometric flow"

    def __init__(self) -> None:
        super().__init__(_cosine, _sine)


class VarianceExploding(ContinuousSchedule):
    """`x_t = x_0 + sigma noise`: alpha = 1, and the time is sigma itself.

    Parameters
    ----------
    sigma_max : float
        The noisiest time.
    sigma_min : float
        The last time before the clean sample.
    rho : float
        Spacing of `times`: `sigma^(1 / rho)` falls linearly.

    References
    ----------
    Song et al. (2021), *Score-based generative modeling through stochastic differential
    equations*; Karras et al. (2022), *Elucidating the design space of diffusion-based generative
    models*, eq. 5 for the times.
    """

    name = "a variance-exploding schedule, whose time is sigma,"

    def __init__(self, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0) -> None:
        super().__init__(torch.ones_like, _itself, sigma_max)
        self.sigma_min = _require.real("sigma_min", sigma_min, f"(0, {self.last:g}]")
        self.rho = _require.real("rho", rho, "(0, inf)")

    def times(self, steps: int, last: float | None = None) -> list[float]:
        """Return `steps` values of sigma from sigma_max down to `last`, by default sigma_min."""
        steps = _require.integer("steps", steps, 1, MOST)
        end = self.sigma_min
        if last is not None:
            end = _require.real("the last time", last, f"(0, {self.last:g}]")
        first, lowest = (sigma ** (1 / self.rho) for sigma in (self.last, end))
        between = [first + i / max(1, steps - 1) * (lowest - first) for i in range(steps)]
        ends = {0: self.last, steps - 1: end if steps > 1 else self.last}  # without rounding
        return [ends.get(i, root**self.rho) for i, root in enumerate(between)]

    def __repr__(self) -> str:
        return f"VarianceExploding(sigma {self.last:g} -> {self.sigma_min:g})"


class VariancePreserving(ContinuousSchedule):
    """The limit of DDPM's linear schedule: `alpha_t = exp(-B / 2)`, `sigma_t^2 = 1 - alpha_t^2`.

    Parameters
    ----------
    beta_min, beta_max : float
        Rates at t = 0 and t = 1.

    References
    ----------
    Song et al. (2021), *Score-based generative modeling through stochastic differential
    equations*, eq. 33. Its networks take 999 t.
    """

    name = "a variance-preserving schedule"

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min = _require.real("beta_min", beta_min, "[0, inf)")
        self.beta_max = _require.real("beta_max", beta_max, "(0, inf)")
        super().__init__(self._signal, self._noise)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def _signal(self, t: Tensor) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def _noise(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self._integral(t))).sqrt()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(beta {self.beta_min:g} -> {self.beta_max:g})"


class SubVariancePreserving(VariancePreserving):
    """As `VariancePreserving`, with less noise: `sigma_t = 1 - alpha_t^2`.

    References
    ----------
    Song et al. (2021), *Score-based generative modeling through stochastic differential
    equations*, eq. 29.
    """

    name = "a sub-variance-preserving schedule"

    def _noise(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._integral(t))


def _total(level: Level, t: Tensor) -> Tensor:
    return level(t).sum()


def _itself(t: Tensor) -> Tensor:
    return t


def _one_minus(t: Tensor) -> Tensor:
    return 1 - t


def _cosine(t: Tensor) -> Tensor:
    # the sine of the complement: exactly 0 at t = 1
    return torch.sin((1 - t) * (math.pi / 2))


def _sine(t: Tensor) -> Tensor:
    return torch.sin(t * (math.pi / 2))

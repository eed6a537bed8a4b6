r"""Noise schedules: a time t becomes (alpha_t, sigma_t), and `x_t = alpha_t x_0 + sigma_t noise`.

>>> schedule = DiscreteSchedule.linear()
>>> alpha_t, sigma_t = schedule(500)
>>> bool(abs(alpha_t**2 + sigma_t**2 - 1) < 1e-15)
True

Here are the contract and the table over the training times 0 ... T-1 (DDPM and every diffusers
scheduler that is variance preserving); `jacobian_lab.diffusion.continuous` has the functions of a
continuous time. Coefficients are float64 whatever the network's precision: they are few, and
`1 - alpha^2` cancels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.errors import InputError

Time: TypeAlias = int | float | Tensor
MOST = 10**6
"""Times of a table, or of a list of times, at most: a thousand times what anyone trains on."""


class Schedule(ABC):
    """A map from times to noise levels. Subclasses define `time_tensor` (validation) and
    `_coefficients` (the formula).
    """

    @abstractmethod
    def time_tensor(self, t: Time) -> Tensor:
        """Validate `t` and return it as a tensor of shape () or (B,), in the dtype that networks
        expect.

        Raises
        ------
        InputError
            If a time lies outside the schedule, or is not of its kind.
        """

    @abstractmethod
    def times(self, steps: int, last: Any = None) -> list[int] | list[float]:
        """Return `steps` evenly spaced times, falling from the noisiest, as far as `last` if it is
        given.
        """

    def scale(self, t: Time) -> Tensor:
        """Return `sqrt(alpha_t^2 + sigma_t^2)`, the size of x_t for data of unit variance."""
        alpha_t, sigma_t = self(t)
        return (alpha_t**2 + sigma_t**2).sqrt()

    def time_of(self, ratio: float | Tensor) -> Tensor:
        """Return the time at which `sigma_t / alpha_t` is nearest to a ratio, at least 0; shape ()
        or (B,), as the ratio's.

        Raises
        ------
        InputError
            If the schedule is of another kind than those here.
        """
        raise InputError(f"{self!r} does not tell the time of sigma / alpha = {ratio}")

    @abstractmethod
    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return float64 (alpha_t, sigma_t) for times that are already validated."""

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        """Return `(alpha_t, sigma_t)`, float64, of the shape of `t`: () or (B,)."""
        return self._coefficients(self.time_tensor(t))

    def add_noise(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Return `x_t = alpha_t x0 + sigma_t noise`.

        Parameters
        ----------
        x0, noise : Tensor
            Of one shape, (B, *shape), or with one time also that of a single sample.
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).
        """
        for name, given in (("x0", x0), ("noise", noise)):
            if not isinstance(given, Tensor):
                raise InputError(f"{name} must be a tensor: got {_require.shown(given)}")
        if x0.shape != noise.shape:
            raise InputError(
                f"noise must have the shape of x0: expected {tuple(x0.shape)}, got"
                f" {tuple(noise.shape)}"
            )
        alpha_t, sigma_t = self(t)
        if x0.ndim == 3 and alpha_t.numel() > 1:  # not one time for each channel
            raise InputError(
                f"x0 of shape {tuple(x0.shape)} with {alpha_t.numel()} times is an image, or a"
                " batch of series: write x0[None] for an image; for series Denoiser.add_noise,"
                " which knows the shape of a sample"
            )
        return per_sample(alpha_t, x0) * x0 + per_sample(sigma_t, noise) * noise


def as_tensor(t: Any) -> Tensor:
    """Return times as a tensor, or raise."""
    try:
        return t if isinstance(t, Tensor) else torch.as_tensor(t, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"a time is a number, or a tensor of a number for each sample: got {_require.shown(t)}"
        ) from error


def ratio_tensor(ratio: Any) -> Tensor:
    """Return ratios sigma / alpha in float64 on the CPU, or raise unless all are at least 0."""
    as_tensor(ratio)  # or raise
    found = torch.as_tensor(ratio, dtype=torch.float64, device="cpu")
    if not (found >= 0).all():
        raise InputError(f"sigma / alpha must be at least 0: got {found.tolist()}")
    return found


def _even(start: float, end: float, steps: int, power: float = 1.0) -> Tensor:
    """Return betas, or a power of them, evenly spaced."""
    steps = _require.integer("steps", steps, 1, MOST)
    start, end = (
        _require.real(name, beta, "[0, 1)")
        for name, beta in (("beta_start", start), ("beta_end", end))
    )
    return torch.linspace(start**power, end**power, steps, dtype=torch.float64, device="cpu")


def per_sample(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a coefficient, () or (B,), so that it multiplies samples, (B, *shape), one by one; a
    single one also multiplies a sample without the dimension B.

    It is moved to the dtype of `x`, and to its device unless it is a number on the CPU: that
    multiplies everywhere, and the host need not wait for a transfer.

    Raises
    ------
    InputError
        If x is not floating point, or times and samples do not match.
    """
    if not x.is_floating_point():
        raise InputError(
            f"expected floating-point images, with pixels in [-1, 1]: got {x.dtype}. Write x /"
            " 127.5 - 1 for pixels from 0 to 255"
        )
    if coefficient.numel() == 1:
        place = coefficient.device if coefficient.device.type == "cpu" else x.device
        return coefficient.to(device=place, dtype=x.dtype).reshape(())
    if x.ndim < 2 or coefficient.numel() != len(x):
        raise InputError(
            f"one time per sample: expected {len(x)} times for x of shape {tuple(x.shape)}, "
            f"got {coefficient.numel()}"
        )
    return coefficient.to(x).reshape(-1, *[1] * (x.ndim - 1))


class DiscreteSchedule(Schedule):
    r"""A table over training times 0 ... T-1: `alpha_t = sqrt(alpha_bar_t)`, `sigma_t = sqrt(1 -
    alpha_bar_t)`.

    The index is diffusers' and the same for network and table: `alpha_bar_t = prod_{s<=t} (1 -
    beta_s)`, so time 0 already carries the noise beta_0.

    Parameters
    ----------
    alphas_cumprod : Tensor, shape (T,)
        The table alpha_bar, in (0, 1], non-increasing; the last one may be 0 (zero terminal SNR:
        pure noise).

    References
    ----------
    Ho, Jain, Abbeel (2020), *Denoising diffusion probabilistic models*, eq. 4. Nichol, Dhariwal
    (2021), *Improved denoising diffusion probabilistic models*, eq. 17 (cosine).
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        if getattr(alphas_cumprod, "dtype", None) in (torch.float16, torch.bfloat16):
            raise InputError(
                f"alphas_cumprod is in {alphas_cumprod.dtype}, in which 1 - alpha_bar has no digits"
                " left: load the model in float32, and convert the denoiser, denoiser.to(dtype)"
            )
        table = torch.from_numpy(_require.array("alphas_cumprod", alphas_cumprod).copy())
        falls = table.ndim == 1 and len(table) > 0 and not (table.diff() > 0).any()
        if not falls or not ((table >= 0) & (table <= 1)).all() or not (table[:-1] > 0).all():
            raise InputError(
                "alphas_cumprod must be a vector in (0, 1] that does not increase, of which the"
                f" last may be 0: got {table}"
            )
        self.alphas_cumprod = table

    @classmethod
    def from_betas(cls, betas: Tensor) -> DiscreteSchedule:
        """Build the table from the noise variances beta_t in [0, 1), shape (T,)."""
        table = torch.from_numpy(_require.array("betas", betas).copy())
        if table.ndim != 1 or not len(table) or not ((table >= 0) & (table <= 1)).all():
            raise InputError(
                "betas must be a vector in [0, 1), of which the last may be 1: got"
                f" {_require.shown(betas)}"
            )
        return cls(torch.cumprod(1 - table, dim=0))

    @classmethod
    def linear(
        cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 2e-2
    ) -> DiscreteSchedule:
        """DDPM's schedule: beta_t linear in t.

        Parameters
        ----------
        steps : int
            Training times T, 1 ... 10^6.
        beta_start, beta_end : float
            The first and the last beta, in [0, 1).
        """
        return cls.from_betas(_even(beta_start, beta_end, steps))

    @classmethod
    def scaled_linear(
        cls, steps: int = 1000, beta_start: float = 8.5e-4, beta_end: float = 1.2e-2
    ) -> DiscreteSchedule:
        """Stable Diffusion's schedule: sqrt(beta_t) linear in t.

        Parameters
        ----------
        steps, beta_start, beta_end
            As in `linear`.
        """
        return cls.from_betas(_even(beta_start, beta_end, steps, 0.5) ** 2)

    @classmethod
    def cosine(
        cls, steps: int = 1000, offset: float = 0.008, largest_beta: float = 0.999
    ) -> DiscreteSchedule:
        """Nichol and Dhariwal's schedule: alpha_bar a squared cosine, each beta at most
        `largest_beta`.

        Parameters
        ----------
        steps : int
            Training times T, 1 ... 10^6.
        offset : float
            At least 0: keeps the first betas from being too small.
        largest_beta : float
            In (0, 1].
        """
        steps = _require.integer("steps", steps, 1, MOST)
        offset = _require.real("offset", offset, "[0, inf)")
        largest_beta = _require.real("largest_beta", largest_beta, "(0, 1]")
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")
        alpha_bar = torch.cos((times + offset) / (1 + offset) * (math.pi / 2)) ** 2
        return cls.from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=largest_beta))

    @property
    def steps(self) -> int:
        """The number T of training times."""
        return len(self.alphas_cumprod)

    def time_tensor(self, t: Time) -> Tensor:
        """Return `t` as int64; see `Schedule.time_tensor`."""
        time = as_tensor(t)
        if time.is_floating_point() or time.is_complex() or time.dtype == torch.bool:
            raise InputError(
                f"a discrete schedule takes an integer time, 0 to {self.steps - 1}: got {t!r}"
                f" ({time.dtype})"
            )
        time = time.long()
        if time.ndim > 1:
            raise InputError(f"times have shape () or (B,): got {tuple(time.shape)}")
        ends = time.aminmax() if time.ndim and time.numel() else [time] * (not time.ndim)
        if not all(0 <= int(end) < self.steps for end in ends):
            raise InputError(
                f"time {t!r} is outside this schedule: expected an integer from 0 to"
                f" {self.steps - 1}"
            )
        return time

    def times(self, steps: int, last: int | None = None) -> list[int]:
        """Return `steps` times from T-1 down to `last`; by default so spaced that one more would be
        -1, the clean sample.
        """
        steps = _require.integer("steps", steps, 1, self.steps)
        if last is not None:
            last = _require.integer("the last time", last, 0, self.steps - 1)
            if steps > self.steps - last:
                raise InputError(
                    f"there are {self.steps - last} times from {self.steps - 1} to {last}: got"
                    f" steps = {steps}"
                )
            return [
                round(self.steps - 1 - i * (self.steps - 1 - last) / max(1, steps - 1))
                for i in range(steps)
            ]
        return [round(self.steps * (1 - i / steps)) - 1 for i in range(steps)]

    def time_of(self, ratio: float | Tensor) -> Tensor:
        """Return the nearest time of the table; see `Schedule.time_of`."""
        alpha, sigma = self(torch.arange(self.steps, device="cpu"))
        angle = ratio_tensor(ratio).atan()
        return (sigma.atan2(alpha) - angle.unsqueeze(-1)).abs().argmin(-1)

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alphas_cumprod.to(t.device)[t]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def __repr__(self) -> str:
        return (
            f"DiscreteSchedule(T={self.steps}, alpha_bar {self.alphas_cumprod[0]:.5f} ->"
            f" {self.alphas_cumprod[-1]:.2e})"
        )

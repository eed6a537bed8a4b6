r"""What a network's output means: `D = c_x x_t + c_out F(c_in x_t, time)`.

All are linear in (x_t, x_0), so each becomes the posterior mean by two coefficients (a = alpha_t,
s = sigma_t):

    prediction   F estimates            c_x              c_out
    "epsilon"    noise                  1 / a            -s / a
    "v"          a noise - s x_0        a / (a^2 + s^2)  -s / (a^2 + s^2)
    "sample"     x_0                    0                1
    "flow"       noise - x_0            1 / (a + s)      -s / (a + s)
    "score"      -noise / s             1 / a            s^2 / a

A network that is fed something else than (x_t, t) has a `Preconditioning`, such as `EDM`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from jacobian_lab import _require
from jacobian_lab.errors import InputError

Prediction: TypeAlias = Literal["epsilon", "v", "sample", "flow", "score"]


def coefficients(prediction: Prediction, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(c_x, c_out)` of `D = c_x x_t + c_out F`; see the module's table.

    Parameters
    ----------
    prediction : {"epsilon", "v", "sample", "flow", "score"}
    alpha_t, sigma_t : Tensor, shape () or (B,)
        The noise levels.

    Returns
    -------
    c_x, c_out : Tensor
        The coefficients, in the shape of `alpha_t`.

    Raises
    ------
    InputError
        If the prediction is unknown, or says nothing about x_0 at this noise level (epsilon or the
        score where alpha_t = 0).
    """
    match prediction:
        case "epsilon" | "score":
            if has_zero(alpha_t):
                raise InputError(
                    f"{'a noise' if prediction == 'epsilon' else 'a score'} prediction does not"
                    " determine the sample where alpha_t = 0: take a time below the last one, or a"
                    " network that predicts v, sample or flow"
                )
            out = -sigma_t if prediction == "epsilon" else sigma_t**2
            return 1 / alpha_t, out / alpha_t
        case "v":
            power = alpha_t**2 + sigma_t**2
            return alpha_t / power, -sigma_t / power
        case "sample":
            return torch.zeros_like(alpha_t), torch.ones_like(alpha_t)
        case "flow":
            return 1 / (alpha_t + sigma_t), -sigma_t / (alpha_t + sigma_t)
    raise InputError(
        f"unknown prediction {prediction!r}: expected one of {', '.join(get_args(Prediction))}, or"
        " a Preconditioning"
    )


def has_zero(x: Tensor) -> bool:
    """Return whether an entry is zero, also while the caller is traced, which forbids to ask."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return bool((x == 0).any())


def all_finite(x: Tensor) -> bool:
    """Return whether no entry is NaN or infinite; see `has_zero`."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return bool(x.isfinite().all())


class Scalings(NamedTuple):
    """How a network is fed and read: `D = c_x x_t + c_out F(c_in x_t, time)`; float64, shape () or
    (B,).
    """

    c_x: Tensor
    c_out: Tensor
    c_in: Tensor
    time: Tensor


class Preconditioning(ABC):
    """A prediction of a user's own: `D = c_x x_t + c_out F(c_in x_t, time)`.

    The derivative is checked on F, so that a large c_x hides no error of it.
    """

    @abstractmethod
    def __call__(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Scalings:
        """Return the scalings at times of the schedule, and what it makes of them."""


@dataclass(frozen=True)
class EDM(Preconditioning):
    r"""Karras's preconditioning of a network F.

    With `sigma = sigma_t / alpha_t`, `x = x_t / alpha_t` and s_d the data's standard deviation,

        D = c_skip x + c_out F(c_in x, ln(sigma) / 4)
        c_skip = s_d^2 / (sigma^2 + s_d^2)       c_out = sigma s_d / sqrt(sigma^2 + s_d^2)
        c_in = 1 / sqrt(sigma^2 + s_d^2)

    Parameters
    ----------
    sigma_data : float
        s_d, the standard deviation of the data.

    References
    ----------
    Karras, Aittala, Aila, Laine (2022), *Elucidating the design space of diffusion-based
    generative models*, arXiv 2206.00364, table 1.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _require.real("sigma_data", self.sigma_data, "(0, inf)")

    def __call__(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Scalings:
        """Return `c_skip / alpha_t`, c_out, `c_in / alpha_t` and `ln(sigma) / 4`."""
        if has_zero(alpha_t) or has_zero(sigma_t):
            raise InputError(
                "EDM's preconditioning is not defined where alpha_t or sigma_t is 0, here at t ="
                f" {t.tolist()}: take a time between"
            )
        sigma = sigma_t / alpha_t
        power = sigma**2 + self.sigma_data**2
        return Scalings(
            self.sigma_data**2 / power / alpha_t,
            sigma * self.sigma_data / power.sqrt(),
            power.rsqrt() / alpha_t,
            sigma.log() / 4,
        )

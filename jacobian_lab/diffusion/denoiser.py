"""Any diffusion network as a posterior mean: `D(x_t, t) ~ E[x_0 | x_t]`.

A network predicts the noise, the velocity, the sample, the flow or the score; all are linear in
(x_t, x_0), so each becomes the posterior mean by two coefficients, `D = c_x x_t + c_out F(x_t, t)`,
for every schedule: see `jacobian_lab.diffusion.prediction`.

Everything downstream knows D only. The network is called as `network(x, t)`, x of shape (B,
*shape), t of shape (B,): int64 for a discrete schedule; for a continuous one in the dtype of x, but
float32 where x is in half precision, which would round the time (bfloat16 has nothing between
0.498 and 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.prediction import (
    Preconditioning,
    Prediction,
    Scalings,
    all_finite,
    coefficients,
    has_zero,
)
from jacobian_lab.diffusion.schedule import Schedule, Time, per_sample
from jacobian_lab.errors import InputError

Shape: TypeAlias = tuple[int, ...]
Network: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Denoiser(nn.Module):
    """The posterior mean `D(x_t, t)` of a network, a schedule and a prediction type.

    Parameters
    ----------
    network : callable
        `network(x, t) -> raw output`, x (B, *shape), t (B,), output of the shape of x.
    schedule : Schedule
    prediction : {"epsilon", "v", "sample", "flow", "score"} or Preconditioning
        What the network's raw output estimates.
    shape : tuple of int
        Shape of one sample, of any rank: (C, H, W) for images.
    learned_variance : bool
        Whether the network returns twice the channels, of which the second half is a variance and
        left out (guided diffusion, DiT).

    Attributes
    ----------
    network, schedule, prediction, shape
        As given. If the network is a `torch.nn.Module`, `denoiser.to(...)`, `.double()` and
        `.eval()` reach it.
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        prediction: Prediction | Preconditioning,
        shape: Shape,
        *,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        _require.function("network", network, "(x, t) -> raw output")
        _require.instance(
            "schedule",
            schedule,
            Schedule,
            "; DiscreteSchedule(alphas_cumprod) makes one of a table",
        )
        if not isinstance(prediction, Preconditioning):
            _require.one_of("prediction", prediction, get_args(Prediction))
        self.network = network
        self.schedule = schedule
        self.prediction: Prediction | Preconditioning = prediction
        self.shape: Shape = _require.sizes("shape", shape)
        self.learned_variance = _require.flag("learned_variance", learned_variance)
        # not .train(), which would change the network
        self.training = isinstance(network, nn.Module) and network.training

    def __repr__(self) -> str:
        network, kind = self.network, type(self.network).__name__
        if isinstance(network, nn.Module):
            what = f"{kind} of {sum(p.numel() for p in network.parameters()):,} weights"
        else:
            what = getattr(network, "__name__", kind)
        return (
            f"{type(self).__name__}({what}, {self.schedule!r}, {self.prediction!r}, {self.shape})"
        )

    def forward(self, x_t: Tensor, t: Time) -> Tensor:
        """Return the posterior mean of x_0, of the shape and dtype of `x_t`.

        Parameters
        ----------
        x_t : Tensor, shape (B, *shape) or shape
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).

        Raises
        ------
        InputError
            If a shape or dtype is wrong, or a time is not of the schedule.
        """
        x = self.batched(x_t)
        c_x, c_out = self.coefficients(x, t)
        found = c_x * x + c_out * self.output(x, t)
        return found.to(x.dtype).reshape(x_t.shape)  # the output may be in a higher precision

    def coefficients(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Return `(c_x, c_out)` of `D = c_x x_t + c_out F` at the times of a batch x, shaped to
        multiply it.
        """
        if isinstance(self.prediction, Preconditioning):
            c_x, c_out, _, _ = self._scalings(self.prediction, t)
        else:
            c_x, c_out = coefficients(self.prediction, *self.schedule(t))
        for c in (c_x, c_out):
            if not all_finite(c.to(x.dtype)):
                raise InputError(
                    f"D = c_x x_t + c_out F is not finite at t = {t} in {x.dtype}: c_x is"
                    f" {c_x.tolist()}, c_out {c_out.tolist()}. Take another time, or more digits"
                    " (float32, bfloat16)"
                )
        return per_sample(c_x, x), per_sample(c_out, x)

    def _scalings(self, prediction: Preconditioning, t: Time) -> Scalings:
        return prediction(self.schedule.time_tensor(t), *self.schedule(t))

    def output(self, x: Tensor, t: Time) -> Tensor:
        """Return the network's own output F(x, t), (B, *shape), for a batch x of that shape.

        The network gets a copy of x, so that one that writes into its input changes nothing of the
        caller's; its output is copied too, since some write into the same memory at the next call
        (CUDA graphs, compiled engines). An output that comes as a tuple of one, a mapping or an
        object with `sample` (diffusers) is unwrapped; of a learned variance the half that is the
        mean is kept.

        Raises
        ------
        InputError
            If the output is no real floating-point tensor of the shape of x.
        """
        given, time = self._network_input(x, t)
        try:
            raw = unwrapped(self.network(given, time.expand(x.shape[0])))
        except RuntimeError as error:
            weights = {p.dtype for p in self.parameters() if p.is_floating_point()}
            if weights and x.dtype not in weights:
                raise InputError(
                    f"x_t is {x.dtype}, the network's weights are"
                    f" {', '.join(sorted(map(str, weights)))}: convert one of them, x_t.to(dtype)"
                    " or denoiser.to(dtype)"
                ) from error
            raise
        if self.learned_variance:
            raw = self._mean(raw)
        if raw.shape != x.shape:
            raise InputError(
                f"the network returned shape {tuple(raw.shape)} for an input of {tuple(x.shape)}:"
                f" expected the same shape{_why(raw.shape, x.shape)}"
            )
        return raw.clone()

    def _network_input(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Return what the network gets: a copy of x, scaled by c_in, and the time."""
        given, time = x.clone(), self.schedule.time_tensor(t)
        if isinstance(self.prediction, Preconditioning):
            _, _, c_in, time = self._scalings(self.prediction, t)
            if not all_finite(c_in.to(x.dtype)) or not all_finite(time):
                raise InputError(
                    f"what the network is fed is not finite at t = {t} in {x.dtype}: c_in is"
                    f" {c_in.tolist()}, the time {time.tolist()}. Take another time"
                )
            given = per_sample(c_in, x) * given
        precision = torch.promote_types(x.dtype, torch.float32)
        dtype = precision if time.is_floating_point() else time.dtype
        return given, time.to(x.device, dtype, non_blocking=True)  # the host need not wait

    def _mean(self, raw: Tensor) -> Tensor:
        """Return the first half of the channels, the mean, or raise if there is no other half."""
        c, *rest = self.shape
        if tuple(raw.shape[1:]) != (2 * c, *rest):
            raise InputError(
                f"learned_variance=True, but the network returned shape {tuple(raw.shape)}:"
                f" expected (B, {', '.join(map(str, (2 * c, *rest)))}), twice the channels"
            )
        return raw[:, :c]

    def batched(self, x_t: Tensor) -> Tensor:
        """Return x_t as a batch, (B, *shape), or raise."""
        shape = tuple(_require.tensor("x_t", x_t).shape)
        if self.shape not in (shape, shape[1:]) or not x_t.numel():
            expected = ", ".join(map(str, self.shape))
            raise InputError(f"x_t has shape {shape}: expected (B, {expected}) or ({expected})")
        return x_t if shape != self.shape else x_t.unsqueeze(0)

    def add_noise(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Return `x_t = alpha_t x0 + sigma_t noise`, shape of `x0`.

        Parameters
        ----------
        x0, noise : Tensor, shape (B, *shape) or shape
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).
        """
        x = self.batched(x0)
        _require.tensor("noise", noise, x0.shape)
        alpha_t, sigma_t = (per_sample(c, x) for c in self.schedule(t))
        return (alpha_t * x + sigma_t * self.batched(noise)).reshape(x0.shape)

    def raw(self, x0: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """Return the raw output for which `D(x_t, t)` is `x0`: the network's training target, shape
        of `x_t`.

        Parameters
        ----------
        x0, x_t : Tensor, shape (B, *shape) or shape
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).
        """
        x = self._alike(x_t, x0)
        c_x, c_out = self.coefficients(x, t)
        if has_zero(c_out):
            raise InputError(f"the network's output does not enter D at t = {t}: c_out is 0")
        return ((self.batched(x0) - c_x * x) / c_out).reshape(x_t.shape)

    def noise(self, x_t: Tensor, x0: Tensor, t: Time) -> Tensor:
        """Return the noise that explains `x_t` if the clean sample is `x0`: `(x_t - alpha_t x0) /
        sigma_t`.

        Parameters
        ----------
        x_t, x0 : Tensor, shape (B, *shape) or shape
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).
        """
        x = self._alike(x_t, x0)
        alpha_t, sigma_t = (per_sample(c, x) for c in self.schedule(t))
        if has_zero(sigma_t):
            raise InputError(f"x_t is the clean sample at t = {t}, sigma_t is 0: it has no noise")
        return ((x - alpha_t * self.batched(x0)) / sigma_t).reshape(x_t.shape)

    def _alike(self, x_t: Tensor, x0: Tensor) -> Tensor:
        """Return x_t as a batch, or raise unless x0 has its shape."""
        x = self.batched(x_t)
        _require.tensor("x0", x0, x_t.shape)
        return x


def _why(found: torch.Size, wanted: torch.Size) -> str:
    """Return a remedy for an output of the wrong shape, or nothing."""
    if found[1:2] == (2 * wanted[1],) and found[2:] == wanted[2:]:
        return " (if it also learns a variance: pass learned_variance=True)"
    if found[1:] == wanted[1:]:
        return (
            ". Does it hold conditions, such as labels or prompts, of its own for each sample?"
            " Samples are also taken alone: hold one condition for all, (1, ...)"
        )
    return ""


def unwrapped(raw: Any) -> Tensor:
    """Return a network's output as a plain tensor, out of what libraries wrap it in."""
    found = raw[0] if isinstance(raw, (tuple, list)) and len(raw) == 1 else raw
    if not isinstance(found, Tensor):
        found = (
            found.get("sample") if isinstance(found, Mapping) else getattr(found, "sample", None)
        )
    if not isinstance(found, Tensor) or not found.is_floating_point():
        got = (
            f"a tensor of {raw.dtype}"
            if isinstance(raw, Tensor)
            else (
                f"{len(raw)} things, a {type(raw).__name__}"
                if (isinstance(raw, (tuple, list)))
                else type(raw).__name__
            )
        )
        raise InputError(
            f"the network returned {got}: expected one real floating-point tensor, or an object"
            " with `sample`; wrap it, such as lambda x, t: network(x, t)[0]"
        )
    return found if type(found) is Tensor else found.as_subclass(Tensor)

r"""Any diffusion network as a posterior mean: `D(x_t, t) ~ E[x_0 | x_t]`.

A network predicts the noise, the velocity, the sample or the flow; all four are linear in (x_t,
x_0), so each becomes the posterior mean by two coefficients, `D = c_x x_t + c_out F(x_t, t)`, for
every schedule (a = alpha_t, s = sigma_t):

    prediction   F estimates            c_x              c_out
    "epsilon"    noise                  1 / a            -s / a
    "v"          a noise - s x_0        a / (a^2 + s^2)  -s / (a^2 + s^2)
    "sample"     x_0                    0                1
    "flow"       noise - x_0            1 / (a + s)      -s / (a + s)

Everything downstream knows D only. The network is called as `network(x, t)`, x of shape (B, C, H,
W), t of shape (B,): int64 for a discrete schedule; for a flow in the dtype of x, but float32 where
x is in half precision, which would round the time (bfloat16 has nothing between 0.498 and 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.schedule import Schedule, Time, per_sample
from jacobian_lab.errors import InputError

Prediction: TypeAlias = Literal["epsilon", "v", "sample", "flow"]
Shape: TypeAlias = tuple[int, int, int]
Network: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def coefficients(prediction: Prediction, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(c_x, c_out)` of `D = c_x x_t + c_out F`; see the module's table.

    Parameters
    ----------
    prediction : {"epsilon", "v", "sample", "flow"}
    alpha_t, sigma_t : Tensor, shape () or (B,)
        The noise levels.

    Returns
    -------
    c_x, c_out : Tensor
        The coefficients, in the shape of `alpha_t`.

    Raises
    ------
    InputError
        If the prediction is unknown, or says nothing about x_0 at this noise level (epsilon where
        alpha_t = 0).
    """
    match prediction:
        case "epsilon":
            if (alpha_t == 0).any():
                raise InputError(
                    "a noise prediction does not determine the sample where alpha_t = 0: "
                    "take a time below the last one, or a network that predicts v, sample or flow"
                )
            return 1 / alpha_t, -sigma_t / alpha_t
        case "v":
            power = alpha_t**2 + sigma_t**2
            return alpha_t / power, -sigma_t / power
        case "sample":
            return torch.zeros_like(alpha_t), torch.ones_like(alpha_t)
        case "flow":
            return 1 / (alpha_t + sigma_t), -sigma_t / (alpha_t + sigma_t)
    raise InputError(
        f"unknown prediction {prediction!r}: expected one of {', '.join(get_args(Prediction))}"
    )


class Denoiser(nn.Module):
    """The posterior mean `D(x_t, t)` of a network, a schedule and a prediction type.

    Parameters
    ----------
    network : callable
        `network(x, t) -> raw output`, x (B, C, H, W), t (B,), output of the shape of x.
    schedule : Schedule
    prediction : {"epsilon", "v", "sample", "flow"}
        What the network's raw output estimates.
    shape : (int, int, int)
        Shape (C, H, W) of one sample.

    Attributes
    ----------
    network, schedule, prediction, shape
        As given. If the network is a `torch.nn.Module`, `denoiser.to(...)`, `.double()` and
        `.eval()` reach it.
    """

    def __init__(
        self, network: Network, schedule: Schedule, prediction: Prediction, shape: Shape
    ) -> None:
        super().__init__()
        _require.function("network", network, "(x, t) -> raw output")
        _require.instance(
            "schedule",
            schedule,
            Schedule,
            "; DiscreteSchedule(alphas_cumprod) makes one of a table",
        )
        _require.one_of("prediction", prediction, get_args(Prediction))
        c, h, w = _require.sizes("shape", shape, 3)
        self.network = network
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.shape = (c, h, w)
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
        x_t : Tensor, shape (B, C, H, W) or (C, H, W)
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).

        Raises
        ------
        InputError
            If a shape or dtype is wrong, or a time is not of the schedule.
        """
        x = self.batched(x_t)
        c_x, c_out = self.coefficients(x, t)
        return (c_x * x + c_out * self.output(x, t)).reshape(x_t.shape)

    def coefficients(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Return `(c_x, c_out)` of `D = c_x x_t + c_out F` at the times of a batch x, shaped to
        multiply it.
        """
        c_x, c_out = coefficients(self.prediction, *self.schedule(t))
        return per_sample(c_x, x), per_sample(c_out, x)

    def output(self, x: Tensor, t: Time) -> Tensor:
        """Return the network's own output F(x, t), (B, C, H, W), for a batch x of that shape.

        The network gets a copy of x, so that one that writes into its input changes nothing of the
        caller's. An output that comes as a tuple of one, a mapping or an object with `sample`
        (diffusers) is unwrapped.

        Raises
        ------
        InputError
            If the output is no real floating-point tensor of the shape of x.
        """
        time = self.schedule.time_tensor(t)
        time = time.to(
            x.device,
            torch.promote_types(x.dtype, torch.float32) if time.is_floating_point() else None,
        )
        try:
            raw = _unwrapped(self.network(x.clone(), time.expand(x.shape[0])))
        except RuntimeError as error:
            weights = {p.dtype for p in self.parameters() if p.is_floating_point()}
            if weights and x.dtype not in weights:
                raise InputError(
                    f"x_t is {x.dtype}, the network's weights are"
                    f" {', '.join(sorted(map(str, weights)))}: convert one of them, x_t.to(dtype)"
                    " or denoiser.to(dtype)"
                ) from error
            raise
        if raw.shape != x.shape:
            raise InputError(
                f"the network returned shape {tuple(raw.shape)} for an input of {tuple(x.shape)}:"
                " expected the same shape (a network that also learns a variance returns 2 C"
                " channels: keep C)"
            )
        return raw

    def batched(self, x_t: Tensor) -> Tensor:
        """Return x_t as a batch, (B, C, H, W), or raise."""
        _require.tensor("x_t", x_t)
        if tuple(x_t.shape[-3:]) != self.shape or x_t.ndim not in (3, 4) or not x_t.numel():
            expected = ", ".join(map(str, self.shape))
            raise InputError(
                f"x_t has shape {tuple(x_t.shape)}: expected (B, {expected}) or ({expected})"
            )
        return x_t if x_t.ndim == 4 else x_t.unsqueeze(0)

    def raw(self, x0: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """Return the raw output for which `D(x_t, t)` is `x0`: the network's training target, shape
        of `x_t`.

        Parameters
        ----------
        x0, x_t : Tensor, shape (B, C, H, W) or (C, H, W)
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).
        """
        c_x, c_out = self.coefficients(_like(x_t, x0), t)
        return (x0 - c_x * x_t) / c_out

    def noise(self, x_t: Tensor, x0: Tensor, t: Time) -> Tensor:
        """Return the noise that explains `x_t` if the clean sample is `x0`: `(x_t - alpha_t x0) /
        sigma_t`.

        Parameters
        ----------
        x_t, x0 : Tensor, shape (B, C, H, W) or (C, H, W)
        t : int, float or Tensor
            One time for all, or one per sample, shape (B,).
        """
        alpha_t, sigma_t = self.schedule(t)
        _like(x_t, x0)
        return (x_t - per_sample(alpha_t, x_t) * x0) / per_sample(sigma_t, x_t)


def _like(x_t: Tensor, x0: Tensor) -> Tensor:
    """Return x_t, or raise unless it and x0 are images of one shape."""
    _require.tensor("x0", x0, _require.tensor("x_t", x_t).shape)
    return x_t


def _unwrapped(raw: Any) -> Tensor:
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


def guided(conditional: Network, unconditional: Network, scale: float) -> Network:
    """Return classifier-free guidance as a network: `F_uncond + scale (F_cond - F_uncond)`; scale 1
    means off.

    The raw outputs are combined, as in diffusers; for every prediction type that equals combining
    the posterior means. Scale 1 calls the conditional network only and equals it exactly.

    Parameters
    ----------
    conditional, unconditional : callable
        Networks `(x, t) -> raw output` of one prediction type.
    scale : float
        Guidance scale; 0 is the unconditional network, 1 the conditional one.

    References
    ----------
    Ho, Salimans (2022), *Classifier-free diffusion guidance*, in the convention of diffusers.
    """
    for name, network in (("conditional", conditional), ("unconditional", unconditional)):
        _require.function(f"the {name} network", network, "(x, t) -> raw output")
    if _require.real("scale", scale) == 1:
        return conditional
    return Guidance(conditional, unconditional, scale)


class Guidance(nn.Module):
    """`F_uncond + scale (F_cond - F_uncond)`; a Module, so that `.to()` and `.eval()` reach both
    networks.

    Parameters
    ----------
    conditional, unconditional, scale
        As in `guided`.
    """

    def __init__(self, conditional: Network, unconditional: Network, scale: float) -> None:
        super().__init__()
        self.conditional, self.unconditional, self.scale = conditional, unconditional, scale
        self.training = any(
            isinstance(n, nn.Module) and n.training for n in (conditional, unconditional)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the guided raw output, shape of `x`."""
        raw = self.unconditional(x, t)
        return raw + self.scale * (self.conditional(x, t) - raw)

r"""Flow-matching networks whose time runs from noise to data: torchcfm, flow_matching, SiT.

With `s = 1 - t`, their path is `x_s = alpha x_0 + sigma noise` and the network estimates
`F = dx_s / ds`; for the straight path that is `x_0 - noise`, the sign of ours turned. By the
derivatives in our time, `F = -(alpha' x_0 + sigma' noise)`, so that

    D = (sigma' x_t + sigma F) / (alpha sigma' - alpha' sigma)        straight: x_t + t F

The network need not know of it: it gets s, and D is read by these coefficients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.family import Labelled, classes, has, packages, ready
from jacobian_lab.diffusion.continuous import (
    ContinuousSchedule,
    RectifiedFlow,
    TrigonometricFlow,
    VariancePreserving,
)
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import Preconditioning, Scalings
from jacobian_lab.errors import InputError

PATHS = {
    "linear": RectifiedFlow,
    "trigonometric": TrigonometricFlow,
    "vp": VariancePreserving,
}
"""Names of paths: conditional optimal transport, "GVP" of SiT, and the limit of DDPM's."""


class Velocity(Preconditioning):
    """A network that estimates `dx / ds` at `s = 1 - t`.

    Parameters
    ----------
    schedule : ContinuousSchedule
        The path.

    References
    ----------
    Lipman et al. (2023), *Flow matching for generative modeling*; Tong et al. (2024), *Improving
    and generalizing flow-based generative models with minibatch optimal transport*.
    """

    def __init__(self, schedule: ContinuousSchedule) -> None:
        self.schedule = schedule

    def __call__(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Scalings:
        """Return c_x, c_out, 1 and `1 - t`."""
        alpha_rate, sigma_rate = self.schedule.rates(t)
        power = alpha_t * sigma_rate - alpha_rate * sigma_t
        return Scalings(sigma_rate / power, sigma_t / power, torch.ones_like(alpha_t), 1 - t)

    def __repr__(self) -> str:
        return "Velocity()"


class TimeFirst(nn.Module):
    """torchcfm's order, `network(t, x)`; an `MLP` takes one tensor, x with t as its last entry."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **given: Any) -> Any:
        """Return the velocity for x, (B, *shape), at s = t, (B,)."""
        if "MLP" in classes(self.network):
            return self.network(torch.cat([x, t[:, None]], dim=1))
        return self.network(t, x, **given)


def is_torchcfm(source: Any) -> bool:
    """Return whether a source is a network of torchcfm."""
    return isinstance(source, nn.Module) and "torchcfm" in packages(source)


def is_flow_matching(source: Any) -> bool:
    """Return whether a source is a wrapper of flow_matching, or one with its path."""
    model = source[0] if isinstance(source, tuple) and len(source) == 2 else source
    return isinstance(model, nn.Module) and "ModelWrapper" in classes(model)


def load_torchcfm(
    source: Any,
    *,
    shape: Shape | None = None,
    label: int | None = None,
    path: str | ContinuousSchedule = "linear",
) -> Denoiser:
    """Return the denoiser of a network `(t, x) -> velocity` of torchcfm.

    Parameters
    ----------
    source : nn.Module
    shape : tuple of int, optional
        Of a sample; a `UNetModelWrapper` tells.
    label : int, optional
        The class, of a class-conditional one.
    path : {"linear", "trigonometric", "vp"} or ContinuousSchedule
        "linear" for the conditional flow matchers (their small sigma is left out), "trigonometric"
        for `VariancePreservingConditionalFlowMatcher`.

    Notes
    -----
    With optimal transport, noise and data come in pairs: D is the mean of x_0 over these.
    """
    if shape is None:
        if not has(source, "in_channels", "image_size"):
            raise InputError(f"a {type(source).__name__} does not tell its shape: pass shape=...")
        shape = (int(source.in_channels), int(source.image_size), int(source.image_size))
    network = TimeFirst(ready(source))
    labelled = network if label is None else Labelled(network, label, "y")
    return _denoiser(labelled, path, shape)


def load_flow_matching(source: Any, *, shape: Shape, path: Any = "linear") -> Denoiser:
    """Return the denoiser of a network `(x, t) -> velocity` of flow_matching.

    Parameters
    ----------
    source : nn.Module or (nn.Module, path)
        Such as a `ModelWrapper`.
    shape : tuple of int
        Of a sample.
    path : {"linear", "trigonometric", "vp"}, ContinuousSchedule, or of the library
        Its affine path or scheduler, whose functions are taken.
    """
    network, path = source if isinstance(source, tuple) else (source, path)
    return _denoiser(ready(network), path, shape)


def _denoiser(network: Any, path: Any, shape: Shape) -> Denoiser:
    schedule = schedule_of(path)
    shape = _require.sizes("shape", shape)
    return Denoiser(network, schedule, Velocity(schedule), shape).eval()


def schedule_of(path: Any) -> ContinuousSchedule:
    """Return the schedule of a path, by name or by the library's own functions of 1 - t."""
    if isinstance(path, ContinuousSchedule):
        return path
    scheduler = getattr(path, "scheduler", path)
    if callable(scheduler) and "flow_matching" in packages(scheduler):
        alpha, sigma = (partial(_level, scheduler, which) for which in ("alpha_t", "sigma_t"))
        return ContinuousSchedule(alpha, sigma)
    _require.one_of("path", path, PATHS)
    return PATHS[path]()


def _level(scheduler: Any, which: str, t: Tensor) -> Tensor:
    """Return a function of the library's schedule; no lambda, which cannot be pickled."""
    level: Tensor = getattr(scheduler(1 - t), which)
    return level

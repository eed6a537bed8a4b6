"""SiT and DiT in their authors' own code: transformers of latents, with a class.

    SiT     network(x, s, y), s = 1 - t: velocity, noise or score on a linear, GVP or VP path; it
            halves the channels of a learned variance by itself
    DiT     network(x, t, y): noise, linear betas, and twice the channels of which half is left out

Both guide the first three channels only in their `forward_with_cfg`; here, as in diffusers, all.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.family import Labelled, classes, has, label_of, ready
from jacobian_lab.diffusion.adapters.flows import Velocity, schedule_of
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.guidance import guided
from jacobian_lab.diffusion.prediction import Prediction
from jacobian_lab.diffusion.schedule import DiscreteSchedule


class Backwards(nn.Module):
    """A network whose time is 1 for the clean sample."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """Return the network's output at 1 - t."""
        return self.network(x, 1 - t)


def is_sit(source: Any) -> bool:
    """Return whether a source is a SiT or a DiT of the authors' code."""
    return bool(classes(source) & {"SiT", "DiT"}) and has(
        source, "x_embedder", "y_embedder", "learn_sigma"
    )


def load_sit(
    source: Any,
    *,
    label: int,
    guidance: float = 1.0,
    path: Literal["linear", "gvp", "vp"] = "linear",
    predicts: Literal["velocity", "noise", "score"] = "velocity",
) -> Denoiser:
    """Return the denoiser of latents of a SiT or a DiT.

    Parameters
    ----------
    source : nn.Module
    label : int
        The class.
    guidance : float
        Scale of guidance away from the null class; 1 is off.
    path, predicts : str
        Of a SiT: how it was trained. A DiT has none of them.

    References
    ----------
    Ma et al. (2024), *SiT: exploring flow and diffusion-based generative models with scalable
    interpolant transformers*; Peebles, Xie (2023), *Scalable diffusion models with transformers*.
    """
    _require.one_of("path", path, ("linear", "gvp", "vp"))
    _require.one_of("predicts", predicts, ("velocity", "noise", "score"))
    null = int(source.y_embedder.num_classes)
    size = source.x_embedder.img_size
    h, w = (size, size) if isinstance(size, int) else size
    shape = (int(source.in_channels), int(h), int(w))
    ready(source)
    given, none = (Labelled(source, of, "y") for of in (label_of(label, null), null))
    if "DiT" in classes(source):
        both = guided(given, none, guidance)
        twice = bool(source.learn_sigma)
        table = DiscreteSchedule.linear()
        return Denoiser(both, table, "epsilon", shape, learned_variance=twice).eval()
    schedule = schedule_of("trigonometric" if path == "gvp" else path)
    if predicts == "velocity":
        both = guided(given, none, guidance)
        return Denoiser(both, schedule, Velocity(schedule), shape).eval()
    both = guided(Backwards(given), Backwards(none), guidance)
    prediction: Prediction = "epsilon" if predicts == "noise" else "score"
    return Denoiser(both, schedule, prediction, shape).eval()

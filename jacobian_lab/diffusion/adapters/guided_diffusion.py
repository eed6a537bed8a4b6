"""OpenAI's guided-diffusion and improved-diffusion: a `UNetModel`, with its `GaussianDiffusion` or
with a schedule.

    model, diffusion = create_model_and_diffusion(...)
    denoiser = load((model, diffusion), label=207)

Only the diffusion object tells the table, what the network predicts, and the times of a respaced
one; a bare model does not, and needs `schedule`: linear betas or a cosine, 4000 or 1000 of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.family import Labelled, classes, has, label_of, packages, ready
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import Prediction
from jacobian_lab.diffusion.schedule import DiscreteSchedule
from jacobian_lab.errors import InputError

MEANS: dict[str, Prediction] = {"EPSILON": "epsilon", "START_X": "sample"}
"""The library's `ModelMeanType` -> ours."""


def is_guided_diffusion(source: Any) -> bool:
    """Return whether a source is a model of this family, or one with its diffusion."""
    model = source[0] if isinstance(source, tuple) and len(source) == 2 else source
    is_model = "UNetModel" in classes(model) and has(model, "in_channels", "out_channels")
    paired = model is source or has(source[1], "model_mean_type", "alphas_cumprod")
    # torchcfm has a copy of the network, whose arguments are the other way round
    return is_model and paired and "torchcfm" not in packages(model)


def load_guided_diffusion(
    source: Any,
    *,
    label: int | None = None,
    schedule: DiscreteSchedule | None = None,
    shape: Shape | None = None,
) -> Denoiser:
    """Return the denoiser of a `UNetModel`.

    Parameters
    ----------
    source : UNetModel or (UNetModel, GaussianDiffusion)
    label : int, optional
        The class of a conditional model.
    schedule : DiscreteSchedule, optional
        For a model alone, which then predicts the noise: `DiscreteSchedule.linear()` for the
        published models of 128 pixels and more, `DiscreteSchedule.cosine()` for those of 64.
    shape : tuple of int, optional
        Of a sample, (C, H, W), where the model does not tell, as those of improved-diffusion.

    References
    ----------
    Dhariwal, Nichol (2021), *Diffusion models beat GANs on image synthesis*.
    """
    model, diffusion = source if isinstance(source, tuple) else (source, None)
    prediction, times = MEANS["EPSILON"], torch.empty(0, device="cpu")
    if diffusion is not None:
        if schedule is not None:
            raise InputError("the diffusion object has a schedule of its own: leave schedule out")
        mean = str(getattr(diffusion.model_mean_type, "name", diffusion.model_mean_type))
        if mean not in MEANS:
            raise InputError(f"model_mean_type is {mean}: expected one of {', '.join(MEANS)}")
        prediction = MEANS[mean]
        schedule = DiscreteSchedule(torch.from_numpy(np.asarray(diffusion.alphas_cumprod)))
        times = _times(diffusion, schedule.steps)
    if schedule is None:
        raise InputError(
            "a UNetModel alone does not tell its noise schedule: pass (model, diffusion), or"
            " schedule=DiscreteSchedule.linear() or .cosine()"
        )
    network = Labelled(ready(model), label_of(label, getattr(model, "num_classes", None)), "y")
    if shape is None:
        if not has(model, "image_size"):
            raise InputError(
                f"the UNetModel has no image_size: pass shape=({model.in_channels}, H, W)"
            )
        shape = (model.in_channels, model.image_size, model.image_size)
    shape = _require.sizes("shape", shape)
    twice = int(model.out_channels) == 2 * shape[0]
    timed = Timed(network, times) if len(times) else network
    return Denoiser(timed, schedule, prediction, shape, learned_variance=twice).eval()


def _times(diffusion: Any, steps: int) -> Tensor:
    """Return the times of the network at the indices of a table; empty where they are the same."""
    times = torch.as_tensor(getattr(diffusion, "timestep_map", range(steps)), device="cpu")
    if getattr(diffusion, "rescale_timesteps", False):
        original = getattr(diffusion, "original_num_steps", steps)
        return times.float() * (1000.0 / original)
    whole = torch.equal(times, torch.arange(steps, device="cpu"))
    return torch.empty(0, device="cpu") if whole else times


class Timed(nn.Module):
    """A network at the times of a table, `network(x, times[t])`."""

    times: Tensor

    def __init__(self, network: nn.Module, times: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("times", times)

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """Return the network's output for x, (B, *shape), at indices t, (B,)."""
        return self.network(x, self.times.to(t.device)[t])

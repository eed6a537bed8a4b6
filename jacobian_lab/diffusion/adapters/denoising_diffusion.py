"""denoising-diffusion-pytorch (Wang): a `GaussianDiffusion` object, of images or of series.

The object normalises data from [0, 1] to [-1, 1] before its network sees them, so that pixels are
in [-1, 1] here; with `auto_normalize=False` they are as they were in training. Self-conditioning
starts from zeros, as the library's first step does.
"""

from __future__ import annotations

from typing import Any

from jacobian_lab.diffusion.adapters.family import has, ready
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import Prediction
from jacobian_lab.diffusion.schedule import DiscreteSchedule
from jacobian_lab.errors import InputError

OBJECTIVES: dict[str, Prediction] = {"pred_noise": "epsilon", "pred_x0": "sample", "pred_v": "v"}


def is_denoising_diffusion(source: Any) -> bool:
    """Return whether a source is such an object."""
    return has(source, "objective", "alphas_cumprod", "model", "channels")


def load_denoising_diffusion(source: Any) -> Denoiser:
    """Return the denoiser of a `GaussianDiffusion` or `GaussianDiffusion1D`.

    Parameters
    ----------
    source : nn.Module
    """
    if source.objective not in OBJECTIVES:
        raise InputError(
            f"objective is {source.objective!r}: expected one of {', '.join(OBJECTIVES)}"
        )
    ready(source)
    shape: Shape
    if has(source, "image_size"):
        size = source.image_size
        h, w = (size, size) if isinstance(size, int) else size
        shape = (int(source.channels), int(h), int(w))
    else:
        shape = (int(source.channels), int(source.seq_length))
        if not getattr(source, "channel_first", True):
            shape = shape[::-1]
    schedule = DiscreteSchedule(source.alphas_cumprod)
    channels = int(source.channels)
    twice = getattr(source.model, "out_dim", channels) == 2 * channels  # LearnedGaussianDiffusion
    prediction = OBJECTIVES[source.objective]
    return Denoiser(source.model, schedule, prediction, shape, learned_variance=twice).eval()

"""Class-conditional transformers of latents: diffusers' `DiTPipeline`.

Guidance is diffusers': `F_null + guidance (F_label - F_null)` in all channels of the latent, where
the original code guides the first three only. The learned variance is left out.
"""

from __future__ import annotations

from typing import Any

import torch

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.autoencoders import sizes_of
from jacobian_lab.diffusion.adapters.conditions import Conditioned
from jacobian_lab.diffusion.adapters.conventions import read_convention
from jacobian_lab.diffusion.adapters.family import label_of
from jacobian_lab.diffusion.adapters.pipelines import CLASSES, open_pipeline
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.guidance import guided
from jacobian_lab.diffusion.latent import Latent
from jacobian_lab.errors import InputError


def load_dit(
    source: Any,
    *,
    label: int,
    guidance: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    download: bool = False,
) -> Latent:
    """Return a DiT with a class label.

    Parameters
    ----------
    source : str, Path or DiTPipeline
    label : int
        The class, such as 207 of ImageNet's 1000.
    guidance : float
        Scale of guidance away from the null class; 1 is off.
    device, dtype, download
        As in `load_latent`.

    References
    ----------
    Peebles, Xie (2023), *Scalable diffusion models with transformers*.
    """
    opened = open_pipeline(source, device, dtype, download)
    if opened.kind not in CLASSES:
        raise InputError(f"the source is a {opened.kind}: expected a DiTPipeline")
    guidance = _require.real("guidance", guidance)
    null = int(opened.network.config.num_embeds_ada_norm)
    labels = [label_of(label, null), null]
    convention, sizes = read_convention(opened, None), sizes_of(opened, None)
    conditioned = [
        Conditioned(
            opened.network,
            {"class_labels": torch.tensor([of], device=opened.network.device)},
            convention,
        )
        for of in labels
    ]
    denoiser = Denoiser(
        guided(conditioned[0], conditioned[1], guidance),
        convention.schedule,
        convention.prediction,
        sizes.latent,
        learned_variance=sizes.learned_variance,
    )
    return Latent(opened.pipeline, denoiser.eval(), sizes.factor)

"""Images that a text-to-image network is conditioned on, held fixed: a masked image, a ControlNet's
image, an IP-Adapter's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.autoencoders import Sizes
from jacobian_lab.diffusion.adapters.conditions import Beside, Controlled, Held
from jacobian_lab.diffusion.adapters.pipelines import Opened
from jacobian_lab.diffusion.latent import steady
from jacobian_lab.errors import InputError


def with_images(
    opened: Opened,
    sizes: Sizes,
    image: Tensor | None,
    mask: Tensor | None,
    control_image: Tensor | None,
    control_scale: float,
) -> nn.Module:
    """Return a pipeline's network, with the images that it is conditioned on.

    Parameters
    ----------
    opened : Opened
    sizes : Sizes
    image, mask : Tensor, optional
        (c, H, W) in [-1, 1], and (1, H, W) of bool, True where the pixels are known.
    control_image : Tensor, optional
        (c, H, W) in [0, 1].
    control_scale : float
    """
    controlled = opened.kind == "StableDiffusionControlNetPipeline"
    for given, wanted, name, what in (
        (image is not None and mask is not None, bool(sizes.beside), "image and mask", "channels"),
        (control_image is not None, controlled, "control_image", "ControlNet"),
    ):
        if given != wanted:
            raise InputError(
                f"the network needs {name}: pass {'both' if sizes.beside else 'it'} to hold fixed"
                if wanted
                else f"{name} given, but the network has no {what} for it: leave it out"
            )
    network = opened.network
    if image is not None and mask is not None:
        return Beside(network, _masked(opened.pipeline, sizes, image, mask))
    if control_image is not None:
        controlnet = opened.pipeline.controlnet
        channels = int(controlnet.config.conditioning_channels)
        shown = _require.tensor("control_image", control_image, (channels, *sizes.image[1:]))
        held = shown[None].to(network.device, network.dtype)
        return Controlled(network, controlnet, held, _require.real("control_scale", control_scale))
    return network


@torch.no_grad()
def _masked(pipeline: Any, sizes: Sizes, image: Tensor, mask: Tensor) -> Tensor:
    """Return the channels beside the latent: 1 where it is to be painted, and the known part."""
    _require.tensor("image", image, sizes.image)
    if mask.dtype != torch.bool or tuple(mask.shape) != (1, *sizes.image[1:]):
        raise InputError(
            f"mask must be bool of shape {(1, *sizes.image[1:])}, True where a pixel is known: got"
            f" {_require.shown(mask)}"
        )
    vae = steady(pipeline.vae)
    known = (image * mask)[None].to(vae.device, vae.dtype)
    latent = vae.encode(known).latent_dist.mode() * vae.config.scaling_factor
    latent = latent.to(pipeline.vae.dtype)
    unknown = F.interpolate((~mask)[None].to(latent), size=sizes.latent[1:])
    return torch.cat([unknown, latent], dim=1)


@torch.no_grad()
def with_adapter(pipeline: Any, network: Any, held: list[Held], image: Any) -> list[Held]:
    """Return the conditions with the embedding of an IP-Adapter's image, if the network has one.

    Parameters
    ----------
    pipeline
    network
        The pipeline's network, whose configuration says whether it has an IP-Adapter.
    held : list of dict
        Keyword arguments for the prompt and, with guidance, for the negative one.
    image
        As diffusers takes `ip_adapter_image`; None without an IP-Adapter.
    """
    # diffusers sets the attribute, not the entry
    has_adapter = getattr(network.config, "encoder_hid_dim_type", None) == "ip_image_proj"
    if has_adapter != (image is not None):
        raise InputError(
            "the pipeline has an IP-Adapter: pass adapter_image=..., its image, or unload it"
            if has_adapter
            else "adapter_image given, but the pipeline has no IP-Adapter: load_ip_adapter first"
        )
    if image is None:
        return held
    both = len(held) == 2
    found = pipeline.prepare_ip_adapter_image_embeds(
        image, None, pipeline._execution_device, 1, both
    )
    # diffusers puts the negative one first
    halves = [of.chunk(2)[::-1] if both else (of,) for of in found]
    return [
        {
            **condition,
            "added_cond_kwargs": {
                **condition.get("added_cond_kwargs", {}),
                "image_embeds": [half[i] for half in halves],
            },
        }
        for i, condition in enumerate(held)
    ]

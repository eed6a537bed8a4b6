"""Transformers of diffusers over packed latents: FLUX and its kin."""

from functools import partial

import torch

from zoo.builders_unet2d import package
from zoo.registry import Wrapped, entry, fixed, image, tokens

dit = partial(entry, "diffusers transformer", needs="diffusers")


def positions(x, patch=2, axes=3):
    side = x.shape[-1] // patch
    grid = torch.cartesian_prod(torch.arange(x.shape[-2] // patch), torch.arange(side))
    return torch.cat([torch.zeros(len(grid), axes - 2), grid], 1).to(x)


def packed(net, guidance=False, pooled=True, axes=3, **more):
    """A network over packed latents, as FLUX and its kin take them."""

    def call(net, x, t):
        given = {
            "encoder_hidden_states": fixed(x, 5, 8),
            "timestep": t,
            "img_ids": positions(x, 2, axes),
            "txt_ids": torch.zeros(5, axes).to(x),
            **{name: make(x) for name, make in more.items()},
        }
        if pooled:
            given["pooled_projections"] = fixed(x, 8)
        if guidance:
            given["guidance"] = torch.full((len(x),), 3.5).to(x)
        return image(net(hidden_states=tokens(x, 2), **given).sample, x, 2)

    return Wrapped(net, call)


FLUX = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "axes_dims_rope": (2, 2, 4),
}


@dit(prediction="flow")
def flux_schnell():
    return packed(package().FluxTransformer2DModel(pooled_projection_dim=8, **FLUX))


@dit(prediction="flow")
def flux_dev():
    return packed(
        package().FluxTransformer2DModel(pooled_projection_dim=8, guidance_embeds=True, **FLUX),
        guidance=True,
    )


@dit(prediction="flow")
def flux2():
    return packed(
        package().Flux2Transformer2DModel(
            **{**FLUX, "axes_dims_rope": (2, 2, 2, 2)}, timestep_guidance_channels=8
        ),
        guidance=True,
        pooled=False,
        axes=4,
    )


@dit(prediction="flow")
def chroma():
    return packed(
        package().ChromaTransformer2DModel(
            approximator_num_channels=8, approximator_hidden_dim=8, approximator_layers=1, **FLUX
        ),
        pooled=False,
    )


@dit(prediction="flow")
def bria():
    return packed(
        package().BriaTransformer2DModel(pooled_projection_dim=None, **FLUX), pooled=False
    )


@dit(prediction="flow")
def longcat_image():
    return packed(
        package().LongCatImageTransformer2DModel(pooled_projection_dim=8, **FLUX), pooled=False
    )


@dit(prediction="flow")
def ovis_image():
    return packed(package().OvisImageTransformer2DModel(out_channels=16, **FLUX), pooled=False)

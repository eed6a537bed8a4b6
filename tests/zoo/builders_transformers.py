"""Transformers of diffusers for images."""

from functools import partial

import torch

from zoo.builders_unet2d import package
from zoo.registry import Wrapped, entry, fixed

dit = partial(entry, "diffusers transformer", needs="diffusers")


HEADS = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}


@dit()
def dit_ada_norm_zero():
    net = package().DiTTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=8, norm_num_groups=4, **HEADS
    )
    return Wrapped(
        net, lambda net, x, t: net(x, t, torch.ones(len(x)).long()).sample.chunk(2, 1)[0]
    )


@dit()
def transformer2d_continuous():
    net = package().Transformer2DModel(
        in_channels=4, norm_num_groups=2, cross_attention_dim=8, sample_size=8, **HEADS
    )
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8)).sample)


@dit()
def transformer2d_ada_norm():
    net = package().Transformer2DModel(
        in_channels=4,
        norm_num_groups=2,
        sample_size=8,
        num_embeds_ada_norm=1000,
        **HEADS,
        use_linear_projection=True,
        norm_type="ada_norm",
    )
    return Wrapped(
        net,
        lambda net, x, t: torch.cat(
            [net(one[None], timestep=time).sample for one, time in zip(x, t, strict=True)]
        ),
    )


def pixart(**options):
    net = package().PixArtTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        norm_num_groups=4,
        caption_channels=8,
        cross_attention_dim=16,
        use_additional_conditions=False,
        **HEADS,
        **options,
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            x,
            fixed(x, 5, 8),
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample.chunk(2, 1)[0],
    )


@dit()
def pixart_alpha():
    return pixart()


@dit()
def pixart_sigma_interpolated():
    return pixart(interpolation_scale=2)


def sd3(call=None, **options):
    net = package().SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        joint_attention_dim=8,
        **HEADS,
        caption_projection_dim=16,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
        **options,
    )
    return Wrapped(
        net, call or (lambda net, x, t: net(x, fixed(x, 5, 8), fixed(x, 8), 1000 * t).sample)
    )


@dit(prediction="flow")
def sd3_medium():
    return sd3()


@dit(prediction="flow")
def sd35_dual_attention():
    return sd3(dual_attention_layers=(0,), qk_norm="rms_norm")


@dit(prediction="flow")
def sd3_controlnet():
    net = sd3().net
    control = package().SD3ControlNetModel(
        sample_size=8,
        in_channels=4,
        joint_attention_dim=8,
        caption_projection_dim=16,
        pooled_projection_dim=8,
        pos_embed_max_size=8,
        extra_conditioning_channels=0,
        **HEADS,
    )

    def call(nets, x, t):
        found = nets[1](
            x,
            controlnet_cond=fixed(x, 4, 8, 8),
            encoder_hidden_states=fixed(x, 5, 8),
            timestep=1000 * t,
            pooled_projections=fixed(x, 8),
        )[0]
        return nets[0](
            x, fixed(x, 5, 8), fixed(x, 8), 1000 * t, block_controlnet_hidden_states=found
        ).sample

    return Wrapped(torch.nn.ModuleList([net, control]), call)

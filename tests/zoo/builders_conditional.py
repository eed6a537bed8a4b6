"""U-Nets of diffusers with a text: Stable Diffusion and its descendants, and how its users call
them.
"""

from functools import partial

import torch

from zoo.builders_unet2d import conditional
from zoo.registry import Wrapped, entry, fixed

sd = partial(entry, "diffusers U-Net", needs="diffusers")


@sd()
def sd1():
    return conditional()


@sd(prediction="v")
def sd2():
    return conditional(use_linear_projection=True, attention_head_dim=(2, 4))


@sd()
def sd_upcast_attention():
    return conditional(upcast_attention=True)


@sd()
def sdxl():
    def call(net, x, t):
        added = {"text_embeds": fixed(x, 16), "time_ids": fixed(x, 6).abs()}
        return net(x, t, fixed(x, 5, 16), added_cond_kwargs=added).sample

    return conditional(
        call,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        transformer_layers_per_block=(1, 2),
    )


@sd(prediction="v")
def sdxl_refiner():
    def call(net, x, t):
        added = {"text_embeds": fixed(x, 16), "time_ids": fixed(x, 5).abs()}
        return net(x, t, fixed(x, 5, 16), added_cond_kwargs=added).sample

    return conditional(
        call,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 5 * 8,
        transformer_layers_per_block=2,
    )


@sd()
def instruct_pix2pix():
    return conditional(
        lambda net, x, t: net(torch.cat([x, fixed(x, 4, 8, 8)], 1), t, fixed(x, 5, 16)).sample,
        in_channels=8,
    )


@sd()
def sd_inpainting():
    return conditional(
        lambda net, x, t: net(torch.cat([x, fixed(x, 5, 8, 8)], 1), t, fixed(x, 5, 16)).sample,
        in_channels=9,
    )


@sd()
def sd_class_conditioned_upscaler():
    return conditional(
        lambda net, x, t: net(x, t, fixed(x, 5, 16), class_labels=torch.ones(len(x)).long()).sample,
        num_class_embeds=4,
    )


@sd()
def deepfloyd_if():
    return conditional(
        lambda net, x, t: net(x, t, fixed(x, 5, 16)).sample.chunk(2, 1)[0],
        out_channels=8,
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        encoder_hid_dim=16,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        down_block_types=("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
    )


@sd()
def lcm_guidance_embedding():
    return conditional(
        lambda net, x, t: net(x, t, fixed(x, 5, 16), timestep_cond=fixed(x, 12)).sample,
        time_cond_proj_dim=12,
    )


@sd()
def sd_sliced_attention():
    network = conditional()
    network.net.set_attention_slice("max")
    return network


@sd()
def sd_chunked_feed_forward():
    network = conditional()
    for module in network.modules():
        if hasattr(module, "set_chunk_feed_forward"):
            module.set_chunk_feed_forward(8, dim=1)
    return network


@sd()
def sd_fused_qkv():
    network = conditional()
    network.net.fuse_qkv_projections()
    return network


@sd()
def sd_freeu():
    network = conditional(block_out_channels=(8, 8))
    network.net.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    for block in network.net.up_blocks:  # the thresholds of the published sizes, at ours
        block.resolution_idx = 0
    return network


@sd()
def sd_gradient_checkpointing():
    network = conditional()
    network.net.enable_gradient_checkpointing()
    network.net.train()
    return network


@sd()
def sd_guided():
    from jacobian_lab import guided

    net = conditional().net
    return guided(
        Wrapped(net, lambda net, x, t: net(x, t, fixed(x, 5, 16)).sample),
        Wrapped(net, lambda net, x, t: net(x, t, fixed(x, 4, 16)[:, :1].expand(-1, 5, -1)).sample),
        5.0,
    )


@sd()
def sd_guided_rescaled():
    def call(net, x, t):
        empty, text = net(
            x.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([0 * fixed(x, 5, 16), fixed(x, 5, 16)])
        ).sample.chunk(2)
        out = empty + 5 * (text - empty)
        return (
            0.7 * out * text.std(dim=(1, 2, 3), keepdim=True) / out.std(dim=(1, 2, 3), keepdim=True)
            + 0.3 * out
        )

    return conditional(call)


@sd()
def sd_perturbed_attention_guidance():
    def call(net, x, t):
        return (
            net(x, t, fixed(x, 5, 16)).sample * 2
            - net(x, t, torch.zeros_like(fixed(x, 5, 16))).sample
        )

    return conditional(call)

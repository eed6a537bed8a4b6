"""U-Nets of diffusers without a text: its block kinds, times and ways to resample; and the two that
others build on.
"""

from functools import partial

import torch

from zoo.registry import Wrapped, entry, fixed

sd = partial(entry, "diffusers U-Net", needs="diffusers")


TINY = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}


def package():
    import diffusers

    return diffusers


def unet2d(channels=4, down="DownBlock2D", up="UpBlock2D", **options):
    given = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": channels,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", down),
        "up_block_types": (up, "UpBlock2D"),
        **TINY,
        **options,
    }
    return Wrapped(package().UNet2DModel(**given), lambda net, x, t: net(x, t).sample)


def conditional(call=None, **options):
    given = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": 16,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        **TINY,
        **options,
    }
    net = package().UNet2DConditionModel(**given)
    return Wrapped(
        net,
        call or (lambda net, x, t: net(x, t, fixed(x, 5, net.config.cross_attention_dim)).sample),
    )


@sd()
def unet2d_plain():
    return unet2d()


@sd()
def unet2d_attention():
    return unet2d(down="AttnDownBlock2D", up="AttnUpBlock2D")


@sd()
def unet2d_fourier_time():
    return unet2d(time_embedding_type="fourier")


@sd(shape=(3, 8, 8))
def unet2d_skip_blocks():
    """The U-Net of NCSN++: a pyramid of images runs beside the features."""
    return unet2d(
        3,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        block_out_channels=(32, 32),
        norm_eps=1e-6,
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        time_embedding_type="fourier",
        mid_block_scale_factor=2**0.5,
        norm_num_groups=32,
    )


@sd()
def unet2d_scale_shift():
    return unet2d(resnet_time_scale_shift="scale_shift")


@sd(prediction="v")
def unet2d_resnet_sampling():
    return unet2d(down="ResnetDownsampleBlock2D", up="ResnetUpsampleBlock2D")


@sd(prediction="v")
def unet2d_resnet_type_sampling():
    return unet2d(
        downsample_type="resnet", upsample_type="resnet", down="AttnDownBlock2D", up="AttnUpBlock2D"
    )


@sd()
def unet2d_mish():
    return unet2d(act_fn="mish")


@sd(prediction="sample")
def unet2d_classes():
    net = unet2d(num_class_embeds=3).net
    return Wrapped(
        net, lambda net, x, t: net(x, t, class_labels=torch.ones(len(x), dtype=torch.long)).sample
    )


@sd(shape=(2, 8, 8))
def unet2d_simple_cross_attention():
    return conditional(
        in_channels=2,
        out_channels=2,
        down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "SimpleCrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )

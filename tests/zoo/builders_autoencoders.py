"""Autoencoders of diffusers as maps of images to images."""

from functools import partial

import torch

from zoo.builders_unet2d import package, unet2d
from zoo.registry import Wrapped, entry, fixed

vae = partial(
    entry, "diffusers autoencoder", shape=(3, 8, 8), prediction="sample", needs="diffusers"
)


def through(net, encode=None):
    return Wrapped(
        net,
        lambda net, x, t: (
            net.decode(encode(net, x) if encode else net.encode(x).latent_dist.mean).sample
        ),
    )


@vae()
def autoencoder_kl():
    return through(
        package().AutoencoderKL(
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
        )
    )


@vae(shape=(3, 16, 16))
def autoencoder_kl_tiled():
    network = autoencoder_kl()
    network.net.enable_tiling()
    network.net.tile_sample_min_size, network.net.tile_latent_min_size = 8, 4
    return network


@vae()
def autoencoder_kl_sliced():
    network = autoencoder_kl()
    network.net.enable_slicing()
    return network


@vae()
def autoencoder_tiny():
    return through(
        package().AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
            upsampling_scaling_factor=2,
        ),
        lambda net, x: net.encode(x).latents,
    )


@vae()
def autoencoder_asymmetric():
    return through(
        package().AsymmetricAutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            layers_per_down_block=1,
            up_block_out_channels=(8, 8),
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_up_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=8,
        )
    )


@vae()
def autoencoder_dc():
    return through(
        package().AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            attention_head_dim=4,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
        ),
        lambda net, x: net.encode(x).latent,
    )


def vq():
    return package().VQModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        latent_channels=3,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        num_vq_embeddings=16,
    )


@vae(outcome="told")
def vq_model():
    return Wrapped(vq(), lambda net, x, t: net.decode(net.encode(x).latents).sample)


@vae()
def vq_model_not_quantised():
    return Wrapped(
        vq(), lambda net, x, t: net.decode(net.encode(x).latents, force_not_quantize=True).sample
    )


@vae(shape=(4, 4, 4), prediction="epsilon", outcome="told")
def movq_decoder():
    """Kandinsky's decoder with spatial normalisation: codes in, and what they were quantised to
    modulates each layer.
    """
    net = package().VQModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(32,),
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",),
        num_vq_embeddings=16,
        vq_embed_dim=4,
        norm_type="spatial",
    )
    return Wrapped(net, lambda net, x, t: net.decode(x).sample)


@vae(shape=(3, 8, 8))
def autoencoder_temporal_decoder():
    net = package().AutoencoderKLTemporalDecoder(
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        latent_channels=4,
    )
    return Wrapped(
        net, lambda net, x, t: net.decode(net.encode(x).latent_dist.mean, num_frames=1).sample
    )


@vae(shape=(3, 8, 8))
def consistency_decoder():
    """The U-Net of OpenAI's consistency decoder, its own noise held fixed."""
    from diffusers import UNet2DModel

    net = UNet2DModel(
        in_channels=7,
        out_channels=6,
        sample_size=8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        time_embedding_type="learned",
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
        resnet_time_scale_shift="scale_shift",
        add_attention=False,
        num_train_timesteps=1024,
    )
    return Wrapped(
        net, lambda net, x, t: net(torch.cat([x, fixed(x, 4, 8, 8)], 1), t).sample[:, :3]
    )


@vae(shape=(3, 8, 8), isolated=True)
def layerwise_casting():
    """Weights kept in float16 and cast layer by layer in hooks."""
    network = unet2d(3)
    network.net.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float64)
    return network

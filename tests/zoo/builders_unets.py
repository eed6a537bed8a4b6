"""U-Nets of diffusers with control networks, and of other families."""

from functools import partial

import torch

from zoo.builders_unet2d import conditional, package
from zoo.registry import Wrapped, entry, fixed, video

sd = partial(entry, "diffusers U-Net", needs="diffusers")
film = partial(entry, "diffusers video", shape=(8, 4, 4), needs="diffusers")  # 4 channels, 2 frames


@sd()
def controlnet():
    model = package()
    net = conditional().net
    control = model.ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(4, 8))

    def call(nets, x, t):
        down, mid = nets[1](x, t, fixed(x, 5, 16), fixed(x, 3, 16, 16), return_dict=False)
        return nets[0](
            x,
            t,
            fixed(x, 5, 16),
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample

    return Wrapped(torch.nn.ModuleList([net, control]), call)


@sd()
def multi_controlnet():
    model = package()
    net = conditional().net
    controls = [
        model.ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(4, 8))
        for _ in range(2)
    ]
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

    def call(nets, x, t):
        down, mid = nets[1](
            x, t, fixed(x, 5, 16), [fixed(x, 3, 16, 16)] * 2, [0.5, 1.0], return_dict=False
        )
        return nets[0](
            x,
            t,
            fixed(x, 5, 16),
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample

    return Wrapped(torch.nn.ModuleList([net, MultiControlNetModel(controls)]), call)


@sd()
def t2i_adapter():
    model = package()
    adapter = model.T2IAdapter(
        in_channels=3,
        channels=[8, 16],
        num_res_blocks=1,
        downscale_factor=1,
        adapter_type="full_adapter",
    )

    def call(nets, x, t):
        features = [f.clone() for f in nets[1](fixed(x, 3, 8, 8))]
        return nets[0](x, t, fixed(x, 5, 16), down_intrablock_additional_residuals=features).sample

    return Wrapped(torch.nn.ModuleList([conditional().net, adapter]), call)


@sd(shape=(4, 8, 8))
def kandinsky3_unet():
    net = package().Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=16,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 16),
        cross_attention_dim=8,
        encoder_hid_dim=8,
    )
    return Wrapped(
        net, lambda net, x, t: net(x, t, fixed(x, 5, 8), torch.ones(len(x), 5).to(x)).sample
    )


@sd(shape=(4, 8, 8), prediction="flow")
def stable_cascade_unet():
    net = package().StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        timestep_ratio_embedding_dim=16,
        conditioning_dim=8,
        block_out_channels=(16, 16),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        clip_text_in_channels=8,
        clip_text_pooled_in_channels=8,
        clip_image_in_channels=8,
        clip_seq=2,
    )
    return Wrapped(
        net,
        lambda net, x, t: (
            net(
                x,
                t,
                clip_text_pooled=fixed(x, 1, 8),
                clip_text=fixed(x, 3, 8),
                clip_img=fixed(x, 1, 8),
            ).sample
        ),
    )


@sd(shape=(4, 8, 8))
def uvit_over_embeddings():
    """The blocks of UVit2D, whose own input is made of indices: its hidden states in the place of
    the embedding.
    """
    net = package().UVit2DModel(
        hidden_size=16,
        cond_embed_dim=16,
        micro_cond_encode_dim=8,
        micro_cond_embed_dim=40,
        encoder_hidden_size=16,
        vocab_size=12,
        codebook_size=10,
        in_channels=4,
        block_out_channels=8,
        num_res_blocks=1,
        block_num_heads=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        sample_size=8,
    )
    head = torch.nn.Conv2d(10, 4, 1)

    def call(nets, x, t):
        nets[0].embed = _Continuous(x)
        return nets[1](
            nets[0](
                torch.zeros(len(x), 8, 8).long(), fixed(x, 5, 16), fixed(x, 16), fixed(x, 5).abs()
            )
        )

    return Wrapped(torch.nn.ModuleList([net, head]), call)


class _Continuous(torch.nn.Module):
    def __init__(self, x):
        super().__init__()
        self.image, self.training = x, False

    def forward(self, indices):
        return self.image.repeat(1, 2, 1, 1)


@sd(shape=(2, 16, 8))
def unet1d_over_rows():
    net = package().UNet1DModel(
        sample_size=128,
        in_channels=2,
        out_channels=2,
        extra_in_channels=64,
        layers_per_block=1,
        block_out_channels=(32, 32, 32),
        time_embedding_type="fourier",
        norm_num_groups=4,
    )
    return Wrapped(net, lambda net, x, t: net(x.flatten(2), t).sample.reshape(x.shape))


@film()
def unet3d():
    net = package().UNet3DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    return Wrapped(net, lambda net, x, t: net(video(x, 2), t, fixed(x, 5, 8)).sample.flatten(1, 2))


@film()
def motion_unet():
    net = package().UNetMotionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        num_attention_heads=2,
        motion_max_seq_length=8,
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        cross_attention_dim=8,
        motion_num_attention_heads=2,
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2), t, fixed(x, 5, 8).repeat_interleave(2, 0)
        ).sample.flatten(1, 2),
    )


@film(prediction="v")
def stable_video_diffusion():
    net = package().UNetSpatioTemporalConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        num_frames=2,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        num_attention_heads=(2, 2),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=8,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    )
    return Wrapped(
        net,
        lambda net, x, t: (
            net(video(x, 2).transpose(1, 2), t, fixed(x, 1, 8), fixed(x, 3).abs())
            .sample.transpose(1, 2)
            .flatten(1, 2)
        ),
    )


@film()
def i2vgen_xl():
    net = package().I2VGenXLUNet(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        num_attention_heads=2,
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2),
            t,
            fixed(x)[: len(x)].abs() + 8,
            fixed(x, 4, 2, 4, 4),
            fixed(x, 8),
            fixed(x, 5, 8),
        ).sample.flatten(1, 2),
    )

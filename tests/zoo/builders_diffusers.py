"""Networks of diffusers: U-Nets, transformers for images and videos, autoencoders, control networks; all of a tiny size."""

from functools import partial

import torch

from zoo.registry import Wrapped, entry, fixed, image, tokens, video

sd = partial(entry, "diffusers U-Net", needs="diffusers")
dit = partial(entry, "diffusers transformer", needs="diffusers")
film = partial(entry, "diffusers video", shape=(8, 4, 4), needs="diffusers")  # 4 channels, 2 frames
vae = partial(entry, "diffusers autoencoder", shape=(3, 8, 8), prediction="sample", needs="diffusers")
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
    return Wrapped(net, call or (lambda net, x, t: net(x, t, fixed(x, 5, net.config.cross_attention_dim)).sample))


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
    return unet2d(downsample_type="resnet", upsample_type="resnet", down="AttnDownBlock2D", up="AttnUpBlock2D")


@sd()
def unet2d_mish():
    return unet2d(act_fn="mish")


@sd(prediction="sample")
def unet2d_classes():
    net = unet2d(num_class_embeds=3).net
    return Wrapped(net, lambda net, x, t: net(x, t, class_labels=torch.ones(len(x), dtype=torch.long)).sample)


@sd(shape=(2, 8, 8))
def unet2d_simple_cross_attention():
    return conditional(
        in_channels=2,
        out_channels=2,
        down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "SimpleCrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )


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
    return conditional(lambda net, x, t: net(torch.cat([x, fixed(x, 4, 8, 8)], 1), t, fixed(x, 5, 16)).sample, in_channels=8)


@sd()
def sd_inpainting():
    return conditional(lambda net, x, t: net(torch.cat([x, fixed(x, 5, 8, 8)], 1), t, fixed(x, 5, 16)).sample, in_channels=9)


@sd()
def sd_class_conditioned_upscaler():
    return conditional(
        lambda net, x, t: net(x, t, fixed(x, 5, 16), class_labels=torch.ones(len(x)).long()).sample, num_class_embeds=4
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
    return conditional(lambda net, x, t: net(x, t, fixed(x, 5, 16), timestep_cond=fixed(x, 12)).sample, time_cond_proj_dim=12)


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
        empty, text = net(x.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([0 * fixed(x, 5, 16), fixed(x, 5, 16)])).sample.chunk(2)
        out = empty + 5 * (text - empty)
        return 0.7 * out * text.std(dim=(1, 2, 3), keepdim=True) / out.std(dim=(1, 2, 3), keepdim=True) + 0.3 * out

    return conditional(call)


@sd()
def sd_perturbed_attention_guidance():
    def call(net, x, t):
        return net(x, t, fixed(x, 5, 16)).sample * 2 - net(x, t, torch.zeros_like(fixed(x, 5, 16))).sample

    return conditional(call)


@sd()
def controlnet():
    model = package()
    net = conditional().net
    control = model.ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(4, 8))

    def call(nets, x, t):
        down, mid = nets[1](x, t, fixed(x, 5, 16), fixed(x, 3, 16, 16), return_dict=False)
        return nets[0](x, t, fixed(x, 5, 16), down_block_additional_residuals=down, mid_block_additional_residual=mid).sample

    return Wrapped(torch.nn.ModuleList([net, control]), call)


@sd()
def multi_controlnet():
    model = package()
    net = conditional().net
    controls = [model.ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(4, 8)) for _ in range(2)]
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

    def call(nets, x, t):
        down, mid = nets[1](x, t, fixed(x, 5, 16), [fixed(x, 3, 16, 16)] * 2, [0.5, 1.0], return_dict=False)
        return nets[0](x, t, fixed(x, 5, 16), down_block_additional_residuals=down, mid_block_additional_residual=mid).sample

    return Wrapped(torch.nn.ModuleList([net, MultiControlNetModel(controls)]), call)


@sd()
def t2i_adapter():
    model = package()
    adapter = model.T2IAdapter(
        in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=1, adapter_type="full_adapter"
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
    return Wrapped(net, lambda net, x, t: net(x, t, fixed(x, 5, 8), torch.ones(len(x), 5).to(x)).sample)


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
        lambda net, x, t: net(x, t, clip_text_pooled=fixed(x, 1, 8), clip_text=fixed(x, 3, 8), clip_img=fixed(x, 1, 8)).sample,
    )


@sd(shape=(4, 8, 8))
def uvit_over_embeddings():
    """The blocks of UVit2D, whose own input is made of indices: its hidden states in the place of the embedding."""
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
        return nets[1](nets[0](torch.zeros(len(x), 8, 8).long(), fixed(x, 5, 16), fixed(x, 16), fixed(x, 5).abs()))

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
    return Wrapped(net, lambda net, x, t: net(video(x, 2), t, fixed(x, 5, 8).repeat_interleave(2, 0)).sample.flatten(1, 2))


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
            net(video(x, 2).transpose(1, 2), t, fixed(x, 1, 8), fixed(x, 3).abs()).sample.transpose(1, 2).flatten(1, 2)
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
            video(x, 2), t, fixed(x)[: len(x)].abs() + 8, fixed(x, 4, 2, 4, 4), fixed(x, 8), fixed(x, 5, 8)
        ).sample.flatten(1, 2),
    )


# ---- transformers for images -------------------------------------------------------------------------------------------

HEADS = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}


@dit()
def dit_ada_norm_zero():
    net = package().DiTTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=8, norm_num_groups=4, **HEADS
    )
    return Wrapped(net, lambda net, x, t: net(x, t, torch.ones(len(x)).long()).sample.chunk(2, 1)[0])


@dit()
def transformer2d_continuous():
    net = package().Transformer2DModel(in_channels=4, norm_num_groups=2, cross_attention_dim=8, sample_size=8, **HEADS)
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
        net, lambda net, x, t: torch.cat([net(one[None], timestep=time).sample for one, time in zip(x, t, strict=True)])
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
            x, fixed(x, 5, 8), timestep=t, added_cond_kwargs={"resolution": None, "aspect_ratio": None}
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
    return Wrapped(net, call or (lambda net, x, t: net(x, fixed(x, 5, 8), fixed(x, 8), 1000 * t).sample))


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
        return nets[0](x, fixed(x, 5, 8), fixed(x, 8), 1000 * t, block_controlnet_hidden_states=found).sample

    return Wrapped(torch.nn.ModuleList([net, control]), call)


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
    return packed(package().FluxTransformer2DModel(pooled_projection_dim=8, guidance_embeds=True, **FLUX), guidance=True)


@dit(prediction="flow")
def flux2():
    return packed(
        package().Flux2Transformer2DModel(**{**FLUX, "axes_dims_rope": (2, 2, 2, 2)}, timestep_guidance_channels=8),
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
    return packed(package().BriaTransformer2DModel(pooled_projection_dim=None, **FLUX), pooled=False)


@dit(prediction="flow")
def longcat_image():
    return packed(package().LongCatImageTransformer2DModel(pooled_projection_dim=8, **FLUX), pooled=False)


@dit(prediction="flow")
def ovis_image():
    return packed(package().OvisImageTransformer2DModel(out_channels=16, **FLUX), pooled=False)


@dit(prediction="flow")
def auraflow():
    net = package().AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=16,
        pos_embed_max_size=16,
    )
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t).sample)


@dit()
def hunyuan_dit():
    net = package().HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=16,
        num_layers=2,
        cross_attention_dim=8,
        cross_attention_dim_t5=8,
        pooled_projection_dim=8,
        text_len=4,
        text_len_t5=4,
    )

    def call(net, x, t):
        from diffusers.models.embeddings import get_2d_rotary_pos_embed

        ones = torch.ones(len(x), 4).to(x)
        rope = get_2d_rotary_pos_embed(8, ((0, 0), (4, 4)), (4, 4), output_type="pt")
        return net(
            x,
            t.to(x),
            encoder_hidden_states=fixed(x, 4, 8),
            text_embedding_mask=ones,
            encoder_hidden_states_t5=fixed(x, 4, 8).contiguous(),
            text_embedding_mask_t5=ones,
            image_meta_size=fixed(x, 6).abs(),
            style=torch.zeros(len(x)).long(),
            image_rotary_emb=rope,
        ).sample.chunk(2, 1)[0]

    return Wrapped(net, call)


@dit(prediction="flow")
def lumina_next():
    net = package().LuminaNextDiT2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        cross_attention_dim=8,
        learn_sigma=True,
    )

    def call(net, x, t):
        from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

        rope = get_2d_rotary_pos_embed_lumina(8, 16, 16)
        return net(x, t, fixed(x, 5, 8), torch.ones(len(x), 5).to(x), rope, cross_attention_kwargs={}).sample.chunk(2, 1)[0]

    return Wrapped(net, call)


@dit(prediction="flow")
def lumina2():
    net = package().Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(32, 32, 32),
        cap_feat_dim=8,
    )
    return Wrapped(net, lambda net, x, t: net(x, t, fixed(x, 5, 8), torch.ones(len(x), 5).bool()).sample)


def sana(**options):
    net = package().SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=8,
        sample_size=8,
        **options,
    )
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t).sample)


@dit(prediction="flow")
def sana_linear_attention():
    return sana()


@dit(prediction="flow")
def sana_qk_norm():
    return sana(qk_norm="rms_norm_across_heads")


def sizes(x):
    return {
        name: torch.full((len(x), 2), 8.0 if "size" in name else 0.0).to(x)
        for name in ("original_size", "target_size", "crop_coords")
    }


COGVIEW = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "text_embed_dim": 8,
    "time_embed_dim": 8,
    "condition_dim": 4,
    "sample_size": 8,
}


@dit(prediction="v")
def cogview3():
    net = package().CogView3PlusTransformer2DModel(pos_embed_max_size=8, **COGVIEW)
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t, **sizes(x)).sample)


@dit(prediction="flow")
def cogview4():
    net = package().CogView4Transformer2DModel(pos_embed_max_size=8, rope_axes_dim=(8, 8), **COGVIEW)
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t, **sizes(x)).sample)


@dit(prediction="flow")
def qwen_image():
    net = package().QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    return Wrapped(
        net,
        lambda net, x, t: image(
            net(tokens(x, 2), fixed(x, 5, 8), torch.ones(len(x), 5).long(), t, img_shapes=[[(1, 4, 4)]] * len(x)).sample, x, 2
        ),
    )


@dit(prediction="flow")
def z_image():
    net = package().ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=8,
        axes_dims=[4, 2, 2],
        axes_lens=[64, 16, 16],
    )
    return Wrapped(net, lambda net, x, t: torch.stack(net(list(x[:, :, None]), t, list(fixed(x, 5, 8))).sample)[:, :, 0])


@dit(prediction="flow")
def hidream():
    net = package().HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[8, 8],
        text_emb_dim=8,
        num_routed_experts=3,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8),
        llama_layers=[0, 1],
    )
    return Wrapped(net, lambda net, x, t: net(x, t, fixed(x, 5, 8), fixed(x, 2, 5, 8).transpose(0, 1), fixed(x, 8)).sample)


@dit(prediction="flow")
def omnigen():
    net = package().OmniGenTransformer2DModel(
        in_channels=4,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        num_layers=1,
        pad_token_id=0,
        vocab_size=16,
        max_position_embeddings=64,
        original_max_position_embeddings=64,
        rope_scaling={"long_factor": [1, 2, 3, 4], "short_factor": [1, 1, 1, 1]},
        pos_embed_max_size=8,
        time_step_dim=16,
    )

    def call(net, x, t):
        total = 4 + 1 + 16  # text, time, patches
        mask = torch.ones(len(x), total, total).to(x)
        return net(x, t, torch.ones(len(x), 4).long(), [], {}, mask, torch.arange(total).expand(len(x), -1)).sample

    return Wrapped(net, call)


@dit(prediction="flow")
def prx():
    net = package().PRXTransformer2DModel(
        in_channels=4, context_in_dim=8, hidden_size=16, mlp_ratio=2, num_heads=2, depth=2, axes_dim=[4, 4]
    )
    return Wrapped(net, lambda net, x, t: net(x, t, fixed(x, 5, 8)).sample)


@dit(prediction="flow")
def hunyuan_image():
    net = package().HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(2, 2),
        text_embed_dim=8,
        rope_axes_dim=(4, 4),
    )
    return Wrapped(net, lambda net, x, t: net(x, 1000 * t, fixed(x, 5, 8), torch.ones(len(x), 5).long()).sample)


# ---- transformers for videos, the frames folded into the channels --------------------------------------------------------


@film(prediction="v")
def cogvideox():
    net = package().CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=1,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        max_text_seq_length=5,
    )
    return Wrapped(
        net, lambda net, x, t: net(video(x, 2).transpose(1, 2), fixed(x, 5, 8), t).sample.transpose(1, 2).flatten(1, 2)
    )


@film(prediction="v")
def cogvideox_rotary():
    net = package().CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=1,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        max_text_seq_length=5,
        use_rotary_positional_embeddings=True,
    )
    angles = torch.randn(8, 16, dtype=torch.float64)
    return Wrapped(
        net,
        lambda net, x, t: (
            net(video(x, 2).transpose(1, 2), fixed(x, 5, 8), t, image_rotary_emb=(angles.cos(), angles.sin()))
            .sample.transpose(1, 2)
            .flatten(1, 2)
        ),
    )


WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 16,
    "num_layers": 1,
    "rope_max_seq_len": 32,
}


@film(prediction="flow")
def wan():
    return Wrapped(
        package().WanTransformer3DModel(**WAN),
        lambda net, x, t: net(video(x, 2), 1000 * t, fixed(x, 5, 8)).sample.flatten(1, 2),
    )


@film(prediction="flow")
def wan_image_to_video():
    net = package().WanTransformer3DModel(**{**WAN, "in_channels": 8}, image_dim=8, added_kv_proj_dim=24)
    return Wrapped(
        net,
        lambda net, x, t: net(
            torch.cat([video(x, 2), fixed(x, 4, 2, 4, 4)], 1), 1000 * t, fixed(x, 5, 8), fixed(x, 5, 8)
        ).sample.flatten(1, 2),
    )


@film(prediction="flow")
def skyreels_v2():
    return Wrapped(
        package().SkyReelsV2Transformer3DModel(**WAN),
        lambda net, x, t: net(video(x, 2), (1000 * t).long(), fixed(x, 5, 8)).sample.flatten(1, 2),
    )


@film(prediction="flow")
def ltx_video():
    net = package().LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=8,
    )

    def call(net, x, t):
        h = net(x.unflatten(1, (4, 2)).flatten(2).mT, fixed(x, 5, 8), 1000 * t[:, None], torch.ones(len(x), 5).long(), 2, 4, 4)
        return h.sample.mT.reshape(x.shape)

    return Wrapped(net, call)


@film(prediction="flow")
def mochi():
    net = package().MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=8,
        time_embed_dim=4,
        max_sequence_length=5,
    )
    return Wrapped(
        net, lambda net, x, t: net(video(x, 2), fixed(x, 5, 8), 1000 * t, torch.ones(len(x), 5).bool()).sample.flatten(1, 2)
    )


@film()
def allegro():
    net = package().AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=4,
        sample_height=4,
        sample_frames=2,
        caption_channels=8,
    )

    def call(net, x, t):
        from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

        *rope, frames, rows, columns = get_3d_rotary_pos_embed_allegro(12, ((0, 0), (2, 2)), (2, 2), 2)
        grid = torch.cartesian_prod(*(axis.long() for axis in (frames, rows, columns)))
        return net(video(x, 2), fixed(x, 5, 8), t, image_rotary_emb=(rope, list(grid.T[:, None]))).sample.flatten(1, 2)

    return Wrapped(net, call)


@film()
def latte():
    net = package().LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=4,
        patch_size=2,
        video_length=2,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        caption_channels=8,
        norm_elementwise_affine=False,
        activation_fn="gelu-approximate",
    )
    return Wrapped(net, lambda net, x, t: net(video(x, 2), t, fixed(x, 5, 8)).sample.flatten(1, 2))


@film(prediction="flow")
def hunyuan_video():
    net = package().HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=8,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 2, 4),
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2), 1000 * t, fixed(x, 5, 8), torch.ones(len(x), 5).long(), fixed(x, 8), torch.full((len(x),), 6.0).to(x)
        ).sample.flatten(1, 2),
    )


@film(prediction="flow")
def cosmos():
    net = package().CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        text_embed_dim=8,
        adaln_lora_dim=4,
        max_size=(4, 8, 8),
        extra_pos_embed_type=None,
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2), t, fixed(x, 5, 8), fps=24, padding_mask=torch.zeros(1, 1, 4, 4).to(x)
        ).sample.flatten(1, 2),
    )


@film(prediction="flow")
def sana_video():
    net = package().SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=8,
        sample_size=4,
        rope_max_seq_len=32,
    )
    return Wrapped(net, lambda net, x, t: net(video(x, 2), fixed(x, 5, 8), 1000 * t).sample.flatten(1, 2))


@film(prediction="flow")
def easyanimate():
    net = package().EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        mmdit_layers=1,
        text_embed_dim=8,
        time_embed_dim=8,
        patch_size=2,
        sample_width=4,
        sample_height=4,
    )
    return Wrapped(net, lambda net, x, t: net(video(x, 2), 1000 * t, encoder_hidden_states=fixed(x, 5, 8)).sample.flatten(1, 2))


# ---- autoencoders as maps of images to images ---------------------------------------------------------------------------


def through(net, encode=None):
    return Wrapped(net, lambda net, x, t: net.decode(encode(net, x) if encode else net.encode(x).latent_dist.mean).sample)


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
    return Wrapped(vq(), lambda net, x, t: net.decode(net.encode(x).latents, force_not_quantize=True).sample)


@vae(shape=(4, 4, 4), prediction="epsilon", outcome="told")
def movq_decoder():
    """Kandinsky's decoder with spatial normalisation: codes in, and what they were quantised to modulates each layer."""
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
    return Wrapped(net, lambda net, x, t: net.decode(net.encode(x).latent_dist.mean, num_frames=1).sample)


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
    return Wrapped(net, lambda net, x, t: net(torch.cat([x, fixed(x, 4, 8, 8)], 1), t).sample[:, :3])


@vae(shape=(3, 8, 8), isolated=True)
def layerwise_casting():
    """Weights kept in float16 and cast layer by layer in hooks."""
    network = unet2d(3)
    network.net.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float64)
    return network

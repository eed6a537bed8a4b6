"""Cases of diffusers' pipelines of latents: x_0 by the pipeline's own call of one step, which ends
at the clean latent; see `adapter_cases`.
"""

import torch

from jacobian_lab import load

from adapter_cases import case

NEEDS = ("diffusers", "transformers")
TEXTS = {"prompt": "a cat", "negative_prompt": "dog"}


def ddim_at_500():
    """DDIM whose one step goes from 500 to the clean latent, in float64."""
    import diffusers

    scheduler = diffusers.DDIMScheduler(
        clip_sample=False, set_alpha_to_one=True, steps_offset=500, beta_schedule="scaled_linear"
    )
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return scheduler


def euler():
    """Euler steps that are not rounded to float32."""
    import diffusers

    class Euler(diffusers.FlowMatchEulerDiscreteScheduler):
        def step(self, raw, t, sample, return_dict=False, **_):
            return (sample - t.to(sample) / 1000 * raw,)

    return Euler(shift=1.0)


def by_the_pipeline(pipeline, dtype, options=(), flow=False, **call):
    """What load makes of a pipeline, and the pipeline's own call of one step."""
    pipeline.to(dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    made = load(pipeline, **TEXTS, guidance=3.0, **dict(options))

    def formula(x, t):
        return pipeline(
            **TEXTS,
            guidance_scale=3.0,
            latents=x,
            num_images_per_prompt=len(x),
            num_inference_steps=1,
            output_type="latent",
            return_dict=False,
            **({"sigmas": [t]} if flow else {}),
            **call,
        )[0]

    return made, formula


@case("text_to_image", "Stable Diffusion 1", slow=True, needs=NEEDS)
def sd1(dtype):
    import pipelines

    pipeline = pipelines.stable_diffusion()
    pipeline.scheduler = ddim_at_500()
    return by_the_pipeline(pipeline, dtype)


@case("text_to_image", "Stable Diffusion 2, v", slow=True, needs=NEEDS)
def sd2(dtype):
    import pipelines

    pipeline = pipelines.stable_diffusion("v_prediction")
    pipeline.scheduler = ddim_at_500()
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    return by_the_pipeline(pipeline, dtype)


@case("text_to_image", "Stable Diffusion 3", t=0.25, slow=True, needs=NEEDS)
def sd3(dtype):
    import pipelines

    pipeline = pipelines.stable_diffusion_3()
    pipeline.scheduler = euler()
    return by_the_pipeline(pipeline, dtype, flow=True)


@case("text_to_image", "InstaFlow", t=0.25, slow=True, needs=NEEDS)
def instaflow(dtype):
    """pipeline_rf.py: x + dt v, the index falls from 1000."""
    import pipelines

    pipeline = pipelines.stable_diffusion().to(dtype=dtype)
    made = load(pipeline, **TEXTS, guidance=3.0, prediction="instaflow")

    def formula(x, t):
        text, negative = (
            pipeline.unet(
                x, torch.full((2,), 1000 * t), encoder_hidden_states=e.expand(2, -1, -1)
            ).sample
            for e in pipeline.encode_prompt("a cat", "cpu", 1, True, "dog")
        )
        return x + t * (negative + 3 * (text - negative))

    return made, formula


def sdxl_pipeline():
    import diffusers

    import pipelines

    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=48,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=pipelines.autoencoder(),
        unet=unet,
        scheduler=ddim_at_500(),
        tokenizer=pipelines.clip_tokenizer(),
        tokenizer_2=pipelines.clip_tokenizer(),
        text_encoder=pipelines.text_encoder("quick_gelu"),
        text_encoder_2=pipelines.text_encoder("gelu", projection=16, width=16),
        add_watermarker=False,
    )


@case("prompt_embeddings", "SDXL", slow=True, needs=NEEDS)
def sdxl(dtype):
    return by_the_pipeline(sdxl_pipeline(), dtype)


def t5():
    import transformers

    return transformers.T5EncoderModel(
        transformers.T5Config(d_model=48, d_ff=64, d_kv=8, num_layers=2, num_heads=4, vocab_size=64)
    )


def gemma():
    import transformers

    return transformers.Gemma2Model(
        transformers.Gemma2Config(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )


def pixart_pipeline(kind, sample_size):
    import diffusers

    import pipelines

    # one layer's table is zero until trained
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=sample_size,
        num_attention_heads=3,
        attention_head_dim=8,
        cross_attention_dim=24,
        caption_channels=48,
        num_layers=2,
        norm_num_groups=8,
    )
    return getattr(diffusers, kind)(
        vae=pipelines.autoencoder(),
        transformer=transformer,
        scheduler=ddim_at_500(),
        tokenizer=pipelines.t5_tokenizer(),
        text_encoder=t5(),
    )


BINS = {"use_resolution_binning": False, "clean_caption": False}


@case("prompt_embeddings", "PixArt alpha of 1024 x 1024, told its size", needs=NEEDS)
def pixart_alpha(dtype):
    pipeline = pixart_pipeline("PixArtAlphaPipeline", 128)
    return by_the_pipeline(pipeline, dtype, {"size": (64, 64)}, height=64, width=64, **BINS)


@case("prompt_embeddings", "PixArt sigma", needs=NEEDS)
def pixart_sigma(dtype):
    pipeline = pixart_pipeline("PixArtSigmaPipeline", 8)
    return by_the_pipeline(pipeline, dtype, height=64, width=64, **BINS)


@case("prompt_embeddings", "AuraFlow", t=0.25, rounds=True, needs=NEEDS)
def aura_flow(dtype):
    import diffusers

    import pipelines

    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )
    pipeline = diffusers.AuraFlowPipeline(
        tokenizer=pipelines.t5_tokenizer(),
        text_encoder=t5(),
        vae=pipelines.autoencoder(),
        transformer=transformer,
        scheduler=euler(),
    )
    return by_the_pipeline(pipeline, dtype, flow=True, height=64, width=64)


@case("prompt_embeddings", "Lumina 2", t=0.25, rounds=True, needs=NEEDS)
def lumina(dtype):
    import diffusers

    import pipelines

    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(2, 2, 4),
        axes_lens=(300, 32, 32),
        cap_feat_dim=16,
    )
    pipeline = diffusers.Lumina2Pipeline(
        transformer=transformer,
        scheduler=euler(),
        vae=pipelines.autoencoder(shift_factor=0.1),
        text_encoder=gemma(),
        tokenizer=pipelines.t5_tokenizer(),
    )
    whole = {"cfg_normalization": False, "cfg_trunc_ratio": 1.0}
    return by_the_pipeline(pipeline, dtype, flow=True, height=64, width=64, **whole)


@case("prompt_embeddings", "Sana", t=0.25, rounds=True, needs=NEEDS)
def sana(dtype):
    """Its pipeline rounds what the network returns to float32: a hook sees it before."""
    import diffusers

    import pipelines

    transformer = diffusers.SanaTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        timestep_scale=0.001,
    )
    autoencoder = diffusers.AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.4,
    )
    pipeline = diffusers.SanaPipeline(
        tokenizer=pipelines.t5_tokenizer(),
        text_encoder=gemma(),
        vae=autoencoder,
        transformer=transformer,
        scheduler=euler(),
    )
    made, call = by_the_pipeline(pipeline, dtype, flow=True, height=64, width=64, **BINS)

    def formula(x, t):
        seen = []
        hook = transformer.register_forward_hook(lambda *of: seen.append(of[-1][0]))
        call(x, t)
        hook.remove()
        negative, text = seen[0].chunk(2)
        return x - t * (negative + 3 * (text - negative))

    return made, formula


def flux_pipeline(guided):
    import diffusers

    import pipelines

    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=48,
        pooled_projection_dim=32,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    return diffusers.FluxPipeline(
        scheduler=euler(),
        vae=pipelines.autoencoder(use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=pipelines.text_encoder("quick_gelu"),
        tokenizer=pipelines.clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=pipelines.t5_tokenizer(),
        transformer=transformer,
    )


def flux(dtype, guided):
    """Its pipeline takes and returns packed latents; its `true_cfg_scale` is our guidance."""
    pipeline = flux_pipeline(guided).to(dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    told = {"embedded_guidance": 2.5} if guided else {}
    made = load(pipeline, **TEXTS, guidance=3.0, size=(64, 32), **told)

    def formula(x, t):
        packed = pipeline(
            **TEXTS,
            true_cfg_scale=3.0,
            guidance_scale=2.5,
            latents=pipeline._pack_latents(x, 2, 4, 8, 4),
            num_images_per_prompt=2,
            num_inference_steps=1,
            sigmas=[t],
            height=64,
            width=32,
            output_type="latent",
            return_dict=False,
        )[0]
        return pipeline._unpack_latents(packed, 64, 32, 8)

    return made, formula


@case("prompt_embeddings", "FLUX, guidance embedding", t=0.25, slow=True, rounds=True, needs=NEEDS)
def flux_dev(dtype):
    return flux(dtype, True)


@case("prompt_embeddings", "FLUX", t=0.25, slow=True, rounds=True, needs=NEEDS)
def flux_schnell(dtype):
    return flux(dtype, False)


@case("dit", "DiT, class and guidance", needs=NEEDS)
def dit(dtype):
    """DiTPipeline draws its latents: its loop, for the latents given."""
    import diffusers

    import pipelines

    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_attention_heads=2,
        attention_head_dim=8,
        out_channels=8,
        num_layers=2,
        norm_num_groups=8,
    )
    scheduler = ddim_at_500()
    scheduler.set_timesteps(1)
    pipeline = diffusers.DiTPipeline(
        transformer=transformer, vae=pipelines.autoencoder(), scheduler=scheduler
    ).to(dtype=dtype)

    def formula(x, t):
        labels = torch.tensor([207, 207, 1000, 1000])
        raw = transformer(x.repeat(2, 1, 1, 1), torch.full((4,), t), labels).sample[:, :4]
        label, null = raw.chunk(2)
        return scheduler.step(null + 4 * (label - null), t, x).prev_sample

    return load(pipeline, label=207, guidance=4.0), formula

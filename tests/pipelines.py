"""Pipelines of the real configurations at reduced width, with random weights: for what the code
does, not for what it finds.

Block types, numbers of blocks and layers, attention layout, heads, time embedding, scheduler and
autoencoder are those of the published configurations; what was reduced is said at each.
"""

import json

import torch

import networks

TOKENS = 16  # real: 77
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def miniature(folder, channels=(8, 8, 16), unet_channels=(16, 32), seed=0):
    """Save mnist's miniature, narrower and with random weights; return the folder."""
    from mnist.latent import AUTOENCODER, UNET, Captioned, build_autoencoder, build_pipeline

    torch.manual_seed(seed)
    autoencoder = build_autoencoder(AUTOENCODER | {"block_out_channels": channels})
    build_pipeline(
        autoencoder, Captioned(UNET | {"block_out_channels": unet_channels})
    ).save_pretrained(folder)
    return folder


def stable_diffusion(prediction="epsilon", seed=0):
    """SD 1.5 ("epsilon") or SD 2.1-v ("v_prediction"); 8 x 8 latents of 64 x 64 images."""
    import diffusers

    torch.manual_seed(seed)
    second = prediction == "v_prediction"
    # Real: channels 320, 640, 1280, 1280; norm_num_groups 32; cross_attention_dim 768 (2.1: 1024);
    # sample_size 64 (2.1: 96); 8 heads (2.1: heads of 64 channels, so 5, 10, 20, 20).
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        norm_num_groups=8,
        down_block_types=(
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "DownBlock2D",
        ),
        up_block_types=(
            "UpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
        ),
        attention_head_dim=(2, 4, 8, 8) if second else 8,
        use_linear_projection=second,
        cross_attention_dim=32,
        flip_sin_to_cos=True,
        freq_shift=0,
        act_fn="silu",
        norm_eps=1e-5,
    )
    shared = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    scheduler = (
        diffusers.DDIMScheduler(**shared, prediction_type=prediction, clip_sample=False)
        if second
        else diffusers.PNDMScheduler(**shared, skip_prk_steps=True)
    )
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(),
        unet=unet,
        scheduler=scheduler,
        tokenizer=clip_tokenizer(),
        text_encoder=text_encoder("gelu" if second else "quick_gelu"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_3(seed=0):
    """SD 3 medium, with all its three text encoders; 8 x 8 latents of 64 x 64 images."""
    import diffusers
    import transformers

    torch.manual_seed(seed)
    # Real: 24 layers, 24 heads of 64, caption_projection_dim 1536, joint_attention_dim 4096,
    # pooled_projection_dim 2048, sample_size 128, pos_embed_max_size 192.
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=16,
        caption_projection_dim=32,
        joint_attention_dim=48,
        pooled_projection_dim=48,
        pos_embed_max_size=12,
    )
    # Real: d_model 4096, d_ff 10240, d_kv 64, 24 layers, 64 heads.
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(
            d_model=48,
            d_ff=64,
            d_kv=8,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            vocab_size=64,
        )
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        # Real: no quant_conv here, 16 channels, and a shift.
        vae=autoencoder(
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=text_encoder("quick_gelu", projection=16),
        tokenizer=clip_tokenizer(),
        text_encoder_2=text_encoder("gelu", projection=32, width=16),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer(),
    )


def instaflow(folder, seed=0):
    """Save InstaFlow-0.9B's configuration (SD 1.5's, scheduler included) under InstaFlow's class
    name; return the folder.
    """
    stable_diffusion(seed=seed).save_pretrained(folder)
    edit(folder / "model_index.json", _class_name="RectifiedFlowPipeline")
    return folder


def dense_at_digit(folder, digit, t, **words):
    """J in float64 by torch.func.jacrev, at the digit's latent with the studies' noise, (n, n)."""
    import mnist
    from jacobian_lab import load_latent
    from mnist.evaluate import noisy_digit

    latent = load_latent(folder, dtype=torch.float64, **words)
    with torch.no_grad():
        clean = latent.encode(mnist.digits("held-out")[0][digit : digit + 1].double())[0]
    return networks.truth(
        latent.denoiser, noisy_digit(latent.denoiser, clean, t, 0, digit), t
    ).numpy()


def clip_vision(folder):
    """Save a small CLIP vision model, of 32 x 32 images; return the folder."""
    import transformers

    torch.manual_seed(0)
    # Real: ViT-B/16 768 wide, 12 layers, 12 heads, images of 224 x 224, patches of 16 x 16.
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    transformers.CLIPVisionModel(config).save_pretrained(folder)
    return folder


def edit(path, **changes):
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def autoencoder(**options):
    """SD's autoencoder, 8 pixels per latent pixel."""
    from diffusers import AutoencoderKL

    # Real: channels 128, 256, 512, 512; norm_num_groups 32; sample_size 512.
    settings = {"latent_channels": 4, "scaling_factor": 0.18215, **options}
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        norm_num_groups=8,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        act_fn="silu",
        **settings,
    )


def text_encoder(activation, projection=None, width=32):
    """CLIP's text encoder; with a projection, as SD 3 wants it."""
    import transformers

    # Real: SD 1.5 768 wide, 12 layers, 12 heads; SD 2.1 1024, 23, 16; SD 3 those of CLIP L and big
    # G.
    config = transformers.CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act=activation,
        projection_dim=projection or width,
        bos_token_id=2 * len(LETTERS),
        eos_token_id=2 * len(LETTERS) + 1,
        pad_token_id=2 * len(LETTERS) + 1,
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(
        config
    )


def clip_tokenizer():
    """CLIP's tokenizer with letters for tokens; the real one has 49408."""
    from transformers import CLIPTokenizer

    tokens = [
        *LETTERS,
        *(letter + "</w>" for letter in LETTERS),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=TOKENS
    )


def t5_tokenizer():
    """T5's tokenizer with letters for tokens; the real one has 32128."""
    from transformers import T5Tokenizer

    tokens = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]
    return T5Tokenizer(
        vocab=[(token, 0.0 if i < 3 else -2.0) for i, token in enumerate(tokens)],
        extra_ids=0,
        model_max_length=TOKENS,
    )


def saved(root):
    """Save one pipeline of each kind as diffusers does; return kind -> folder."""
    made = {
        "sd1": stable_diffusion(),
        "sd2": stable_diffusion("v_prediction"),
        "sd3": stable_diffusion_3(),
    }
    for name, pipeline in made.items():
        pipeline.save_pretrained(root / name)
    return {name: root / name for name in made} | {"instaflow": instaflow(root / "rf")}


def noise(latent, count=1, seed=0):
    """Noise that is the same in every precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        count, *latent.denoiser.shape, generator=generator, dtype=torch.float64
    ).float()

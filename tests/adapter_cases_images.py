"""Cases of Stable Diffusion with images as conditions: x_0 by the pipeline's own call of one step;
see `adapter_cases`.
"""

import torch
from torch import nn

from adapter_cases import case
from adapter_cases_text import NEEDS, by_the_pipeline, ddim_at_500


def image():
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1


def mask():
    """The left half is known, and a strip of the right."""
    known = torch.zeros(1, 64, 64, dtype=torch.bool)
    known[..., :32] = True
    known[:, 40:48] = True
    return known


def pipeline_of(kind, unet=None, **more):
    """A pipeline with Stable Diffusion 1's parts but another U-Net."""
    import diffusers

    import pipelines

    kept = {
        name: part
        for name, part in pipelines.stable_diffusion().components.items()
        if name not in ("image_encoder", "unet")
    }
    pipeline = getattr(diffusers, kind)(
        **kept, unet=unet or small_unet(), requires_safety_checker=False, **more
    )
    pipeline.scheduler = ddim_at_500()
    return pipeline


def small_unet(channels=4):
    import diffusers

    return diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=32,
    )


@case("image_conditions", "Stable Diffusion inpainting, 9 channels", needs=NEEDS)
def inpainting(dtype):
    """The pipeline would draw the masked image's latent: the mode is given."""
    pipeline = pipeline_of("StableDiffusionInpaintPipeline", small_unet(9))
    pipeline.to(dtype=dtype)
    shown, known = image().to(dtype), mask()
    with torch.no_grad():
        latent = pipeline.vae.encode((shown * known)[None]).latent_dist.mode() * 0.18215
    return by_the_pipeline(
        pipeline,
        dtype,
        {"image": shown, "mask": known},
        image=(shown[None] + 1) / 2,
        mask_image=(~known)[None].to(dtype),
        masked_image_latents=latent,
        strength=1.0,
        height=64,
        width=64,
    )


@case("image_conditions", "ControlNet", needs=NEEDS)
def controlnet(dtype):
    import diffusers

    unet = small_unet()
    control = diffusers.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 8, 8, 16)
    )
    for parameter in control.parameters():
        if not parameter.any():  # its zero convolutions, before training
            nn.init.normal_(parameter, std=0.1)
    pipeline = pipeline_of("StableDiffusionControlNetPipeline", unet, controlnet=control)
    shown = (image().to(dtype) + 1) / 2
    return by_the_pipeline(
        pipeline,
        dtype,
        {"control_image": shown, "control_scale": 0.7},
        image=shown[None],
        controlnet_conditioning_scale=0.7,
    )


def with_adapter(pipeline):
    """Give a pipeline a random IP-Adapter of four tokens."""
    import transformers

    unet, g = pipeline.unet, torch.Generator().manual_seed(3)
    keys = {}
    blocks = [block for name, block in unet.named_modules() if name.endswith("attn2")]
    for i, block in enumerate(blocks):
        for part in ("k", "v"):
            shape = (block.to_q.out_features, 32)
            keys[f"{2 * i + 1}.to_{part}_ip.weight"] = torch.randn(shape, generator=g) / 4
    projection = {
        "proj.weight": torch.randn(4 * 32, 16, generator=g) / 4,
        "proj.bias": torch.zeros(4 * 32),
        "norm.weight": torch.ones(32),
        "norm.bias": torch.zeros(32),
    }
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": keys}])
    config = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=16,
    )
    pipeline.register_modules(
        image_encoder=transformers.CLIPVisionModelWithProjection(config).eval(),
        feature_extractor=transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
    )
    return pipeline


def photo():
    from PIL import Image

    pixels = ((image() + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


@case("image_conditions", "IP-Adapter", needs=NEEDS)
def ip_adapter(dtype):
    pipeline = with_adapter(pipeline_of("StableDiffusionPipeline"))
    return by_the_pipeline(pipeline, dtype, {"adapter_image": photo()}, ip_adapter_image=photo())


@case("image_conditions", "LoRA", needs=(*NEEDS, "peft"))
def lora(dtype):
    from peft import LoraConfig

    pipeline = pipeline_of("StableDiffusionPipeline")
    pipeline.unet.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    return by_the_pipeline(pipeline, dtype)

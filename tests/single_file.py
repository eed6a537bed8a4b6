"""Stable Diffusion's original layout: one file, with its authors' names of the weights."""

import re

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def of_unet(name):
    """The original name of a U-Net's weight."""
    for new, old in ENDS.items():
        if name.startswith(new + "."):
            return name.replace(new, old, 1)
    side, i, kind, j, rest = re.match(
        r"(down|mid|up)_blocks?\.?(\d*)\.?(\w+)\.(\d+)\.(.*)", name
    ).groups()
    i, j = int(i or 0), int(j)
    if kind == "resnets":
        part, _, end = rest.partition(".")
        rest = f"{RESNET[part]}.{end}"
    if side == "mid":
        return f"middle_block.{2 * j if kind == 'resnets' else 1}.{rest}"
    place = 0 if kind == "resnets" else 1
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{3 * (i + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{3 * i + j + 1}.{place}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * i + 2}.{1 if i == 0 else 2}.{rest}"
    return f"output_blocks.{3 * i + j}.{place}.{rest}"


def of_vae(name):
    """The original name of an autoencoder's weight."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(
        r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name
    )
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for new, old in ATTENTION.items():
            name = name.replace(f".{new}.", f".{old}.")
    return name


def original(pipeline):
    """The weights of a Stable Diffusion 1 pipeline, by their original names."""
    weights = {}
    for name, value in pipeline.unet.state_dict().items():
        weights[f"model.diffusion_model.{of_unet(name)}"] = value
    for name, value in pipeline.vae.state_dict().items():
        old = of_vae(name)
        square = "attn_1" in old and value.ndim == 2  # it has convolutions there
        weights[f"first_stage_model.{old}"] = value[..., None, None] if square else value
    for name, value in pipeline.text_encoder.state_dict().items():
        plain = name.removeprefix("text_model.")  # transformers 5 has no such prefix
        weights[f"cond_stage_model.transformer.text_model.{plain}"] = value
    return {name: value.contiguous() for name, value in weights.items()}

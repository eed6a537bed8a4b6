"""A Stable Diffusion in miniature: digits drawn from captions, in diffusers' folder format, small
enough for dense Jacobians.

    autoencoder    (1, 32, 32) pixels <-> (4, 8, 8) latents, scaled to unit variance
    text encoder   "a photo of a seven" -> 8 tokens of 64 features (CLIP's architecture)
    U-Net          predicts v from a noisy latent, the time and the caption, "" if unknown
    scheduler      DDIM on Stable Diffusion's scaled-linear table

`diffusers.StableDiffusionPipeline.from_pretrained(mnist.latent.PIPELINE)` loads it as it does the
big ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab._checksums import write_sums
from jacobian_lab._require import diffusers, transformers
from mnist.weights import SHIPPED

if TYPE_CHECKING:
    from jacobian_lab.diffusion.latent import Latent

PIPELINE = SHIPPED / "latent"
"""Folder of the model that ships."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Of the digits, in captions."""
TEMPLATES = ("a photo of a {}", "a photo of the digit {}", "a handwritten {}", "{}")
"""Captions that the model was trained with."""
TOKENS = 8
"""Length of a caption: the longest template has six words, and two tokens mark its ends."""
WIDTH = 64
"""Features of a token."""
LATENT = (4, 8, 8)
"""Shape of a latent: Stable Diffusion's four channels, a quarter of the image's side."""

AUTOENCODER = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": LATENT[0],
    "sample_size": 32,
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
"""Arguments of diffusers' AutoencoderKL."""
UNET = {
    "sample_size": LATENT[1],
    "in_channels": LATENT[0],
    "out_channels": LATENT[0],
    "block_out_channels": (64, 96),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}
"""Arguments of diffusers' UNet2DConditionModel."""
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 8.5e-4,
    "beta_end": 1.2e-2,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}
"""Arguments of diffusers' DDIMScheduler: Stable Diffusion's table."""


def caption(digit: int, template: str = TEMPLATES[0]) -> str:
    """Return "a photo of a seven" for 7; the model was trained with all of `TEMPLATES`."""
    return template.format(NAMES[_require.integer("digit", digit, 0, 9)])


def load_latent(
    prompt: str = "",
    negative_prompt: str = "",
    guidance: float = 1.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Latent:
    """Return the miniature that ships, its `.denoiser`, `.encode` and `.decode`.

    Parameters
    ----------
    prompt, negative_prompt : str
        Captions, such as "a photo of a seven"; "" for none.
    guidance : float
        Scale of classifier-free guidance; 1 is off.
    device : torch.device or str
    dtype : torch.dtype

    See Also
    --------
    jacobian_lab.load_latent : the same for any such folder.
    """
    from jacobian_lab import load_latent as load

    return load(
        PIPELINE,
        prompt=prompt,
        negative_prompt=negative_prompt,
        guidance=guidance,
        device=device,
        dtype=dtype,
    )


def build_autoencoder(architecture: Mapping[str, Any] = AUTOENCODER) -> nn.Module:
    """Return an untrained AutoencoderKL."""
    return diffusers().AutoencoderKL(**architecture)


class Captioned(nn.Module):
    """The two networks that learn together: a caption's tokens, (B, 8), condition the U-Net on
    latents, (B, 4, 8, 8).
    """

    def __init__(self, unet: Mapping[str, Any] = UNET) -> None:
        super().__init__()
        ends = build_tokenizer()
        self.text_encoder = transformers().CLIPTextModel(
            transformers().CLIPTextConfig(
                vocab_size=len(ends),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                projection_dim=WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=TOKENS,
                bos_token_id=ends.bos_token_id,
                eos_token_id=ends.eos_token_id,
                pad_token_id=ends.pad_token_id,
            )
        )
        self.unet = diffusers().UNet2DConditionModel(**unet)

    def forward(self, x_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Return the U-Net's raw output.

        Parameters
        ----------
        x_t : Tensor, shape (B, 4, 8, 8)
        t : Tensor, shape (B,)
        tokens : Tensor, shape (B, 8)
        """
        return self.unet(x_t, t, self.text_encoder(tokens)[0]).sample


def build_tokenizer() -> Any:
    """Return CLIP's tokenizer with a vocabulary of our own: each word of a caption is a token,
    other words are spelled.
    """
    words = [*NAMES, *" ".join(TEMPLATES).replace("{}", "").split()]
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789"))
    vocabulary = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(letter + "</w>" for letter in letters),
    ]
    merges: list[tuple[str, str]] = []
    for word in dict.fromkeys(words):
        parts = [*word[:-1], word[-1] + "</w>"]
        whole = parts[0]
        for part in parts[1:]:
            if (whole, part) not in merges:
                merges.append((whole, part))
            whole += part
            if whole not in vocabulary:
                vocabulary.append(whole)
    return transformers().CLIPTokenizer(
        vocab={token: k for k, token in enumerate(vocabulary)},
        merges=merges,
        model_max_length=TOKENS,
    )


def tokens(captions: Sequence[str]) -> Tensor:
    """Return the token numbers of some captions, int64, (N, 8): the shipped tokenizer's."""
    return build_tokenizer()(
        list(captions),
        padding="max_length",
        max_length=TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def build_pipeline(
    autoencoder: nn.Module, captioned: Captioned, prediction: str = "v_prediction"
) -> Any:
    """Return diffusers' StableDiffusionPipeline of the trained parts.

    Parameters
    ----------
    autoencoder : nn.Module
        AutoencoderKL.
    captioned : Captioned
    prediction : {"v_prediction", "epsilon", "sample"}
        What the U-Net predicts, by diffusers' name.
    """
    scheduler = diffusers().DDIMScheduler(**SCHEDULER, prediction_type=prediction)
    return diffusers().StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=captioned.text_encoder,
        tokenizer=build_tokenizer(),
        unet=captioned.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_pipeline(folder: Path, pipeline: Any) -> None:
    """Write the pipeline in diffusers' folder format, safetensors, with SHA256SUMS; files of the
    same names are replaced.

    U-Net and autoencoder are written in half precision. The text encoder, the smallest, stays in
    float32: transformers loads weights in the precision that it finds, diffusers in float32, and
    the two must agree.
    """
    pipeline.unet.half()
    pipeline.vae.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
    write_sums(folder)

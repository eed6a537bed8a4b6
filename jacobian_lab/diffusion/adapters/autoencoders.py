"""The sizes of a latent-diffusion pipeline, and whether its autoencoder and network fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.family import classes
from jacobian_lab.diffusion.adapters.pipelines import Opened
from jacobian_lab.errors import InputError

Shape3 = tuple[int, int, int]
BESIDE = {"StableDiffusionInpaintPipeline": 5}
"""Channels that a network may take beside the latent: a mask and a masked image."""


@dataclass(frozen=True)
class Sizes:
    """Shapes of a latent and of an image, and what the network does with them."""

    latent: Shape3
    image: Shape3
    factor: int
    """Pixels per latent pixel, in each direction."""
    learned_variance: bool
    beside: int
    """Channels that the network takes beside the latent."""
    packed: bool
    """Whether the network takes a sequence of 2 x 2 patches."""


def sizes_of(opened: Opened, size: tuple[int, int] | None) -> Sizes:
    """Return the sizes of a pipeline, for images of a size in pixels, by default the trained one.

    Raises
    ------
    InputError
        If the autoencoder is of another kind, the network does not denoise its latents or asks for
        a condition that is not known, or the size is no multiple of what the network takes.
    """
    vae, config = opened.pipeline.vae, opened.network.config
    known = classes(vae)
    if not known & {"AutoencoderKL", "AutoencoderDC"}:
        raise InputError(
            f"the vae is a {type(vae).__name__}: expected an AutoencoderKL or an AutoencoderDC"
        )
    _check_plain(config)
    channels, packed = int(vae.config.latent_channels), opened.kind == "FluxPipeline"
    given = int(config.in_channels) // (4 if packed else 1)
    returned = int(config.out_channels or config.in_channels) // (4 if packed else 1)
    beside = given - channels if given - channels == BESIDE.get(opened.kind) else 0
    for name, found, allowed in (
        ("in_channels", given, (channels + beside,)),
        ("out_channels", returned, (channels, 2 * channels)),
    ):
        if found not in allowed:
            raise InputError(
                f"the network's {name} is {found}, but the vae's latents have {channels} channels:"
                " they are not of one pipeline, or the network takes more than the latent (depth,"
                " an edit)"
            )
    blocks = vae.config.get("block_out_channels") or vae.config.encoder_block_out_channels
    factor = 2 ** (len(blocks) - 1)
    h, w = _pixels(opened, size, factor, 2 if packed else 1)
    return Sizes(
        (channels, h // factor, w // factor),
        (int(vae.config.in_channels), h, w),
        factor,
        returned == 2 * channels,
        beside,
        packed,
    )


def _pixels(
    opened: Opened, size: tuple[int, int] | None, factor: int, patch: int
) -> tuple[int, int]:
    """Return height and width of the images."""
    if size is None:
        side = opened.network.config.get("sample_size") or opened.pipeline.default_sample_size
        h, w = (side, side) if isinstance(side, int) else side
        return int(h) * factor, int(w) * factor
    h, w = _require.sizes("size", size) if len(size) == 2 else (0, 0)
    if not h or h % (factor * patch) or w % (factor * patch):
        raise InputError(
            f"size must be height and width, each a multiple of {factor * patch}: got {size!r}"
        )
    return h, w


def _check_plain(config: Any) -> None:
    """Raise if a network asks for a condition that no adapter holds fixed."""
    known = {"addition_embed_type": "text_time"}
    names = ("class_embed_type", "num_class_embeds", "addition_embed_type", "time_cond_proj_dim")
    for name in names:
        if config.get(name) not in (None, known.get(name)):
            raise InputError(
                f"the network has {name} = {config[name]!r}, a condition beside the prompt:"
                " expected a plain text-to-image model"
            )

"""The image files of users as models take them.

    turned      upright, by the orientation that EXIF notes
    scaled      8 bits from 0 to 255; whole numbers of more bits from 0 to the largest number of 8,
                10, 12, 14 or 16 bits, the first that holds them; others from 0 to 1 or -1 to 1 if
                they lie there, else from their least to their largest
    flattened   transparency over black for gray models, whose digits are white on black, and over
                white for models of colours
    cut         the largest middle part of the model's shape, scaled; digits must have their size,
                32x32 or 28x28 pixels
    refused     several frames, too many pixels, what cannot be decoded, what may mean two things

What a file needed is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import pad

from jacobian_lab import InputError
from studies.frame.image_files import (
    DIGITS,
    converted,
    is_deep,
    opacity,
    open_upright,
    straight_rgba,
    to_unit,
)

Shape: TypeAlias = tuple[int, ...]


class Picture(NamedTuple):
    """An image for a model."""

    pixels: Tensor
    """(1, c, H, W) in [-1, 1]."""
    said: str
    """What the file needed; empty for an opaque image of 8 bits."""


def read_image(
    path: Path,
    shape: Shape,
    option: str = "--images",
    sides: Sequence[int] = (),
    digits: bool = False,
) -> Picture:
    """Return an image file as a model takes it: its largest middle part of the shape, (c, H, W),
    scaled.

    Parameters
    ----------
    path : Path
    shape : (int, int, int)
        1 channel takes the luminance, 3 take the colours.
    option : str
        Names the file in errors.
    sides : sequence of int
        Sides that a square file may have; by default those of digits for a model of digits, and any
        for others.
    digits : bool
        Whether the model is of digits.

    Raises
    ------
    InputError
        If the file cannot be read, or not in one way only.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(
            f"{option} {path}: the model's images have {channels} channels, expected 1 (gray) or 3"
            " (RGB)"
        )
    sides = sides or (DIGITS if digits else ())
    image = open_upright(path, option, sides, 4 * max(height, width))
    flat, said = _flat(image, f"{option} {path}", "L" if channels == 1 else "RGB")
    if not sides:
        flat = [ImageOps.fit(band, (width, height), Image.Resampling.LANCZOS) for band in flat]
    values = torch.from_numpy(np.stack([np.array(band) for band in flat]))
    pixels = (
        values.float() / 127.5 - 1 if values.dtype == torch.uint8 else 2 * values.clamp(0, 1) - 1
    )
    margin = (height - pixels.shape[-1]) // 2 if sides else 0  # of a digit as in MNIST
    return Picture(
        pad(pixels, (margin,) * 4, value=-1.0)[None], f"{path.name}: {said}" if said else ""
    )


def _flat(image: Image.Image, what: str, mode: str) -> tuple[list[Image.Image], str]:
    """Return the opaque bands of an image, 8 bits or "F" in [0, 1], one of mode "L" or three of
    "RGB"; and what it needed.
    """
    white = mode == "RGB"
    alpha, notes = opacity(image), []
    if alpha is not None:
        notes.append(f"transparency over {'white' if white else 'black'}")
    if is_deep(image):
        values, note = to_unit(image, what)
        notes.insert(0, note)
        values = values if alpha is None else np.where(alpha > 0, values, float(white))
        flat = [Image.fromarray(values.astype(np.float32))] * (3 if white else 1)
    else:
        if alpha is None and image.mode != "1" and _largest(image, what) == 1:
            raise InputError(
                f"{what} holds 0 and 1 of 0 to 255, which is black: multiply it by 255"
            )
        if alpha is not None:
            back = Image.new("RGBA", image.size, (255 * white,) * 3 + (255,))
            image = Image.alpha_composite(back, straight_rgba(image))
        flat = list(converted(image, mode, what).split())
    if (
        alpha is not None
        and alpha.max() > 0
        and all(low == high for low, high in (band.getextrema() for band in flat))
    ):
        raise InputError(
            f"{what} is {'white' if white else 'black'} everywhere, {notes[-1]}: put it on another"
            " background"
        )
    return flat, ", ".join(notes)


def _largest(image: Image.Image, what: str) -> int:
    extrema: Any = converted(image, "RGB", what).getextrema()
    return max(high for _, high in extrema)

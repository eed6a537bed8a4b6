"""The mask files of users: known where they are white or, if some of it is transparent, opaque."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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
    size_of,
    straight_rgba,
    to_unit,
)
from studies.frame.pictures import Shape
from studies.frame.user_images import OPTION, is_array


class Mask(NamedTuple):
    """Which pixels of an image are known."""

    known: Tensor
    """(1, H, W), bool."""
    said: str
    """How the file was understood, unless by white and black."""


def read_mask(
    path: Path,
    shape: Shape,
    invert: bool = False,
    images: Sequence[Path] = (),
    option: str = "--mask",
    digits: bool = False,
) -> Mask:
    """Return the mask of a file: known where it is white, or opaque if some of it is transparent.

    For digits, what pads 28 to 32 pixels is known. For other images its middle is scaled as theirs
    is, by nearest neighbours, so that a mask painted over an image fits it.

    Parameters
    ----------
    path : Path
    shape : (int, int, int)
        Of the model's images.
    invert : bool
        Known is what would be unknown.
    images : sequence of Path, optional
        The images that the mask belongs to: their aspect ratio must be the mask's.
    option : str
        Names the file in errors.
    digits : bool
        Whether the model is of digits, whose masks have 32x32 or 28x28 pixels.

    Raises
    ------
    InputError
        If the file cannot be read, is no mask of two values, leaves no pixel known or none unknown,
        or has another aspect.
    """
    sides = DIGITS if digits else ()
    mask = open_upright(path, option, sides)
    for image in images if not sides else ():
        if not is_array(image):
            _check_aspect(path, mask.size, image, size_of(image, OPTION))
    known, said = _marked(mask, f"{option} {path}")
    if not sides:
        fitted = ImageOps.fit(
            Image.fromarray(known), (shape[2], shape[1]), Image.Resampling.NEAREST
        )
        known = np.array(fitted, dtype=bool)
    known = known ^ invert
    if not known.any() or known.all():
        everywhere = "black" if known.any() == invert else "white"
        raise InputError(
            f"the mask {path} is {everywhere} everywhere, so that"
            f" {'no' if not known.any() else 'every'} pixel is"
            f" known{', inverted' if invert else ''}: paint the known ones white and the unknown"
            " ones black"
        )
    margin = (shape[1] - len(known)) // 2 if sides else 0
    return Mask(
        pad(torch.from_numpy(known), (margin,) * 4, value=True)[None],
        f"{path.name}: {said}" if said else "",
    )


def count_known(known: Tensor) -> str:
    """Return how many pixels masks know, (N, 1, H, W): "512 of 1,024 pixels known"."""
    known = known.reshape(-1, *known.shape[-2:]).flatten(1)
    low, high = int(known.sum(1).min()), int(known.sum(1).max())
    return f"{low:,}{'' if low == high else f' to {high:,}'} of {known.shape[1]:,} pixels known"


def _marked(mask: Image.Image, what: str) -> tuple[NDArray[np.bool_], str]:
    """Return where a mask is white or, if some of it is transparent, opaque, (H, W); and what to
    say of it.
    """
    alpha = opacity(mask)
    if alpha is not None and alpha.min() < 128:
        return _opaque(mask, alpha, what)
    deep = is_deep(mask)
    raw = np.asarray(mask if deep else converted(mask, "L", what))
    values = np.unique(raw)
    if set(values.tolist()) == {0, 1}:
        return raw == 1, "1 is known"
    if not deep:
        _check_gray(mask, what)
    level = to_unit(mask, what)[0] if deep else raw / 255.0
    labels = (
        len(values) <= 16
        and ((values > 0) & (values <= 8) & (values == np.rint(values))).any()
        and values.max() > 1
    )
    middle = ((level > 0.25) & (level < 0.75)).mean()
    if values.max() > 0 and (labels or level.max() <= 0.5 or middle > 0.25):
        shown = ", ".join(f"{value:g}" for value in values[:8].tolist())
        more = f" and {len(values) - 8} more values" if len(values) > 8 else ""
        raise InputError(
            f"{what} holds {shown}{more}: expected black and white, 0 and 255. Write 255 where a"
            " pixel is known and 0 where it is not"
        )
    return level > 0.5, ""


def _opaque(
    mask: Image.Image, alpha: NDArray[np.uint8], what: str
) -> tuple[NDArray[np.bool_], str]:
    opaque = alpha > 127
    if not opaque.any():
        raise InputError(
            f"{what} is transparent everywhere, so that no pixel is known: leave the known ones"
            " opaque"
        )
    deep = is_deep(mask)
    gray = to_unit(mask, what)[0] * 255 if deep else np.asarray(straight_rgba(mask).convert("L"))
    gray = gray[opaque]
    if (gray < 64).all() or ((gray < 64).any() and ((gray < 64) | (gray > 191)).all()):
        raise InputError(
            f"{what} is black on a transparent ground, known by its alpha and unknown by its"
            " colour: flatten it to black and white, or paint in one colour that is not black"
        )
    return opaque, "opaque pixels are known"


def _check_gray(mask: Image.Image, what: str) -> None:
    """Raise if more than a hundredth of the pixels has a colour."""
    colours = np.asarray(converted(mask, "RGB", what)).reshape(-1, 3)
    coloured = colours[np.ptp(colours, axis=1) > 64]
    if len(coloured) > len(colours) / 100:
        found, counts = np.unique(coloured, axis=0, return_counts=True)
        red, green, blue = found[counts.argmax()]
        raise InputError(
            f"{what} has colours, most of them #{red:02x}{green:02x}{blue:02x}: expected black and"
            " white, white where a pixel is known"
        )


def _check_aspect(path: Path, size: tuple[int, int], image: Path, whole: tuple[int, int]) -> None:
    """Raise unless a mask has the aspect ratio of its image, to one pixel of the smaller."""
    (w, h), (width, height) = size, whole
    scale = math.sqrt(w * h / (width * height))
    if abs(w - scale * width) > max(1, scale) or abs(h - scale * height) > max(1, scale):
        raise InputError(
            f"the mask {path} has {w}x{h} pixels and the image {image} {width}x{height}, another"
            " aspect ratio: expected a mask painted over the image. Crop one to the other"
        )

"""The image and mask files of users, read here and nowhere else.

    turned      upright, by the orientation that EXIF notes
    scaled      8 bits from 0 to 255; whole numbers of more bits from 0 to the largest number of 8,
                10, 12, 14 or 16 bits, the first that holds them; others from 0 to 1 or -1 to 1 if
                they lie there, else from their least to their largest
    flattened   transparency over black for gray models, whose digits are white on black, and over
                white for models of colours
    cut         the largest middle part of the model's shape, scaled; digits must have their size,
                32x32 or 28x28 pixels
    refused     several frames, too many pixels, what cannot be decoded, what may mean two things

A mask is known where it is white; one with transparent pixels is known where it is opaque. What a
file needed is said.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import pad

from jacobian_lab import InputError
from mnist.data import SHAPE

Shape: TypeAlias = tuple[int, int, int]
MOST_PIXELS = 100_000_000
"""Pixels of the largest file that is read: 400 MB, decoded."""
BITS = (8, 10, 12, 14, 16)
DIGITS = (SHAPE[1], SHAPE[1] - 4)
"""Sides of a digit's file: padded, and as in MNIST."""
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
    OverflowError,
)
"""What Pillow raises on damaged files."""


class Picture(NamedTuple):
    """An image for a model."""

    pixels: Tensor
    """(1, c, H, W) in [-1, 1]."""
    said: str
    """What the file needed; empty for an opaque image of 8 bits."""


class Mask(NamedTuple):
    """Which pixels of an image are known."""

    known: Tensor
    """(1, H, W), bool."""
    said: str
    """How the file was understood, unless by white and black."""


def read_image(
    path: Path, shape: Shape, option: str = "--image", sides: Sequence[int] = ()
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
    sides = sides or (DIGITS if shape == SHAPE else ())
    image = _open(path, option, sides, 4 * max(height, width))
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


def read_mask(
    path: Path,
    shape: Shape = SHAPE,
    invert: bool = False,
    image: Path | None = None,
    option: str = "--mask",
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
    image : Path, optional
        The image that the mask belongs to: its aspect ratio must be the mask's.
    option : str
        Names the file in errors.

    Raises
    ------
    InputError
        If the file cannot be read, is no mask of two values, leaves no pixel known or none unknown,
        or has another aspect.
    """
    sides = DIGITS if shape == SHAPE else ()
    mask = _open(path, option, sides)
    if not sides and image is not None:
        _check_aspect(path, mask.size, image, size_of(image, "--image"))
    known, said = _marked(mask, f"{option} {path}")
    if not sides:
        fitted = ImageOps.fit(Image.fromarray(known), shape[:0:-1], Image.Resampling.NEAREST)
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


def size_of(path: Path, option: str) -> tuple[int, int]:
    """Return width and height of a file's picture, upright, in pixels."""
    return _open(path, option, header=True).size


def count_known(known: Tensor) -> str:
    """Return how many pixels masks know, (N, 1, H, W): "512 of 1,024 pixels known"."""
    known = known.reshape(-1, *known.shape[-2:]).flatten(1)
    low, high = int(known.sum(1).min()), int(known.sum(1).max())
    return f"{low:,}{'' if low == high else f' to {high:,}'} of {known.shape[1]:,} pixels known"


def _blank(file: Image.Image) -> Image.Image:
    """Return an empty picture of the size that the file has when upright; orientations from 5 on
    swap its sides.
    """
    turned = file.getexif().get(0x0112, 1) >= 5
    return Image.new("1", file.size[::-1] if turned else file.size)


def _wanted(option: str, sides: Sequence[int]) -> str:
    sizes = " or ".join(f"{side}x{side}" for side in sides)
    return (
        f"{option} must be an image of {sizes} pixels"
        if sides
        else f"{option} must be an image file"
    )


@contextmanager
def _told(path: Path, wanted: str) -> Iterator[None]:
    """Turn what Pillow raises about a file into one line."""
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        count = re.findall(r"\d{6,}", str(error))[0]
        raise InputError(_too_large(path, int(count), wanted)) from error
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}: {wanted}") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not an image that can be read: {wanted}; PNG and JPEG will do"
        ) from error
    except (*BROKEN, MemoryError) as error:
        raise InputError(f"{path} cannot be read ({error}): {wanted}") from error


def _open(
    path: Path, option: str, sides: Sequence[int] = (), least: int = 0, header: bool = False
) -> Image.Image:
    """Return the picture of a file, upright; a JPEG may be reduced while no side falls below
    `least` pixels.

    Parameters
    ----------
    sides : sequence of int
        Sides that it may have, if any are given: it must then be square.
    header : bool
        Only its size is wanted.
    """
    wanted = _wanted(option, sides)
    if path.exists() and not path.is_file():  # a pipe may have no end
        raise InputError(
            f"{path} cannot be read (it is no file, but a folder, a pipe or a device): {wanted}"
        )
    with _told(path, wanted), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, on sizes (checked here) and on metadata
        with Image.open(path) as file:
            _check_file(file, path, wanted)
            if header:
                return _blank(file)
            if least:
                file.draft(None, (least, least))
            deep = any(";16" in str(tile) for tile in file.tile)
            upright = ImageOps.exif_transpose(file)
    width, height = upright.size
    if sides and (width != height or width not in sides):
        raise InputError(f"{path} has {width}x{height} pixels: {wanted}. Crop it and scale it")
    if deep and upright.mode not in ("I", "F") and not upright.mode.startswith("I;16"):
        _check_bright(upright, path)
    return upright


def _check_file(file: Image.Image, path: Path, wanted: str) -> None:
    """Raise if the file has several pictures, or too many pixels; nothing is decoded."""
    if (count := file.width * file.height) > MOST_PIXELS:
        raise InputError(_too_large(path, count, wanted))
    frames = getattr(file, "n_frames", 1)
    # a phone's: the photo, then a preview or a map of depth
    if frames > 1 and file.format != "MPO":
        raise InputError(
            f"{path} has {frames} frames, and which is meant it does not say: {wanted}. Save one"
            " frame as PNG"
        )


def _too_large(path: Path, count: int, wanted: str) -> str:
    return (
        f"{path} has {count:,} pixels, more than the {MOST_PIXELS:,} that are read: {wanted}. Scale"
        " it down"
    )


def _check_bright(image: Image.Image, path: Path) -> None:
    """Raise if colours of 16 bits, of which Pillow keeps the upper 8, use at most 14."""
    extrema: Any = image.convert("RGB").getextrema()
    if 0 < max(high for _, high in extrema) < 64:
        raise InputError(
            f"{path} has colours of 16 bits that reach a quarter of white at most, such as a"
            " camera's 10, 12 or 14 bits: expected 0 to 65,535. Scale them to it"
        )


def _is_deep(image: Image.Image) -> bool:
    """Return whether its numbers have more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _alpha(image: Image.Image) -> NDArray[np.uint8] | None:
    """Return how opaque each pixel is, (H, W), or None if all are."""
    key = image.info.get("transparency")
    if _is_deep(image):
        found = None if key is None else np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)
    elif key is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        found = np.asarray(_rgba(image).getchannel("A"))
    else:
        found = None
    return None if found is None or found.min() == 255 else found


def _rgba(image: Image.Image) -> Image.Image:
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return (image.convert(straight) if straight else image).convert("RGBA")


def _flat(image: Image.Image, what: str, mode: str) -> tuple[list[Image.Image], str]:
    """Return the opaque bands of an image, 8 bits or "F" in [0, 1], one of mode "L" or three of
    "RGB"; and what it needed.
    """
    white = mode == "RGB"
    alpha, notes = _alpha(image), []
    if alpha is not None:
        notes.append(f"transparency over {'white' if white else 'black'}")
    if _is_deep(image):
        values, note = _to_unit(image, what)
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
            image = Image.alpha_composite(back, _rgba(image))
        flat = list(_converted(image, mode, what).split())
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
    extrema: Any = _converted(image, "RGB", what).getextrema()
    return max(high for _, high in extrema)


def _converted(image: Image.Image, mode: str, what: str) -> Image.Image:
    try:
        return (image.convert("RGB") if image.mode in ("LAB", "HSV") else image).convert(mode)
    except ValueError as error:
        raise InputError(
            f"{what} has colours of kind {image.mode}: expected gray, RGB, a palette or CMYK. Save"
            " it as PNG"
        ) from error


def _to_unit(image: Image.Image, what: str) -> tuple[NDArray[np.float64], str]:
    """Return numbers of more than 8 bits, scaled to [0, 1], and which of them are black and
    white.
    """
    values = np.asarray(image, dtype=np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise InputError(
            f"{what} has {bad:,} of {values.size:,} values that are not finite: expected numbers"
        )
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and (low, high) == (0, 1):
        raise InputError(
            f"{what} holds whole numbers 0 and 1 only, and may have been meant for 0 to 255:"
            " multiply it by 255"
        )
    if low >= 0 and high <= 1 and image.mode == "F":
        black, white = 0.0, 1.0
    elif low >= -1 and high <= 1 and image.mode == "F":
        black, white = -1.0, 1.0
    elif low >= 0 and high < 2 ** BITS[-1] and (values == np.rint(values)).all():
        black, white = 0.0, next(2.0**bits - 1 for bits in BITS if high < 2**bits)
    else:
        black, white = low, high
    if black == white:
        raise InputError(f"{what} is {low:g} everywhere: expected an image")
    return (values - black) / (white - black), f"{black:,g} is black and {white:,g} white"


def _marked(mask: Image.Image, what: str) -> tuple[NDArray[np.bool_], str]:
    """Return where a mask is white or, if some of it is transparent, opaque, (H, W); and what to
    say of it.
    """
    alpha = _alpha(mask)
    if alpha is not None and alpha.min() < 128:
        return _opaque(mask, alpha, what)
    deep = _is_deep(mask)
    raw = np.asarray(mask if deep else _converted(mask, "L", what))
    values = np.unique(raw)
    if set(values.tolist()) == {0, 1}:
        return raw == 1, "1 is known"
    if not deep:
        _check_gray(mask, what)
    level = _to_unit(mask, what)[0] if deep else raw / 255.0
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
    gray = (
        _to_unit(mask, what)[0] * 255 if _is_deep(mask) else np.asarray(_rgba(mask).convert("L"))
    )[opaque]
    if (gray < 64).all() or ((gray < 64).any() and ((gray < 64) | (gray > 191)).all()):
        raise InputError(
            f"{what} is black on a transparent ground, known by its alpha and unknown by its"
            " colour: flatten it to black and white, or paint in one colour that is not black"
        )
    return opaque, "opaque pixels are known"


def _check_gray(mask: Image.Image, what: str) -> None:
    """Raise if more than a hundredth of the pixels has a colour."""
    colours = np.asarray(_converted(mask, "RGB", what)).reshape(-1, 3)
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

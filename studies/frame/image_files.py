"""What the image files of users hold: their pixels upright, their transparency, their scale.

Opening a file decodes nothing that is refused: several frames, too many pixels, other sides.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from jacobian_lab import InputError
from mnist.data import SHAPE

MOST_PIXELS = 100_000_000
"""Pixels of the largest file that is read: 400 MB, decoded."""
BITS = (8, 10, 12, 14, 16)
"""Depths of cameras and scanners: the first that holds all values is taken for a file's."""
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


def size_of(path: Path, option: str) -> tuple[int, int]:
    """Return width and height of a file's picture, upright, in pixels."""
    return open_upright(path, option, header=True).size


def open_upright(
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


def is_deep(image: Image.Image) -> bool:
    """Return whether its numbers have more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def opacity(image: Image.Image) -> NDArray[np.uint8] | None:
    """Return how opaque each pixel is, (H, W), or None if all are."""
    key = image.info.get("transparency")
    if is_deep(image):
        found = None if key is None else np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)
    elif key is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        found = np.asarray(straight_rgba(image).getchannel("A"))
    else:
        found = None
    return None if found is None or found.min() == 255 else found


def straight_rgba(image: Image.Image) -> Image.Image:
    """Return an image in colours that are not multiplied by their opacity."""
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return (image.convert(straight) if straight else image).convert("RGBA")


def converted(image: Image.Image, mode: str, what: str) -> Image.Image:
    """Return an image in another mode, or raise if its kind of colours has no conversion."""
    try:
        return (image.convert("RGB") if image.mode in ("LAB", "HSV") else image).convert(mode)
    except ValueError as error:
        raise InputError(
            f"{what} has colours of kind {image.mode}: expected gray, RGB, a palette or CMYK. Save"
            " it as PNG"
        ) from error


def to_unit(image: Image.Image, what: str) -> tuple[NDArray[np.float64], str]:
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

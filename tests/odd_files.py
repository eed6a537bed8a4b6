"""Image files that are unusual or damaged, and how they are written."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

DIGIT, COLOUR = (1, 32, 32), (3, 32, 32)
GRAY = np.add.outer(4 * np.arange(32), 2 * np.arange(32)).astype(np.uint8)  # 0 to 186, no symmetry
RED = np.stack([GRAY, GRAY // 2, 255 - GRAY], -1)
LEFT = np.zeros((32, 32), np.uint8)
LEFT[:, :10] = 255
ROTATIONS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""From the upright picture to what a camera stores with an orientation of EXIF's."""


def unit(array):
    """Bytes as a model sees them."""
    return np.asarray(array, dtype=np.float64) / 127.5 - 1


def luminance(rgb):
    return np.asarray(Image.fromarray(np.asarray(rgb, np.uint8)).convert("L"))


def save(path, array, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)


def with_alpha(array, alpha):
    return np.concatenate([array if array.ndim == 3 else array[..., None], alpha[..., None]], -1)


def palette(transparent=None):
    image = Image.fromarray((GRAY // 64).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 255, 255, 255])
    return image, {} if transparent is None else {"transparency": transparent}


def colours_of_palette():
    return np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [255, 255, 255]], np.uint8)[GRAY // 64]


def gif(path, frames, **options):
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def png(path, header, rows=b"\0"):
    """A PNG by hand: width, height, bits and kind of colour; without rows it promises pixels and
    holds none.
    """
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def huge(path, width, height):
    png(path, (width, height, 8, 0))


def truncated(path, kind):
    buffer = io.BytesIO()
    save(
        buffer, np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8), format=kind
    )
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def camera(path, orientation, pixels=GRAY, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path, np.ascontiguousarray(ROTATIONS[orientation](pixels)), exif=exif, **options)


def deep(array, dtype=np.uint16):
    return np.asarray(array, dtype)


def big_endian():
    return Image.frombytes("I;16B", (32, 32), (deep(GRAY) * 257).astype(">u2").tobytes())


LAB = Image.merge("LAB", [Image.fromarray(a) for a in (GRAY, 0 * GRAY + 128, 0 * GRAY + 128)])
HALF = np.where(np.arange(32) < 16, 255, 0) * np.ones((32, 1))
ALPHA = HALF.astype(np.uint8)
INK = np.where(GRAY > 90, 255, 0).astype(np.uint8)

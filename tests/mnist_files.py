"""MNIST in torchvision's layout, made of digits that are at hand offline: half of them held out,
half not.
"""

import hashlib

import numpy as np

from mnist.data import _held_out


def write(folder, count=64):
    """Write a training and a test set: `count` held-out digits and as many mirrored ones, which are
    nowhere else.
    """
    images, labels = (array[:count] for array in _held_out())
    images, labels = np.concatenate([images, images[:, ::-1]]), np.concatenate([labels, labels])
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        header = np.array([0x803, len(images), 28, 28], dtype=">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            header + np.ascontiguousarray(images).tobytes()
        )
        header = np.array([0x801, len(labels)], dtype=">i4").tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    (raw / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in raw.iterdir()
        )
    )
    return folder

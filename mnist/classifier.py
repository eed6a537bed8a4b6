"""The judge: a small, smooth digit classifier, whose accuracy and features measure what the
diffusion models draw.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jacobian_lab import InputError, _require


class Classifier(nn.Module):
    """Five convolutions, a mean over the pixels, a linear layer: (B, 1, 32, 32) in [-1, 1] -> (B,
    10) logits.

    Parameters
    ----------
    width : int
        Channels of the first convolution; the features have four times as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.num_features = 4 * width
        self.body = nn.Sequential(
            *block(1, width),
            *block(width, 2 * width, stride=2),
            *block(2 * width, 2 * width),
            *block(2 * width, 4 * width, stride=2),
            *block(4 * width, 4 * width),
        )
        self.head = nn.Linear(4 * width, 10)

    def features(self, images: Tensor) -> Tensor:
        """Return the features behind the logits, shape (B, 4 width): the space in which images are
        compared.
        """
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (B, 10)."""
        return self.head(self.features(images))


def block(c_in: int, c_out: int, stride: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return a 3x3 convolution, its normalisation and a smooth activation.

    Parameters
    ----------
    c_in, c_out : int
        Channels in and out; c_out is a multiple of 8.
    stride : int
        Of the convolution.
    """
    return nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1), nn.GroupNorm(8, c_out), nn.SiLU()


def check_images(name: str, images: Tensor) -> None:
    """Raise unless these are digits, (N, 1, 32, 32)."""
    if _require.tensor(name, images).shape[1:] != (1, 32, 32) or not len(images):
        raise InputError(f"{name} has shape {tuple(images.shape)}: expected (N, 1, 32, 32), N >= 1")


@torch.no_grad()
def accuracy(
    classifier: Classifier, images: Tensor, labels: Tensor, batch_size: int = 500
) -> float:
    """Return the share of images that the classifier names rightly, in [0, 1].

    Parameters
    ----------
    classifier : Classifier
    images : Tensor, shape (N, 1, 32, 32)
        In [-1, 1].
    labels : Tensor, shape (N,)
        Digits.
    batch_size : int
        Images of one pass.
    """
    check_images("images", images)
    if not isinstance(labels, Tensor) or labels.shape != images.shape[:1]:
        raise InputError(
            f"labels must be a tensor of {len(images)} classes: got {_require.shown(labels)}"
        )
    right = sum(
        int((classifier(images[i : i + batch_size]).argmax(1) == labels[i : i + batch_size]).sum())
        for i in range(0, len(images), batch_size)
    )
    return right / len(images)

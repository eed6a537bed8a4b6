"""Images beyond digits, made of digits: what an encoder meets where a constraint, or a denoiser at
high noise, asks for something that is no digit.

    blurred      by a Gaussian of 0.5 to 3 pixels         drawn over   with another digit
    shrunk       by 2, 4 or 8, and enlarged again         cut          another digit on one side
    mixed        with another digit, as by a mean         coarse       another digit's 8x8 pixels
    turned       and shifted                              cloudy       paler, under soft noise

The posterior mean of a noisy digit is blurred and mixed; the error of 4x super-resolution makes an
image coarse, that of inpainting cuts it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 8
"""Pixels that a blur reaches in each direction."""


def vary(images: Tensor, others: Tensor) -> Tensor:
    """Return each image in one of the ways above, chosen at random by PyTorch's generator.

    Parameters
    ----------
    images, others : Tensor, shape (B, 1, 32, 32)
        Digits in [-1, 1], and another one for each.
    """
    ways = [VARIATIONS[int(k)] for k in torch.randint(len(VARIATIONS), (len(images),))]
    pairs = zip(ways, images.split(1), others.split(1), strict=True)  # type: ignore[no-untyped-call]
    return torch.cat([way(image, other) for way, image, other in pairs])


def smooth(images: Tensor, width: float) -> Tensor:
    """Return images, (B, 1, H, W), behind a Gaussian blur; -1 surrounds them."""
    kernel = torch.exp(-0.5 * (torch.arange(-REACH, REACH + 1) / width).square()).to(images)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, (REACH,) * 4, value=-1.0)
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None])


def coarsen(images: Tensor, factor: int) -> Tensor:
    """Return images whose pixels are means over squares, enlarged again."""
    small = F.avg_pool2d(images, factor)
    return F.interpolate(small, scale_factor=factor, mode="bicubic")


def _number(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _integer(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _blurred(image: Tensor, _other: Tensor) -> Tensor:
    return smooth(image, _number(0.5, 3))


def _shrunk(image: Tensor, _other: Tensor) -> Tensor:
    return coarsen(image, 2 ** _integer(1, 3))


def _mixed(image: Tensor, other: Tensor) -> Tensor:
    return torch.lerp(image, other, _number(0, 1))


def _drawn_over(image: Tensor, other: Tensor) -> Tensor:
    return torch.maximum(image, other)


def _cut(image: Tensor, other: Tensor) -> Tensor:
    side = image.shape[-1]
    mask = torch.arange(side) < _integer(side // 8, side - side // 8)
    if _integer(0, 1):
        mask = mask[:, None]
    return torch.where(mask.to(image.device), image, other)


def _coarse(image: Tensor, other: Tensor) -> Tensor:
    return image + coarsen(other - image, 4)


def _turned(image: Tensor, other: Tensor) -> Tensor:
    shift = _integer(-REACH, REACH), _integer(-REACH, REACH)
    turned = image.rot90(_integer(0, 3), (2, 3)).roll(shift, (2, 3))
    return torch.maximum(turned, other) if _integer(0, 1) else turned


def _cloudy(image: Tensor, _other: Tensor) -> Tensor:
    clouds = smooth(torch.randn(image.shape).to(image) - 1, 1.5) + 1
    return _number(0.2, 1.2) * image + _number(-0.5, 0.5) + _number(0, 0.9) * clouds


VARIATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _blurred,
    _shrunk,
    _mixed,
    _drawn_over,
    _cut,
    _coarse,
    _turned,
    _cloudy,
)

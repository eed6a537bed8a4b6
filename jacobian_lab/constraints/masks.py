r"""Masks for inpainting: boolean, True where an entry is known; (1, H, W) for images.

>>> shape = (1, 32, 32)
>>> [int(mask.sum()) for mask in (half(shape), box(shape, 16), random_pixels(shape, 0.08, seed=0))]
[512, 768, 82]
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.diffusion.denoiser import Shape
from jacobian_lab.errors import InputError


def half(shape: Shape, known: Literal["left", "right", "top", "bottom"] = "left") -> Tensor:
    """Return the mask that knows one half of the image."""
    height, width = _sides(shape)
    mask = torch.zeros(1, height, width, dtype=torch.bool, device="cpu")
    match known:
        case "left":
            mask[:, :, : width // 2] = True
        case "right":
            mask[:, :, width // 2 :] = True
        case "top":
            mask[:, : height // 2] = True
        case "bottom":
            mask[:, height // 2 :] = True
        case _:
            raise InputError(f"known must be left, right, top or bottom: got {known!r}")
    return mask


def box(shape: Shape, side: int) -> Tensor:
    """Return the mask that knows all but a square of `side` pixels in the middle."""
    height, width = _sides(shape)
    side = _require.integer("the side of the box, in pixels,", side, 1, max(height, width) - 1)
    mask = torch.ones(1, height, width, dtype=torch.bool, device="cpu")
    top, left = (max(0, (size - side) // 2) for size in (height, width))
    mask[:, top : top + side, left : left + side] = False
    return mask


def random_pixels(shape: Shape, share: float, seed: int = 0) -> Tensor:
    """Return the mask that knows a `share`, in (0, 1], of the pixels, chosen at random: exactly so
    many.

    Parameters
    ----------
    shape : tuple of int
        Of a sample; its first dimension are the channels, which are known together, unless it is
        the only one.
    share : float
        In (0, 1].
    seed : int
    """
    shape = _require.sizes("shape", shape)
    places = shape[1:] or shape
    total = math.prod(places)
    share = _require.real("the share of known pixels", share)
    if not 0 < share <= 1 or not (count := round(share * total)):
        raise InputError(
            f"the share of known pixels must lie in (0, 1] and mark at least one of {total}: got"
            f" {share}"
        )
    generator = torch.Generator().manual_seed(_require.seed(seed))
    order = torch.randperm(total, generator=generator, device="cpu")
    mask = torch.zeros(total, dtype=torch.bool, device="cpu")
    mask[order[:count]] = True
    return mask.reshape(1, *places) if len(shape) > 1 else mask


def free_form(shape: Shape, strokes: int = 3, thickness: float = 0.1, seed: int = 0) -> Tensor:
    """Return the mask that knows all but random brush strokes.

    Parameters
    ----------
    shape : (int, int, int)
    strokes : int
        Number of strokes; each turns at random four times.
    thickness : float
        Diameter of the brush, relative to the image's shorter side.
    seed : int
    """
    height, width = _sides(shape)
    strokes = _require.integer("strokes", strokes, 1)
    thickness = _require.real("thickness", thickness, "(0, 1)")
    generator = torch.Generator().manual_seed(_require.seed(seed))
    draw = partial(torch.rand, generator=generator, dtype=torch.float32, device="cpu")
    sides = torch.tensor([height, width], dtype=torch.float32, device="cpu")
    across, down = (torch.arange(side, device="cpu") + 0.5 for side in (width, height))
    rows, columns = torch.meshgrid(down, across, indexing="ij")
    mask = torch.ones(height, width, dtype=torch.bool, device="cpu")
    size, radius = min(height, width), thickness * min(height, width) / 2
    reach = math.ceil(radius) + 1  # of the brush: pixels further away need no test
    for _ in range(strokes):
        at, angle = draw(2) * sides, 2 * math.pi * float(draw(()))
        for _ in range(4):
            angle += float(draw(())) * math.pi - math.pi / 2
            move = size / 4 * torch.tensor([math.sin(angle), math.cos(angle)], device="cpu")
            for share in torch.linspace(0, 1, 2 * size, device="cpu"):
                row, column = (at + share * move).tolist()
                near = tuple(
                    slice(
                        max(0, math.floor(middle) - reach), max(0, math.floor(middle) + reach + 1)
                    )
                    for middle in (row, column)
                )
                mask[near] &= (rows[near] - row) ** 2 + (columns[near] - column) ** 2 > radius**2
            at = (at + move).clamp(min=0).minimum(sides)
    return mask.unsqueeze(0)


def _sides(shape: Shape) -> tuple[int, int]:
    """Return height and width of an image's shape, or raise if it is of something else."""
    found = _require.sizes("shape", shape)
    if len(found) != 3:
        raise InputError(
            f"this mask is for images, of shape (C, H, W): got {found}. random_pixels takes any"
            " shape, and Inpainting any boolean tensor"
        )
    return found[1], found[2]

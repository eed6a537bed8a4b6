"""Tangents with a power of two taken out of each vector, so that those in half precision neither
overflow nor vanish.

J is linear: `J (v / s) s = J v`. A tangent of size 10^14 overflows in float16, whose largest
number is 65504, even where later operations bring it back into range, as a division does, or a
product with the zeros of a relu. It is therefore scaled where it is converted to half precision. A
power of two rounds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Scaled(NamedTuple):
    """K tangents, (K, ...), to be multiplied with K numbers; None stands for ones."""

    tensor: Tensor
    scale: Tensor | None = None

    def product(self) -> Tensor:
        """Return the tangents themselves."""
        return self.tensor if self.scale is None else _times(self.tensor, self.scale)

    def __add__(self, other: Scaled) -> Scaled:  # type: ignore[override]
        (a, b), scale = aligned([self, other])
        assert a is not None
        assert b is not None
        return Scaled(a + b, scale)


def aligned(tangents: Sequence[Scaled | None]) -> tuple[list[Tensor | None], Tensor | None]:
    """Return the tangents for one scale, and that scale: the largest."""
    scales = [t.scale for t in tangents if t is not None]
    if all(s is scales[0] for s in scales):
        return [None if t is None else t.tensor for t in tangents], scales[0]
    ones = torch.ones_like(next(s for s in scales if s is not None))
    scale = torch.stack([ones if s is None else s for s in scales]).amax(0)
    return [
        None if t is None else _times(t.tensor, (ones if t.scale is None else t.scale) / scale)
        for t in tangents
    ], scale


def scaled(
    tangents: Sequence[Scaled | None], narrows: bool
) -> tuple[list[Tensor | None], Tensor | None]:
    """Return the tangents for one scale, and that scale; one that makes them fit where they enter
    half precision.
    """
    tensors, scale = aligned(tangents)
    return normalised(tensors, scale) if narrows else (tensors, scale)


def normalised(
    tensors: Sequence[Tensor | None], scale: Tensor | None
) -> tuple[list[Tensor | None], Tensor]:
    """Take out of each vector the power of two that makes its largest entry one, about."""
    largest = torch.stack(
        [t.abs().flatten(1).amax(1).double() for t in tensors if t is not None]
    ).amax(0)
    power = torch.where((largest > 0) & largest.isfinite(), 2 ** largest.log2().floor(), 1)
    return [None if t is None else _times(t, 1 / power) for t in tensors], (
        power if scale is None else scale * power
    )


def _times(t: Tensor, scale: Tensor) -> Tensor:
    return t * scale.reshape(-1, *(1,) * (t.ndim - 1)).to(t.dtype)

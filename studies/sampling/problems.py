"""The linear inverse problems of the contest, on 32x32 digits: what is observed of each, as a
constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import mnist
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import box, half, random_pixels
from jacobian_lab.constraints.separable import blurring, gaussian_blur, shrink, super_resolution
from jacobian_lab.sampling.sampler import seed_of, seeded_noise
from mnist.data import SHAPE

BLUR_WIDTH, BLUR_NOISE = 1.5, 0.05


def _random(images: Tensor, seeds: Sequence[int]) -> LinearConstraint:
    return Inpainting(
        images, torch.stack([random_pixels(SHAPE, 0.08, seed_of(seed, 3)) for seed in seeds])
    )


def _blur(images: Tensor, seeds: Sequence[int]) -> LinearConstraint:
    matrix = blurring(SHAPE[1], BLUR_WIDTH).to(images)
    noise = seeded_noise([seed_of(seed, 4) for seed in seeds], SHAPE, images.device, images.dtype)
    return gaussian_blur(matrix @ images @ matrix.T + BLUR_NOISE * noise, BLUR_WIDTH, BLUR_NOISE)


TASKS: dict[str, Callable[[Tensor, Sequence[int]], LinearConstraint]] = {
    "half": lambda images, _: Inpainting(images, half(SHAPE)),
    "box": lambda images, _: Inpainting(images, box(SHAPE, 16)),
    "random": _random,
    "super-resolution": lambda images, _: super_resolution(shrink(images, 4), 4),
    "blur": _blur,
}
"""Left half known; all but the middle 16x16 pixels; 8 % of the pixels, others for each digit; 8x8
pixels, bicubic; a Gaussian blur of 1.5 pixels with noise of 0.05. Each takes images, (B, 1, 32,
32), and a seed for each.
"""


def problem(
    task: str, first: int, count: int, seed: int, device: str = "cpu"
) -> tuple[LinearConstraint, Tensor, Tensor]:
    """Return the observations of some held-out digits, the digits and their labels."""
    images, labels = (x[first : first + count].to(device) for x in mnist.digits("held-out"))
    return TASKS[task](images, [seed_of(seed, first + i) for i in range(count)]), images, labels

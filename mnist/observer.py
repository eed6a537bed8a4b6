r"""The limits of the contest: a network that names the digit from what is observed of it, and draws
the image of least squared error.

    observation, known pixels, task -> U-Net of three resolutions -> digit (logits), image

Trained on training digits by cross-entropy and squared error, it approaches, from below, the best
that any method can do: the digit of the largest posterior probability p(digit | y) is right most
often, and the posterior mean E[x | y] has the least squared error. One network learns all tasks,
which share what a digit is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.separable import Wiener
from mnist.problems import Problem, Quantised, observation_image
from mnist.unet import ResBlock
from mnist.weights import load_network

FEATURES = 32
"""Of the task's embedding."""


class Seen(NamedTuple):
    """What an observer makes of observations."""

    logits: Tensor
    """(B, 10)."""
    images: Tensor
    """(B, 1, 32, 32): the estimate of E[x | y]."""


class Observer(nn.Module):
    """Images of observations, (B, 1, 32, 32), the known pixels, of that shape, and the number of
    the task, (B,) -> `Seen`.

    Parameters
    ----------
    channels : tuple of int
        Features at sides 16, 8 and 4; multiples of 8.
    tasks : sequence of str
        Names of the tasks that it is trained for; see `mnist.problems.TASKS`.
    """

    def __init__(self, channels: tuple[int, int, int], tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        c1, c2, c3 = channels
        self.task = nn.Embedding(len(tasks), FEATURES)
        self.entry = nn.Conv2d(8, c1, 3, padding=1)
        self.down1, self.shrink1 = _block(c1, c1), nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.down2, self.shrink2 = _block(c2, c2), nn.Conv2d(c2, c3, 3, stride=2, padding=1)
        self.middle = _block(c3, c3)
        self.grow2, self.up2 = nn.Conv2d(c3, c2, 3, padding=1), _block(2 * c2, c2)
        self.grow1, self.up1 = nn.Conv2d(c2, c1, 3, padding=1), _block(2 * c1, c1)
        self.norm, self.exit = nn.GroupNorm(8, c1), nn.Conv2d(c1, 4, 3, padding=1)
        self.head = nn.Sequential(
            nn.GroupNorm(8, c3), nn.SiLU(), nn.Flatten(), nn.Linear(16 * c3, 10)
        )
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, known: Tensor, task: Tensor) -> Seen:
        """Return logits and images; an image is the observed one and a correction."""
        e = self.task(task)
        h1 = self.down1(self.entry(F.pixel_unshuffle(torch.cat([images, known], 1), 2)), e)
        h2 = self.down2(self.shrink1(h1), e)
        h3 = self.middle(self.shrink2(h2), e)
        h = torch.cat([self.grow2(F.interpolate(h3, scale_factor=2)), h2], 1)
        h = torch.cat([self.grow1(F.interpolate(self.up2(h, e), scale_factor=2)), h1], 1)
        change = self.exit(F.silu(self.norm(self.up1(h, e))))
        return Seen(self.head(h3), images + F.pixel_shuffle(change, 2))

    @torch.no_grad()
    def look(self, task: str, wanted: Problem) -> Seen:
        """Return logits and images for the observations of a task.

        Where y is exact the images fulfil it, as E[x | y] does, whose A E[x | y] is y; the y of an
        exact blur is not, since its rounding counts.
        """
        number = torch.tensor([self.tasks.index(task)], device=wanted.y.device)
        image = observation_image(wanted)
        found = self(image, known(wanted, image), number.expand(len(image)))
        exact = not wanted.sigma and not isinstance(wanted, Quantised | Wiener)
        return Seen(found.logits, wanted.project(found.images) if exact else found.images)


def _block(c_in: int, c_out: int) -> ResBlock:
    return ResBlock(c_in, c_out, FEATURES)


def known(wanted: Problem, images: Tensor) -> Tensor:
    """Return 1 where a pixel is known, else 0, of the shape of images; 1 where all are observed
    together.
    """
    mask = wanted.mask if isinstance(wanted, Inpainting) else torch.ones_like(images)
    return mask.to(images).expand_as(images)


def load_observer(
    name: str | Path = "limits",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Observer:
    """Return the trained observer, in evaluation mode, its weights frozen.

    Parameters
    ----------
    name : str or Path
        "limits" ships; else a path of weights and card, without ending.
    device : torch.device or str
    dtype : torch.dtype
    """
    return load_network(name, "limits", Observer, device, dtype)

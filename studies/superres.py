"""Which digits shrink to these few pixels? Samples that do, beside the shortest answer, A^+ y, and what is drawn freely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from jacobian_lab.separable import shrink, super_resolution
from mnist.data import SHAPE
from studies import observed
from studies.constrained import read_gray
from studies.frame import Arrays, Pieces, Study
from studies.observed import Observed, measure, table

SHORTEST = "pseudo-inverse"


@dataclass(frozen=True)
class Superres(Observed):
    """Enlarge shrunk digits; an --image is the small one, 16x16, 8x8 or 4x4 pixels for the factors 2, 4, 8.

    Example: jacobian-lab superres --factor 4 --digits 8.
    """

    factor: Literal[2, 4, 8] = 4
    """How much smaller the observed image is, in each direction: bicubic, antialiased."""

    def sides(self) -> tuple[int, ...]:
        """Return the side, in pixels, that the user's image has: that of the small one."""
        return (SHAPE[1] // self.factor,)

    def small(self) -> Tensor:
        """Return the user's small image, (1, 1, h, w), in [-1, 1]."""
        assert self.image is not None
        return torch.from_numpy(read_gray(self.image, "--image", self.sides())).float()[None, None] / 127.5 - 1


def compute(config: Superres, pieces: Pieces) -> Arrays:
    """Return what `measure` finds, the small images and the shortest answers."""
    truth = None if config.image is not None else config.load()
    if truth is not None:
        y, numbers = shrink(truth.images, config.factor), truth.numbers
    else:
        y, numbers = config.small().to(config.device), [config.digit]
    problem = super_resolution(y, config.factor)
    shortest = problem.pseudo_inverse(y)
    found = measure(config, pieces, problem, numbers, truth, {SHORTEST: shortest})
    return found | {"observed": y.cpu().numpy(), "shortest": shortest.cpu().numpy()}


def plot(arrays: Arrays) -> Figure:
    """Draw the samples of some digits, the error of the shrunk image along sampling, and the scores."""
    return observed.plot(arrays, {"observed, $y$": arrays["observed"], "pseudo-inverse,\n$A^{+} y$": arrays["shortest"]},
                         "Shrunk image along sampling", "RMSE of the shrunk image")


STUDY = Study("superres", Superres, compute, table, plot, models=Superres.models)

"""Which images shrink to these few pixels? Samples that do, beside the shortest answer, A^+ y, and
what is drawn freely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

from jacobian_lab import InputError
from jacobian_lab.constraints.separable import shrink, super_resolution
from mnist.data import SHAPE
from studies.frame.answer import Answer
from studies.frame.image_files import size_of
from studies.frame.models import say
from studies.frame.pictures import Picture, Shape, read_image
from studies.frame.study import Arrays, Pieces, Study
from studies.sampling import (
    reconstruction as observed,
)
from studies.sampling.reconstruction import Observed, sample_and_score, table

SHORTEST = "pseudo-inverse"


@dataclass(frozen=True)
class Superres(Observed):
    """Enlarge shrunk digits, or an --image: 16x16, 8x8 or 4x4 pixels for the factors 2, 4, 8.

    For a model of other images it is the small image if it has just its size, W / factor x H /
    factor, and else at least the full size, W x H, which is shrunk here and then scored against.
    Example: jacobian-lab superres --factor 4 --digits 8.
    """

    factor: Literal[2, 4, 8] = 4
    """How much smaller the observed image is, in each direction: bicubic, antialiased."""

    def read(self, shape: Shape) -> Picture:
        """Return the user's image, (1, c, h, w) or whole, (1, c, H, W)."""
        assert self.image is not None
        channels, height, width = shape
        h, w = height // self.factor, width // self.factor
        if shape == SHAPE:
            return read_image(self.image, (channels, h, w), sides=(w,))
        size = size_of(self.image, "--image")
        if size == (w, h):
            return read_image(self.image, (channels, h, w))
        if size[0] < width or size[1] < height:
            raise InputError(
                f"{self.image} has {size[0]}x{size[1]} pixels: --image must be the small image,"
                f" {w}x{h} pixels, or one of at least {width}x{height}, which is shrunk"
            )
        return read_image(self.image, shape)


def compute(config: Superres, pieces: Pieces) -> Arrays:
    """Return what `sample_and_score` finds, the small images and the shortest answers."""
    model = config.load()
    small = None if config.image is None else config.read(model.image_shape)
    if small is None or tuple(small.pixels.shape[1:]) == model.image_shape:
        truth = config.inputs(model)
        y = shrink(truth.images, config.factor)
    else:
        truth, y = None, say(*small).to(config.device)
    problem = super_resolution(y, config.factor)
    shortest = problem.pseudo_inverse(y)
    found = sample_and_score(config, pieces, model, problem, truth, {SHORTEST: shortest})
    return found | {"observed": y.cpu().numpy(), "shortest": shortest.cpu().numpy()}


def plot(arrays: Arrays) -> Figure:
    """Draw some samples, the error of the shrunk image along sampling, and the scores."""
    return observed.plot(
        arrays,
        {"observed, $y$": arrays["observed"], "pseudo-inverse,\n$A^{+} y$": arrays["shortest"]},
        "Shrunk image along sampling",
        "RMSE",
    )


ANSWER = Answer(
    (
        "method",
        "digits",
        "rmse_of_the_observed_mean",
        "rmse_median",
        "psnr",
        "ssim",
        "agreement",
        "forward_passes",
    )
)
STUDY = Study(
    "superres",
    Superres,
    compute,
    table,
    plot,
    models=Superres.models,
    answer=ANSWER,
)

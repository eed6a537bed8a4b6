"""Which images shrink to these few pixels? Samples that do, beside the shortest answer, A^+ y, and
what is drawn freely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from jacobian_lab import InputError
from jacobian_lab.constraints.separable import shrink, super_resolution
from mnist.data import SHAPE
from studies.frame.dataset import IMAGE, Variable
from studies.frame.image_files import size_of
from studies.frame.models import say
from studies.frame.pictures import Shape, read_image
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.user_images import OPTION
from studies.sampling import (
    reconstruction as observed,
)
from studies.sampling.reconstruction import ANSWER, VARIABLES, Observed, sample_and_score, table

SHORTEST = "pseudo-inverse"


@dataclass(frozen=True)
class Superres(Observed):
    """Enlarge shrunk digits, or --images: 16x16, 8x8 or 4x4 pixels for the factors 2, 4, 8.

    Of a model of other images, --images are small ones of exactly W / factor x H / factor pixels,
    or whole ones of at least W x H, which are shrunk here and scored against.
    Example: jacobian-lab superres --factor 4 --digits 8.
    """

    factor: Literal[2, 4, 8] = 4
    """How much smaller the observed image is, in each direction: bicubic, antialiased."""

    def check_images(self) -> None:
        """Raise unless the user's files are small digits."""
        self.small(SHAPE, digits=True)

    def small(self, shape: Shape, digits: bool) -> Tensor | None:
        """Return the user's small images, (N, c, h, w); None if they are whole, (c, H, W)."""
        channels, height, width = shape
        h, w = height // self.factor, width // self.factor
        sizes = {path: size_of(path, OPTION) for path in self.files}
        if digits or set(sizes.values()) == {(w, h)}:
            sides = (w,) if digits else ()
            read = [read_image(path, (channels, h, w), sides=sides) for path in self.files]
            return torch.cat([say(*picture) for picture in read])
        for path, size in sizes.items():
            if size[0] < width or size[1] < height:
                raise InputError(
                    f"{path} has {size[0]}x{size[1]} pixels: {OPTION} must be small images, all of"
                    f" {w}x{h} pixels, or of at least {width}x{height}, which are shrunk"
                )
        return None


def compute(config: Superres, pieces: Pieces) -> Arrays:
    """Return what `sample_and_score` finds, the small images and the shortest answers."""
    model = config.load()
    small = config.small(model.image_shape, model.digits) if config.images else None
    if small is None:
        truth = config.inputs(model)
        y = shrink(truth.images, config.factor)
    else:
        truth, y = None, small.to(config.device)
    problem = super_resolution(y, config.factor)
    shortest = problem.pseudo_inverse(y)
    found = sample_and_score(
        config,
        pieces,
        model,
        problem,
        truth,
        {SHORTEST: shortest},
        [path.name for path in config.files],
    )
    return found | {"observed": y.cpu().numpy(), "shortest": shortest.cpu().numpy()}


def plot(arrays: Arrays) -> Figure:
    """Draw some samples, the error of the shrunk image along sampling, and the scores."""
    return observed.plot(
        arrays,
        {"observed, $y$": arrays["observed"], "pseudo-inverse,\n$A^{+} y$": arrays["shortest"]},
        "Shrunk image along sampling",
        "RMSE",
    )


STUDY = Study(
    "superres",
    Superres,
    compute,
    table,
    plot,
    models=Superres.models,
    answer=ANSWER,
    variables={
        **VARIABLES,
        "observed": Variable("sample channel small_row small_column", "the shrunk image"),
        "shortest": Variable(f"sample {IMAGE}", "the shortest answer, A^+ y"),
    },
)

"""What lies behind a mask? Samples that agree with the known pixels of an image, beside what the
same noise draws freely.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from jacobian_lab import InputError, _require
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import box, free_form, half, random_pixels
from jacobian_lab.sampling.sampler import seed_of
from mnist.data import SHAPE
from studies.frame.mask_files import Mask, count_known, read_mask
from studies.frame.models import image_hash, is_of_digits, say
from studies.frame.pictures import Shape
from studies.frame.study import Arrays, Pieces, Study
from studies.sampling import (
    reconstruction as observed,
)
from studies.sampling.reconstruction import ANSWER, VARIABLES, Observed, sample_and_score, table

MASKS = ("left", "right", "top", "bottom", "box", "free-form", "random")
# in the seeds of random masks, where those of the noise have the number of the sample
OF_MASKS = 10**6


@dataclass(frozen=True)
class Inpaint(Observed):
    """Complete half-known digits. Example: jacobian-lab inpaint --mask left --digits 8."""

    mask: str = "left"
    """What is known: the left, right, top or bottom half; all but a "box"; all but "free-form"
    strokes; "random" pixels; or the path of an image file, white where a pixel is known, or opaque
    if some of it is transparent: of digits 32x32 or 28x28 pixels, else of the aspect ratio of the
    --images, with which it is scaled.
    """
    invert_mask: bool = False
    """Know what the mask does not, and not what it does."""
    side: int = 16
    """Of the box: pixels."""
    strokes: int = 3
    """Of the free-form mask: their number."""
    share: float = 0.08
    """Of the random mask: how many of the pixels are known, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("side", 1), ("strokes", 1)):
            _require.integer(f"--{name}", getattr(self, name), least)
        _require.real("--share: the share of known pixels", self.share, "(0, 1]")
        if self.mask not in MASKS and not Path(self.mask).exists():
            raise InputError(
                f"--mask must be {', '.join(MASKS)}, or the path of an image file: got"
                f" {self.mask!r}, and no such file exists"
            )
        if is_of_digits(self.model):
            # a bad mask is refused before anything is computed; a pipeline's shape is not known yet
            self.known([0], SHAPE, digits=True)
        if self.mask not in MASKS:
            self.hashes["mask"] = image_hash(Path(self.mask), "--mask")

    @property
    def has_mask(self) -> bool:
        """Whether what is wanted are known pixels: they are."""
        return True

    def known(self, numbers: list[int], shape: Shape, digits: bool) -> Mask:
        """Return the masks, (N, 1, H, W), True where a pixel is known; drawn at random, each
        image's own.
        """

        def mask(seed: int) -> Tensor:
            match self.mask:
                case "left" | "right" | "top" | "bottom":
                    return half(shape, self.mask)
                case "box":
                    return box(shape, self.side)
                case "free-form":
                    return free_form(shape, self.strokes, seed=seed)
            return random_pixels(shape, self.share, seed)

        if self.mask in MASKS:
            masks = (
                torch.stack([mask(seed_of(self.seed, number, OF_MASKS)) for number in numbers])
                ^ self.invert_mask
            )
            if not masks.flatten(1).any(1).all():
                inverted, remedy = "", "take fewer --strokes"
                if self.invert_mask:
                    inverted, remedy = ", inverted,", "leave --invert-mask out"
                raise InputError(f"--mask {self.mask}{inverted} leaves no pixel known: {remedy}")
            return Mask(masks, count_known(masks))
        found = read_mask(Path(self.mask), shape, self.invert_mask, self.files, digits=digits)
        return Mask(
            found.known.expand(len(numbers), 1, -1, -1),
            f"{found.said}; {count_known(found.known)}".lstrip("; "),
        )


def compute(config: Inpaint, pieces: Pieces) -> Arrays:
    """Return what `sample_and_score` finds, and the observed images, NaN where a pixel is
    unknown.
    """
    model = config.load()
    truth = config.inputs(model)
    known = config.known(truth.numbers, model.image_shape, model.digits)
    mask = say(*known).to(config.device)
    found = sample_and_score(config, pieces, model, Inpainting(truth.images, mask), truth, {})
    return found | {"observed": torch.where(mask, truth.images, torch.nan).cpu().numpy()}


def plot(arrays: Arrays) -> Figure:
    """Draw some samples, the error of the known pixels along sampling, and the scores."""
    return observed.plot(
        arrays,
        {"observed": arrays["observed"]},
        "Known pixels along sampling",
        "RMSE",
    )


STUDY = Study(
    "inpaint",
    Inpaint,
    compute,
    table,
    plot,
    models=Inpaint.models,
    answer=ANSWER,
    variables=VARIABLES,
)

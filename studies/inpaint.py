"""What lies behind a mask? Samples that agree with the known pixels of a digit, beside what the same noise draws freely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from jacobian_lab import InputError
from jacobian_lab.constraint import Inpainting
from jacobian_lab.masks import box, free_form, half, random_pixels
from jacobian_lab.sampler import seed_of
from mnist.data import SHAPE
from studies import observed
from studies.constrained import file_hash, read_gray
from studies.frame import Arrays, Pieces, Study
from studies.observed import Observed, measure, table

MASKS = ("left", "right", "top", "bottom", "box", "free-form", "random")
OF_MASKS = 10**6  # in the seeds of random masks, where those of the noise have the number of the sample


@dataclass(frozen=True)
class Inpaint(Observed):
    """Complete half-known digits. Example: jacobian-lab inpaint --mask left --digits 8."""

    mask: str = "left"
    """What is known: the left, right, top or bottom half; all but a "box"; all but "free-form" strokes; "random" pixels; or
    the path of an image file, 32x32 or 28x28 pixels, white where a pixel is known."""
    side: int = 16
    """Of the box: pixels."""
    strokes: int = 3
    """Of the free-form mask: their number."""
    share: float = 0.08
    """Of the random mask: how many of the pixels are known, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask not in MASKS and not Path(self.mask).is_file():
            raise InputError(f"--mask must be {', '.join(MASKS)}, or the path of an image file: got {self.mask!r}, and no "
                             "such file exists")
        self.known([0])  # a bad mask is refused before anything is computed
        if self.mask not in MASKS:
            self.hashes["mask"] = file_hash(Path(self.mask))

    def known(self, numbers: list[int]) -> Tensor:
        """Return the masks, (N, 1, 32, 32), True where a pixel is known; drawn at random, each digit's own."""
        def mask(seed: int) -> Tensor:
            match self.mask:
                case "left" | "right" | "top" | "bottom":
                    return half(SHAPE, self.mask)
                case "box":
                    return box(SHAPE, self.side)
                case "free-form":
                    return free_form(SHAPE, self.strokes, seed=seed)
                case "random":
                    return random_pixels(SHAPE, self.share, seed)
            return read_mask(Path(self.mask))

        return torch.stack([mask(seed_of(self.seed, number, OF_MASKS)) for number in numbers])


def read_mask(path: Path) -> Tensor:
    """Return the mask of an image file, (1, 32, 32), True where it is white; what pads 28 to 32 pixels is known."""
    white = torch.from_numpy(read_gray(path, "--mask", (SHAPE[1], SHAPE[1] - 4))) > 127
    if not white.any():
        raise InputError(f"the mask {path} is black everywhere, so that no pixel is known: paint the known ones white")
    margin = (SHAPE[1] - len(white)) // 2
    return pad(white, (margin,) * 4, value=True)[None]


def compute(config: Inpaint, pieces: Pieces) -> Arrays:
    """Return what `measure` finds, and the observed digits, NaN where a pixel is unknown."""
    digits = config.load()
    known = config.known(digits.numbers).to(config.device)
    found = measure(config, pieces, Inpainting(digits.images, known), digits.numbers, digits, {})
    return found | {"observed": torch.where(known, digits.images, torch.nan).cpu().numpy()}


def plot(arrays: Arrays) -> Figure:
    """Draw the samples of some digits, the error of the known pixels along sampling, and the scores."""
    return observed.plot(arrays, {"observed": arrays["observed"]}, "Known pixels along sampling", "RMSE of the known pixels")


STUDY = Study("inpaint", Inpaint, compute, table, plot, models=Inpaint.models)

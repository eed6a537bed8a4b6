"""What a study of constrained sampling looks at: held-out digits, or the image file of the user's,
as the model takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import mnist
from jacobian_lab.sampling.sampler import seed_of
from mnist.data import SHAPE
from studies.frame.models import Inputs, Model, check_digits, image_hash, is_latent, say
from studies.frame.options import OnDigits
from studies.frame.pictures import Picture, Shape, read_image
from studies.sampling.constrained import Constrained, in_batches


@dataclass(frozen=True)
class OfDigits(Constrained, OnDigits):
    """Options of a study of held-out digits, or of an image of the user's."""

    digits: int = 24
    """Digits: this many, from `digit` on."""
    image: Path | None = None
    """In their place an image file. For a model of digits white on black, 32x32 or 28x28 pixels;
    what it shows is what the classifier sees in it; transparency is black. Models of other images
    need one, of any size: its middle is scaled to the model's, and transparency is white.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_digits()
        if self.image is not None:
            if not is_latent(self.model):
                # refused before anything is computed; what a pipeline takes it says once it is open
                self.read(SHAPE)
            self.hashes["image"] = image_hash(self.image, "--image")

    def read(self, shape: Shape) -> Picture:
        """Return the user's image for a model of images of this shape."""
        assert self.image is not None
        return read_image(self.image, shape)

    @torch.no_grad()
    def inputs(self, model: Model) -> Inputs:
        """Return the digits, or the image, in the model's space too.

        Raises
        ------
        InputError
            If the model's images are no digits, and no image file is named.
        """
        labels: Tensor | None = None
        if self.image is not None:
            images = say(*self.read(model.image_shape)).to(model.device)
            numbers, names = [self.digit], ["image"]
            if model.image_shape == SHAPE:
                labels = mnist.load_classifier(device=model.device)(images).argmax(1)
        else:
            check_digits(self.model, model)
            numbers = list(range(self.digit, self.digit + self.digits))
            images, labels = (
                x[self.digit : self.digit + self.digits].to(model.device)
                for x in mnist.digits("held-out")
            )
            names = [f"digit {number}" for number in numbers]
        return Inputs(images, in_batches(model.encode, images, model), labels, numbers, names)

    def seeds(self, numbers: Sequence[int]) -> list[int]:
        """Return the seeds of the noise: `samples` for each digit, one digit after the other."""
        return [seed_of(self.seed, number, k) for number in numbers for k in range(self.samples)]

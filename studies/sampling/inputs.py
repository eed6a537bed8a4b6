"""What a study of constrained sampling looks at: held-out digits, or images of the user's, as the
model takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import mnist
from jacobian_lab.sampling.sampler import seed_of
from studies.frame.models import Inputs, Model, check_digits, check_shape
from studies.frame.options import Pictured
from studies.sampling.constrained import Constrained, in_batches


@dataclass(frozen=True)
class OfDigits(Constrained, Pictured):
    """Options of a study of held-out digits, or of images of the user's.

    What these show is what the judge sees in them, if the model is of digits.
    """

    digits: int = 24
    """Digits: this many, from `digit` on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_digits()

    @torch.no_grad()
    def inputs(self, model: Model) -> Inputs:
        """Return the digits, or the user's images, in the model's space too.

        Raises
        ------
        InputError
            If the model's images are no digits, and no images are named; or it makes no images.
        """
        check_shape(self.model, model, "In Python, jacobian_lab.sample takes any shape")
        labels: Tensor | None = None
        if self.images:
            images, names, _ = self.samples_of(model)
            images = images.to(model.device, model.dtype)
            numbers = list(range(self.digit, self.digit + len(images)))
            if model.digits:
                labels = mnist.load_classifier(device=model.device)(images.float()).argmax(1)
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

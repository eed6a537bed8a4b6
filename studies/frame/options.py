"""Options that studies of one model share: which model, how it is prompted, what it looks at."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.decoded import checked
from mnist.data import SHAPE
from mnist.weights import ALIASES
from studies.frame.model_files import LATENT
from studies.frame.models import (
    ORACLE,
    Inputs,
    Model,
    check_digits,
    counts_in_sigma,
    image_hash,
    is_latent,
    open_model,
    say,
)
from studies.frame.pictures import read_image
from studies.frame.study import PIPELINE, Config

TRAINING_TIMES = 1000
"""Times of a discrete schedule; a flow's sigma is a default time divided by it."""


@dataclass(frozen=True)
class OnDigits(Config):
    """Options of a study of noisy held-out digits."""

    digit: int = 0
    """Held-out digit, 0 to 4999; digit i shows the class i % 10."""
    model: str = "mnist"
    """mnist, mnist-flow, the path of a denoiser that you trained, or oracle: ten Gaussians, whose
    J is known in closed form.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.digit < 5000:
            raise InputError(f"--digit {self.digit} is not a held-out digit: expected 0 to 4999")
        fit_times(self, self.model)

    def check_digits(self) -> None:
        """Raise unless there are `digits` held-out digits, an option of many studies, from `digit`
        on.
        """
        count, most = vars(self)["digits"], 5000 - self.digit
        if not 1 <= count <= most:
            raise InputError(f"--digits must lie from 1 to {most}: got {count}")


@dataclass(frozen=True)
class Prompted(Config):
    """Options of a study of a model in pixels or latents."""

    model: str = "mnist"
    """mnist, mnist-flow, oracle or a denoiser's path; of latents mnist-latent, a pipeline's folder
    or its hub id.
    """
    prompt: str = ""
    """Of a latent model: what the image shows, such as "a photo of a seven"."""
    negative_prompt: str = ""
    """Of a latent model: what guidance leads away from."""
    hashes: dict[str, str] = field(init=False, default_factory=dict)
    """SHA-256 of the user's files, found here, so that another content is another run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fit_times(self, self.model)
        if not is_latent(self.model):
            self._refuse_unless_default("prompt", "negative_prompt")

    def _refuse_unless_default(self, *names: str) -> None:
        """Raise if an option of latent models was given to one of pixels, where it would have no
        effect.
        """
        for name in names:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InputError(
                    f"--{name.replace('_', '-')} is for latent models, and --model {self.model}"
                    f" denoises pixels: leave it out, or take --model {LATENT}, a pipeline's folder"
                    " or a hub id"
                )

    def models(self) -> Mapping[str, str]:
        """Return the weights that are used, name -> kind, for the manifest."""
        return model_files(self)


@dataclass(frozen=True)
class Guided(Prompted):
    """Options of a study of one denoiser, guided or not."""

    guidance: float = 1.0
    """Of a latent model: scale of classifier-free guidance, negative + guidance (prompt -
    negative); 1 is off, the prompt's.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_latent(self.model):
            self._refuse_unless_default("guidance")
        if not math.isfinite(self.guidance):
            raise InputError(f"--guidance must be a finite number: got {self.guidance}")
        if self.negative_prompt and self.guidance == 1:
            raise InputError(
                "--negative-prompt has no effect with --guidance 1, which is off: take another"
                " scale, such as 4"
            )
        if self.guidance != 1 and self.prompt.strip() == self.negative_prompt.strip():
            why = (
                "where --negative-prompt is --prompt: change one"
                if self.prompt.strip()
                else "without --prompt: add one"
            )
            raise InputError(f"--guidance {self.guidance:g} has no effect {why}, or leave it out")

    def load(self, device: str | None = None, dtype: torch.dtype = torch.float32) -> Model:
        """Return the model, on `device` in place of the study's if it is given."""
        return open_model(
            self.model,
            device or self.device,
            dtype,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            guidance=self.guidance,
        )


@dataclass(frozen=True)
class OnImages(Prompted, OnDigits):
    """Options of a study of noisy digits or of an image, in pixels or latents."""

    image: Path | None = None
    """An image file in place of digits: for a model of digits white on black, 32x32 or 28x28
    pixels; transparency is black. Models of other images need one, of any size: its middle is
    scaled to the model's, and transparency is white.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image is not None:
            if not is_latent(self.model):
                read_image(self.image, SHAPE)  # refused before anything is computed
            self.hashes["image"] = image_hash(self.image, "--image")

    @torch.no_grad()
    def inputs(self, model: Model, count: int = 1) -> Inputs:
        """Return `count` digits from `digit` on, or the image, on the model's device and in its
        precision.

        Raises
        ------
        InputError
            If the model's images are no digits, and no image file is named.
        """
        if self.image is not None:
            images, labels = say(*read_image(self.image, model.image_shape)), None
            numbers, names = [self.digit], [self.image.name]
        else:
            check_digits(self.model, model)
            numbers = list(range(self.digit, self.digit + count))
            images, labels = (x[self.digit : self.digit + count] for x in mnist.digits("held-out"))
            labels, names = labels.to(model.device), [f"digit {i}" for i in numbers]
        images = images.to(model.device, model.dtype)
        return Inputs(
            images, checked(model.encode(images), images, "encoder"), labels, numbers, names
        )


@dataclass(frozen=True)
class OnModel(OnImages, Guided):
    """Options of a study of one J, guided or not."""


def model_files(config: OnDigits | Prompted) -> Mapping[str, str]:
    """Return the models with weights that a config names, for the manifest."""
    if is_latent(config.model):
        return {config.model: PIPELINE}
    return {} if config.model == ORACLE else {ALIASES.get(config.model, config.model): "denoiser"}


def fit_times(config: Config, model: str) -> None:
    """Divide the default times of a study by 1000 if its model counts in sigma, as flows do.

    A time that was given is taken as it is, also where it is the default's number.
    """
    defaults: dict[str, Any] = {
        name: field.default
        for name, field in type(config).__dataclass_fields__.items()
        if name in ("time", "times", "shown")
    }
    left = {name: value for name, value in defaults.items() if getattr(config, name) is value}
    if left and counts_in_sigma(model):
        for name, value in left.items():
            many = isinstance(value, tuple)
            sigmas = tuple(t / TRAINING_TIMES for t in (value if many else (value,)))
            object.__setattr__(config, name, sigmas if many else sigmas[0])
        print(f"{model} counts in sigma: the default times are divided by 1000", file=sys.stderr)

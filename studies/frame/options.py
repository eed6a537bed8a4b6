"""Options that studies of one model share: which model, how it is prompted, what it looks at."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.decoded import checked
from mnist.data import SHAPE
from mnist.weights import ALIASES
from studies.frame.default_times import fitted_times
from studies.frame.model_files import LATENT
from studies.frame.models import (
    ORACLE,
    Inputs,
    Model,
    check_digits,
    is_latent,
    is_of_digits,
    may_be_of_digits,
    open_model,
    say,
)
from studies.frame.provenance import MADE, PIPELINE
from studies.frame.study import Config
from studies.frame.user_images import Samples, expand, read_samples, samples_hash
from studies.frame.user_models import is_users


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
    or its hub id; your own as FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, a function that returns
    a Denoiser.
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
class Pictured(Prompted, OnDigits):
    """Options of a study of digits, or of images of the user's."""

    images: tuple[Path, ...] = ()
    """Images in place of digits: files, or folders of them; 8 or 16 bits, gray, palette, RGB or
    CMYK. For a model of digits white on black, 32x32 or 28x28 pixels; transparency is black. Models
    of other images need some, of any size: their middle is scaled to the model's, and transparency
    is white. For samples that are no images, .npy arrays.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images:
            count = type(self).__dataclass_fields__.get("digits")
            if count and vars(self)["digits"] != count.default:
                raise InputError(
                    "--digits counts held-out digits, and --images names others: leave one out"
                )
            if is_of_digits(self.model):
                self.check_images()  # refused before anything is computed
            self.hashes["images"] = samples_hash(self.files)

    @property
    def files(self) -> tuple[Path, ...]:
        """The user's files, one by one."""
        return expand(self.images)

    def check_images(self) -> None:
        """Raise unless the user's files are digits."""
        read_samples(self.files, SHAPE, digits=True)

    def samples_of(self, model: Model) -> Samples:
        """Return the user's samples; print what was done to their files."""
        found = read_samples(self.files, model.image_shape, model.digits)
        return found._replace(samples=say(found.samples, found.said))


@dataclass(frozen=True)
class OnImages(Pictured):
    """Options of a study of noisy digits or of images, in pixels or latents."""

    @torch.no_grad()
    def inputs(self, model: Model, count: int = 1) -> Inputs:
        """Return `count` digits from `digit` on, or the user's images, on the model's device and in
        its precision.

        Raises
        ------
        InputError
            If the model's images are no digits, and no images are named; or there are several where
            the study looks at one.
        """
        if self.images:
            images, names, _ = self.samples_of(model)
            labels, numbers = None, list(range(self.digit, self.digit + len(images)))
            if len(images) > 1 and "digits" not in vars(self):
                raise InputError(f"this study looks at one image: --images holds {len(images)}")
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


def place_of(pixel: tuple[int, int] | None, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return row and column of `--pixel` in images of a shape, by default of the middle; raise if
    it lies outside, or there are no images.
    """
    if len(shape) != 3:
        raise InputError(f"this study looks at a pixel, and the model's samples are {shape}")
    _, height, width = shape
    row, column = pixel or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"--pixel {row} {column} is outside the image: expected row and column, 0 to"
            f" {height - 1} and 0 to {width - 1}"
        )
    return row, column


class NamesModel(Protocol):
    """Options that name a model."""

    @property
    def model(self) -> str:
        """As `--model` takes it."""


def model_files(config: NamesModel) -> Mapping[str, str]:
    """Return the models with weights that a config names, for the manifest."""
    if is_users(config.model):
        return {config.model: MADE}
    if is_latent(config.model):
        return {config.model: PIPELINE}
    return {} if config.model == ORACLE else {ALIASES.get(config.model, config.model): "denoiser"}


def judged_files(config: OnDigits | Prompted) -> Mapping[str, str]:
    """Return the models with weights of a study that asks the judge what digits show."""
    judge = {"classifier": "classifier"} if may_be_of_digits(config.model) else {}
    return {**model_files(config), **judge}


def fit_times(config: Config, model: str) -> None:
    """Put the default times of a study on the model's schedule.

    A time that was given is taken as it is, also where it is the default's number.
    """
    defaults: dict[str, Any] = {
        name: field.default
        for name, field in type(config).__dataclass_fields__.items()
        if name in ("time", "times", "shown")
    }
    left = {name: value for name, value in defaults.items() if getattr(config, name) is value}
    found = fitted_times(model) if left else None
    if found is None:
        return
    for name, value in left.items():
        many = isinstance(value, tuple)
        fitted = tuple(dict.fromkeys(found.fit(t) for t in (value if many else (value,))))
        object.__setattr__(config, name, fitted if many else fitted[0])
    print(f"{model} {found.said}", file=sys.stderr)

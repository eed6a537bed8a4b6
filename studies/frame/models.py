"""The models that studies take by name, in pixels or in latents, and what they look at: noisy
digits, or an image file.

    --model    mnist, mnist-flow    denoisers of digits that ship, or the path of your own
               oracle               ten Gaussians fitted to digits, whose J is known in closed form
               mnist-latent         a Stable Diffusion in miniature that ships
               FOLDER, OWNER/NAME   a pipeline of diffusers', or its hub id in the local cache

The difference between pixels and latents ends here: a study takes J where `Model.denoiser` lives,
and shows `Model.decode`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

import mnist
from jacobian_lab import Denoiser, InputError, JacobianOperator
from jacobian_lab.constraints.decoded import checked
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from mnist.weights import ALIASES, SHIPPED
from studies.frame.image_files import size_of
from studies.frame.model_files import LATENT, file_hash, pipeline_folder
from studies.frame.pictures import Shape, read_image
from studies.frame.study import PIPELINE, Config

ORACLE = "oracle"
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
DENSE = 1024
"""Largest n for which the dense J, n x n, is taken as the truth."""


def _same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Model:
    """A denoiser, and the ways from images into its space and back."""

    denoiser: Denoiser
    image_shape: Shape
    """(c, H, W)."""
    device: str
    dtype: torch.dtype
    space: Literal["pixels", "latent"] = "pixels"
    encode: Callable[[Tensor], Tensor] = _same
    """(B, c, H, W) in [-1, 1] -> (B, C, h, w), of the denoiser's shape."""
    decode: Callable[[Tensor], Tensor] = _same
    """(B, C, h, w) -> (B, c, H, W), not clamped."""

    @property
    def size(self) -> int:
        """The size n of J."""
        return math.prod(self.denoiser.shape)

    @property
    def is_dense(self) -> bool:
        """Whether J is small enough for its dense truth."""
        return self.size <= DENSE


class Inputs(NamedTuple):
    """What a study looks at: N clean images."""

    images: Tensor
    """(N, c, H, W) in [-1, 1]."""
    clean: Tensor
    """(N, C, h, w), the same in the model's space."""
    labels: Tensor | None
    """(N,), what digits show; of an image file it is not known."""
    numbers: list[int]
    """They seed the noise."""
    names: list[str]


def is_latent(name: str) -> bool:
    """Return whether a model's name is that of a pipeline: a denoiser of digits with a card goes
    first.
    """
    card = (Path(name) if "/" in name else SHIPPED / name).with_suffix(".json")
    if name in ALIASES or name == ORACLE or card.is_file():
        return False
    return name == LATENT or Path(name).is_dir() or HUB_ID.fullmatch(name) is not None


def load_model(name: str, device: str, dtype: torch.dtype = torch.float32) -> Denoiser:
    """Return a denoiser of digits in pixels, by its name, path, or "oracle"."""
    if is_latent(name):
        raise InputError(
            f"--model {name} denoises latents, and here pixels are wanted: take mnist, mnist-flow,"
            " oracle, or the path of a denoiser that you trained, without ending"
        )
    return (
        load_oracle(device, dtype) if name == ORACLE else mnist.load_denoiser(name, device, dtype)
    )


def open_model(
    name: str,
    device: str,
    dtype: torch.dtype = torch.float32,
    *,
    prompt: str = "",
    negative_prompt: str = "",
    guidance: float = 1.0,
) -> Model:
    """Return a model of either space by its name; prompts and guidance are for latent ones, as in
    `load_latent`.
    """
    if not is_latent(name):
        denoiser = load_model(name, device, dtype)
        return Model(denoiser, denoiser.shape, device, dtype)
    from jacobian_lab.diffusion.latent import load_latent

    latent = load_latent(
        pipeline_folder(name),
        prompt=prompt,
        negative_prompt=negative_prompt,
        guidance=guidance,
        device=device,
        dtype=dtype,
    )
    return Model(
        latent.denoiser, latent.image_shape, device, dtype, "latent", latent.encode, latent.decode
    )


@dataclass(frozen=True)
class OnDigits(Config):
    """Options of a study of noisy held-out digits."""

    digit: int = 0
    """Held-out digit, 0 to 4999; digit i shows the class i % 10."""
    model: str = "denoiser"
    """Denoiser that ships, the path of one that you trained, or "oracle": ten Gaussians, whose J is
    known in closed form.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.digit < 5000:
            raise InputError(f"--digit {self.digit} is not a held-out digit: expected 0 to 4999")


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


def check_digits(name: str, model: Model) -> None:
    """Raise unless a model, called so by the user, is of digits."""
    if model.image_shape != SHAPE:
        wanted, digits = ("x".join(map(str, shape)) for shape in (model.image_shape, SHAPE))
        raise InputError(
            f"--model {name} takes images of {wanted} (channels, height, width), digits are"
            f" {digits}: name an image with --image FILE, of any size"
        )


def image_hash(path: Path, option: str) -> str:
    """Return the SHA-256 of an image file that the user named, or raise if it is none; its pixels
    are not decoded.
    """
    size_of(path, option)
    return file_hash(path)


def say(value: Tensor, line: str) -> Tensor:
    """Print what an input needed or is, if there is anything to say; return the input."""
    if line:
        print(line, file=sys.stderr)
    return value


def operator_at(
    denoiser: Denoiser, clean: Tensor, number: int, t: int | float, seed: int
) -> JacobianOperator:
    """Return J at one noisy sample of clean, (C, h, w), in its precision; the noise depends on
    number and seed, not on t.
    """
    return JacobianOperator(denoiser, noisy_digit(denoiser, clean, t, seed, number), t)

"""The models that studies take by name, in pixels or in latents.

    --model    mnist, mnist-flow    denoisers of digits that ship, or the path of your own
               oracle               ten Gaussians fitted to digits, whose J is known in closed form
               mnist-latent         a Stable Diffusion in miniature that ships
               FOLDER, OWNER/NAME   a pipeline of diffusers', or its hub id in the local cache
               FILE.py:FUNCTION     a function of yours that makes one; see `user_models`

The difference between pixels and latents ends here: a study takes J where `Model.denoiser` lives,
and shows `Model.decode`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from pickle import PicklingError
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import mnist
from jacobian_lab import (
    Denoiser,
    InputError,
    JacobianOperator,
    load,
)
from jacobian_lab._checksums import file_hash
from jacobian_lab.diffusion.other_conventions import time_of_ratio
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from mnist.weights import ALIASES, weights_file
from studies.frame.errands import MODELS, check_models
from studies.frame.image_files import size_of
from studies.frame.model_files import LATENT, is_gray, pipeline_folder
from studies.frame.pictures import Shape
from studies.frame.user_models import (
    GIVEN,
    denoiser_of,
    dtype_of,
    first,
    is_users,
    make,
    modules_of,
    weights_hash,
)

ORACLE = "oracle"
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
DENSE = 1024
"""Largest n for which the dense J, n x n, is taken as the truth."""


def _same(x: Tensor) -> Tensor:
    return x


class Source(NamedTuple):
    """How a model is opened: the arguments of `open_model`."""

    name: str
    device: str
    dtype: torch.dtype
    prompt: str = ""
    negative_prompt: str = ""
    guidance: float = 1.0


@dataclass(frozen=True)
class Model:
    """A denoiser, and the ways from images into its space and back."""

    denoiser: Denoiser
    image_shape: Shape
    """(c, H, W); of a model of no images the shape of a sample."""
    device: str
    dtype: torch.dtype
    space: Literal["pixels", "latent"] = "pixels"
    encode: Callable[[Tensor], Tensor] = _same
    """(B, c, H, W) in [-1, 1] -> (B, C, h, w), of the denoiser's shape."""
    decode: Callable[[Tensor], Tensor] = _same
    """(B, C, h, w) -> (B, c, H, W), not clamped."""
    digits: bool = False
    """Whether its images are digits, 1x32x32 and white on black, which the judge can name."""
    source: Source | None = None
    """How it was opened: it pickles as that, without its weights."""

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source is None or self.source.name in GIVEN:
            raise PicklingError(
                "a model that was handed over in Python is known to this process only: give it as"
                " FILE.py:FUNCTION, a function that makes it"
            )
        return reopened, (self.source,)

    def opened(self, device: str, dtype: torch.dtype) -> Model:
        """Return the same model on a device in a precision."""
        assert self.source is not None
        return open_source(self.source._replace(device=device, dtype=dtype))

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
    card = weights_file(name, ".json")
    if name in ALIASES or name == ORACLE or card.is_file() or is_users(name):
        return False
    return name == LATENT or Path(name).is_dir() or HUB_ID.fullmatch(name) is not None


def is_of_digits(name: str) -> bool:
    """Return whether a name is that of a denoiser of digits in pixels: what is no pipeline, and no
    function of the user's.
    """
    return not is_latent(name) and not is_users(name)


def may_be_of_digits(name: str) -> bool:
    """Return whether the judge may be asked: of a pipeline, its autoencoder's gray tells."""
    if is_users(name):
        return bool(getattr(first(name), "digits", False))
    return is_gray(name) if is_latent(name) else True


def load_model(name: str, device: str, dtype: torch.dtype = torch.float32) -> Denoiser:
    """Return a denoiser of digits in pixels, by its name, path, or "oracle"."""
    if not is_of_digits(name):
        raise InputError(
            f"--model {name} is no denoiser of digits in pixels, which this study needs: take"
            " mnist, mnist-flow, oracle, or the path of a denoiser that you trained, without ending"
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
    """Return a model of either space by its name; prompts and guidance are for pipelines that take
    them, as in `jacobian_lab.load`.
    """
    return open_source(Source(name, device, dtype, prompt, negative_prompt, guidance))


def open_source(source: Source) -> Model:
    """Return the model of a source."""
    name, device, dtype, *_ = source
    if is_users(name):
        found = users_model(name, device, dtype)
    elif is_latent(name):
        found = pipeline_model(source)
    else:
        denoiser = load_model(name, device, dtype)
        found = Model(denoiser, denoiser.shape, device, dtype, digits=True)
    return replace(found, source=source)


def reopened(source: Source) -> Model:
    """Return the model as which a pickled one arrives in a process, which opens it once."""
    return _reopened(source, MODELS.get())


@lru_cache(maxsize=4)
def _reopened(source: Source, models: str) -> Model:
    found = open_source(source)
    if models:
        check_models(models)  # it may have been changed since the worker looked
    return found


def pipeline_model(source: Source) -> Model:
    """Return a pipeline of diffusers' as a model."""
    name, device, dtype, *words = source
    said = dict(zip(("prompt", "negative_prompt", "guidance"), words, strict=True))
    given: dict[str, Any] = {key: value for key, value in said.items() if value not in ("", 1)}
    made = load(pipeline_folder(name), device=device, dtype=dtype, **given)
    if isinstance(made, Denoiser):
        return Model(made, made.shape, device, dtype)
    digits = made.image_shape == SHAPE
    return Model(
        made.denoiser, made.image_shape, device, dtype, "latent", made.encode, made.decode, digits
    )


def users_model(name: str, device: str, dtype: torch.dtype) -> Model:
    """Return a user's model: as it was made, or in float64 if that is asked."""
    made = make(name)
    if weights_hash(modules_of(made)) != weights_hash(modules_of(first(name))):
        raise InputError(
            f"--model {name} makes other weights at each call: load them, or set the seed in it"
        )
    denoiser = denoiser_of(made)
    dtype = dtype if dtype == torch.float64 else dtype_of(denoiser)
    digits = bool(getattr(made, "digits", False))
    for part in modules_of(made):
        part.to(device, dtype)
    check_precision(name, denoiser, device, dtype)
    if isinstance(made, Denoiser):
        return Model(denoiser, denoiser.shape, device, dtype, digits=digits)
    shape = tuple(made.image_shape)
    return Model(denoiser, shape, device, dtype, "latent", made.encode, made.decode, digits)


@torch.no_grad()
def check_precision(name: str, denoiser: Denoiser, device: str, dtype: torch.dtype) -> None:
    """Raise unless a user's network runs on a device in a precision: what it keeps outside of its
    weights stays behind.
    """
    t = time_of_ratio(denoiser.schedule, 1.0) or denoiser.schedule.times(1)[0]
    try:
        denoiser.output(torch.zeros(1, *denoiser.shape, device=device, dtype=dtype), t)
    except (RuntimeError, InputError) as error:
        raise InputError(
            f"--model {name} does not run on {device} in {dtype} ({str(error).splitlines()[0]}):"
            " make the network a torch.nn.Module that holds all its weights, so that"
            " denoiser.to(device, dtype) reaches them"
        ) from error


def check_shape(name: str, model: Model, remedy: str) -> None:
    """Raise unless a model's samples are images, or latents of images."""
    if len(model.image_shape) != 3:
        raise InputError(
            f"--model {name} is of samples of shape {model.image_shape}: this study is of images,"
            f" (C, H, W). {remedy}"
        )


def check_digits(name: str, model: Model) -> None:
    """Raise unless a model, called so by the user, is of digits."""
    if not model.digits:
        shape = "x".join(map(str, model.image_shape))
        raise InputError(
            f"--model {name} is not of our digits, but of samples of {shape}: name yours with"
            " --images FILE ... or a folder: images of any size, or .npy arrays of the shape"
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

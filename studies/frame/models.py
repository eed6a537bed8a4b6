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

import json
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import mnist
from jacobian_lab import (
    ContinuousSchedule,
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    Schedule,
    VarianceExploding,
    load,
)
from jacobian_lab._checksums import file_hash
from jacobian_lab.diffusion.adapters.pipelines import INSTAFLOW, PIXELS
from jacobian_lab.diffusion.other_conventions import time_of_ratio
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from mnist.weights import ALIASES, SHIPPED, read_card
from studies.frame.image_files import size_of
from studies.frame.model_files import LATENT, is_gray, pipeline_folder
from studies.frame.pictures import Shape
from studies.frame.user_models import denoiser_of, dtype_of, first, is_users, make

ORACLE = "oracle"
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
TRAINING_TIMES = 1000
"""Times of most discrete schedules, and of the default times of studies."""
DENSE = 1024
"""Largest n for which the dense J, n x n, is taken as the truth."""


def _same(x: Tensor) -> Tensor:
    return x


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
    if is_users(name):
        return users_model(name, device, dtype)
    if not is_latent(name):
        denoiser = load_model(name, device, dtype)
        return Model(denoiser, denoiser.shape, device, dtype, digits=True)
    said = {"prompt": prompt, "negative_prompt": negative_prompt, "guidance": guidance}
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
    denoiser = denoiser_of(made)
    dtype = dtype if dtype == torch.float64 else dtype_of(denoiser)
    digits = bool(getattr(made, "digits", False))
    if isinstance(made, Denoiser):
        denoiser.to(device, dtype)
        check_precision(name, denoiser, device, dtype)
        return Model(denoiser, denoiser.shape, device, dtype, digits=digits)
    for part in (*vars(made).values(), denoiser):
        if isinstance(part, torch.nn.Module):
            part.to(device, dtype)
    check_precision(name, denoiser, device, dtype)
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


class Fit(NamedTuple):
    """How the default times, 0 to 999, become those of a model's schedule."""

    fit: Callable[[int | float], int | float]
    said: str


DIVIDED = Fit(
    lambda t: t / TRAINING_TIMES, "counts in sigma: the default times are divided by 1000"
)


def fitted_times(name: str) -> Fit | None:
    """Return how the default times become a model's, told by its files; None if they are its own.

    What is missing or broken is refused when the model is opened.
    """
    if name == ORACLE:
        return None
    if is_users(name):
        return fit_to(denoiser_of(first(name)).schedule)
    if not is_latent(name):
        return DIVIDED if read_card(name, "denoiser")["prediction"] == "flow" else None
    with suppress(OSError, ValueError, KeyError, TypeError):
        folder = pipeline_folder(name)
        pipeline, scheduler = (
            json.loads((folder / place).read_text())["_class_name"]
            for place in ("model_index.json", "scheduler/scheduler_config.json")
        )
        if pipeline in PIXELS:
            return fit_to(pixel_schedule(folder))
        if pipeline in INSTAFLOW or scheduler.startswith("FlowMatch"):
            return DIVIDED
    return None


@cache
def pixel_schedule(folder: Path) -> Schedule:
    """Return the schedule of a pipeline of pixels, which is read once it is opened."""
    made = load(folder)
    return (made if isinstance(made, Denoiser) else made.denoiser).schedule


def fit_to(schedule: Schedule) -> Fit | None:
    """Return how the default times become those of a schedule.

    Where the time is sigma, it is that of DDPM's linear schedule, `sigma_t / alpha_t`, at the
    default time; elsewhere the same share of the schedule.
    """
    if isinstance(schedule, VarianceExploding):
        last, linear = schedule.last, DiscreteSchedule.linear()

        def ratio(t: int | float) -> float:
            alpha_t, sigma_t = linear(int(t))
            return min(last, float(f"{float(sigma_t / alpha_t):.3g}"))

        return Fit(ratio, "counts in sigma: the default times are those of equal noise on DDPM's")
    if isinstance(schedule, ContinuousSchedule):
        end = schedule.last
        return Fit(
            lambda t: t / TRAINING_TIMES * end,
            f"counts from 0 to {end:g}: the default times are scaled to it",
        )
    if isinstance(schedule, DiscreteSchedule) and schedule.steps != TRAINING_TIMES:
        steps = schedule.steps
        return Fit(
            lambda t: min(steps - 1, round(t / TRAINING_TIMES * steps)),
            f"has {steps} times: the default times are scaled to it",
        )
    return None


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

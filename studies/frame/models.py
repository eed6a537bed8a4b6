"""The models that studies take by name, in pixels or in latents.

    --model    mnist, mnist-flow    denoisers of digits that ship, or the path of your own
               oracle               ten Gaussians fitted to digits, whose J is known in closed form
               mnist-latent         a Stable Diffusion in miniature that ships
               FOLDER, OWNER/NAME   a pipeline of diffusers', or its hub id in the local cache

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
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

import mnist
from jacobian_lab import Denoiser, InputError, JacobianOperator
from jacobian_lab._checksums import file_hash
from jacobian_lab.diffusion.adapters.pipelines import INSTAFLOW
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from mnist.weights import ALIASES, SHIPPED, read_card
from studies.frame.image_files import size_of
from studies.frame.model_files import LATENT, pipeline_folder
from studies.frame.pictures import Shape

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
    from jacobian_lab import load_latent

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


def counts_in_sigma(name: str) -> bool:
    """Return whether the times of a model are sigma in (0, 1], as a flow's are; told by its files.

    What is missing or broken is refused when the model is opened.
    """
    if name == ORACLE:
        return False
    if not is_latent(name):
        return bool(read_card(name, "denoiser")["prediction"] == "flow")
    with suppress(OSError, ValueError, KeyError, TypeError):
        folder = pipeline_folder(name)
        pipeline, scheduler = (
            json.loads((folder / place).read_text())["_class_name"]
            for place in ("model_index.json", "scheduler/scheduler_config.json")
        )
        return pipeline in INSTAFLOW or scheduler.startswith("FlowMatch")
    return False


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

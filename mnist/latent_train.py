"""What the two training runs of the latent model minimise: the autoencoder's, then that of text
encoder and U-Net.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from jacobian_lab import Denoiser, DiscreteSchedule
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
from mnist.weights import Card, load_classifier, load_weights, read_card

FEATURES = (3, 6)
"""Layers of the classifier whose outputs are compared: the ends of its first two blocks."""


def latent_task(recipe: Recipe) -> Task:
    """Return what one of the two recipes trains."""
    if isinstance(recipe, AutoencoderRecipe):
        return _autoencoder(recipe)
    assert isinstance(recipe, LatentRecipe)
    return _latent(recipe)


def _autoencoder(recipe: AutoencoderRecipe) -> Task:
    def finish(network: nn.Module, _path: Path) -> Card:
        return {"scores": {"held_out_psnr": reconstruction_psnr(network)}}

    architecture = AUTOENCODER | {"block_out_channels": list(recipe.channels)}
    return Task(
        build_autoencoder(architecture),
        autoencoder_loss(recipe),
        {
            "kind": recipe.kind,
            "architecture": architecture,
            "loss": (
                f"mean squared error + {recipe.perceptual} of the classifier's features +"
                f" {recipe.divergence} KL a latent"
            ),
        },
        finish=finish,
    )


def autoencoder_loss(recipe: AutoencoderRecipe) -> Loss:
    """Return the squared error of pixels and of the classifier's features, and the divergence of
    the latents' Gaussians.
    """
    body = load_classifier(device=recipe.device).body
    blocks = [body[first:last] for first, last in zip((0, *FEATURES), FEATURES, strict=False)]

    def features(images: Tensor) -> list[Tensor]:
        found = []
        for block in blocks:
            images = block(images)
            found.append(images)
        return found

    def loss(network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
        mean, log_variance = network.encode(images).latent_dist.parameters.float().chunk(2, 1)  # type: ignore[operator]
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape).to(mean)
        drawn = network.decode(latents).sample  # type: ignore[operator]
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        perceptual = torch.stack(
            [
                F.mse_loss(a.float(), b.float())
                for a, b in zip(features(drawn), features(images), strict=True)
            ]
        ).mean()
        return (
            F.mse_loss(drawn.float(), images)
            + recipe.perceptual * perceptual
            + recipe.divergence * divergence
        )

    return loss


@torch.no_grad()
def reconstruction_psnr(autoencoder: nn.Module, batch_size: int = 500) -> float:
    """Return the mean peak signal-to-noise ratio, in dB, of the held-out digits behind encoder and
    decoder.
    """
    images, _ = digits("held-out")
    errors = [
        (
            autoencoder.decode(autoencoder.encode(part).latent_dist.mode()).sample.clamp(  # type: ignore[operator]
                -1, 1
            )
            - part
        )
        .square()
        .flatten(1)
        .mean(1)
        for part in images.split(batch_size)  # type: ignore[no-untyped-call]
    ]
    return float((10 * torch.log10(4 / torch.cat(errors))).mean())


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

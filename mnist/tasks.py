"""What is trained, and what it minimises: the tasks of the denoiser and of the classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, Schedule, linearise
from mnist.classifier import Classifier, accuracy
from mnist.data import digits
from mnist.recipe import ClassifierRecipe, DenoiserRecipe
from mnist.weights import Card, build_denoiser, load_weights, read_card

Loss: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]

SKEW_EVERY = 4
"""Of so many samples of a batch one has its products with J and J^T taken, which cost more than the
rest of the step.
"""


@dataclasses.dataclass
class Task:
    """What is trained, and how."""

    network: nn.Module
    loss: Loss
    card: Card
    """What the model's card says of both."""
    inputs: Callable[[Tensor], Tensor] = lambda images: images
    """Turns the digits into what the loss takes; once, before the first step."""
    finish: Callable[[nn.Module, Path], Card] = lambda _network, _path: {}
    """Called with the trained network and the path of its weights before they are written; what it
    returns joins the card.
    """


def denoiser_task(recipe: DenoiserRecipe) -> Task:
    """Return what trains a denoiser: the raw output at all noise levels."""
    flow = recipe.prediction == "flow"
    architecture = {"channels": list(recipe.channels)} | ({"time_scale": 1000.0} if flow else {})
    denoiser = build_denoiser(architecture, recipe.prediction)
    card: Card = {
        "kind": recipe.kind,
        "architecture": architecture,
        "prediction": recipe.prediction,
        "schedule": "rectified flow" if flow else "linear DDPM, T = 1000",
        "loss": "mean squared error of the raw output, times uniform",
    }
    if recipe.symmetry:
        card["loss"] += f", and {recipe.symmetry:g} |(F' - F'^T) v|^2 / n of it"
    if recipe.start:
        card["start"] = before = read_card(recipe.start, recipe.kind)
        asked, known = (
            {key: of[key] for key in ("architecture", "prediction")} for of in (card, before)
        )
        if asked != known:
            raise InputError(f"--start {recipe.start} holds {known}: {asked} is to be trained")
        load_weights(recipe.start, before, denoiser.network)  # type: ignore[arg-type]
    return Task(denoiser.network, denoising_loss(denoiser, recipe.symmetry), card)  # type: ignore[arg-type]


def classifier_task(recipe: ClassifierRecipe) -> Task:
    """Return what trains the classifier."""

    def finish(network: nn.Module, _path: Path) -> Card:
        assert isinstance(network, Classifier)
        return {"scores": {"test_accuracy": accuracy(network, *digits("test", recipe.data_folder))}}

    architecture = {"width": recipe.width}
    return Task(
        Classifier(**architecture),
        classification_loss,
        {"kind": recipe.kind, "architecture": architecture},
        finish=finish,
    )


def denoising_loss(denoiser: Denoiser, symmetry: float = 0.0) -> Loss:
    """Return the mean squared error of the raw output at stratified uniform times: each batch
    covers all noise levels.

    Parameters
    ----------
    denoiser : Denoiser
    symmetry : float
        Weight of `|(F' - F'^T) v|^2 / n` of the raw output F, at some samples of the batch.
    """
    schedule = denoiser.schedule

    def loss(network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
        t = stratified_times(schedule, len(images))
        noise = torch.randn(images.shape).to(images.device)
        x_t, t = schedule.add_noise(images, t, noise), t.to(images.device)
        error = F.mse_loss(network(x_t, t).float(), denoiser.raw(images, x_t, t))
        if not symmetry:
            return error
        some = slice(None, None, SKEW_EVERY)
        with torch.autocast(images.device.type, enabled=False):
            skew = skew_product(lambda x: network(x, t[some]), x_t[some])
        return error + symmetry * skew.square().mean()

    return loss


def skew_product(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return (J - J^T) v at each sample for v of unit variance, with a graph of the weights."""
    linear, v = linearise(function, x, check=False), torch.randn_like(x)
    return linear.jvp(v) - linear.vjp(v)


def stratified_times(schedule: Schedule, batch: int) -> Tensor:
    """Return random times, (batch,), one in each of as many equal parts of the schedule."""
    spread = torch.arange(batch) + torch.rand(batch)  # in [0, batch]: 127.99... rounds up
    if not isinstance(schedule, DiscreteSchedule):
        return (spread / batch).clamp(1e-3, 1)
    return (spread * (schedule.steps / batch)).long().clamp(max=schedule.steps - 1)


def classification_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of digits that are shifted, turned, scaled and sheared at random.

    Parameters
    ----------
    network : nn.Module
    images : Tensor, shape (B, 1, 32, 32)
        In [-1, 1].
    labels : Tensor, shape (B,)
        Smoothed by 0.1.
    """
    augment = v2.RandomAffine(
        degrees=12,
        translate=(0.08, 0.08),
        scale=(0.88, 1.12),
        shear=8,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=-1.0,
    )
    images = torch.stack([augment(image) for image in images])
    return F.cross_entropy(network(images).float(), labels, label_smoothing=0.1)

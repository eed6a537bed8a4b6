"""How the observer of the limits is trained: on training digits, in all tasks at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab.sampling.sampler import seed_of
from mnist.observer import Observer, known
from mnist.problems import TASKS, observation_image
from mnist.recipe import LimitsRecipe
from mnist.tasks import Task
from mnist.weights import Card, load_weights, read_card

WEIGHT = 10.0
"""Of the mean squared error, about 0.05, beside the cross-entropy, about 0.3."""


def limits_task(recipe: LimitsRecipe) -> Task:
    """Return what trains the observer, from the start or further."""
    architecture = {"channels": list(recipe.channels), "tasks": list(TASKS)}
    observer = Observer(**architecture)  # type: ignore[arg-type]
    card: Card = {
        "kind": recipe.kind,
        "architecture": architecture,
        "loss": f"cross-entropy of the digit + {WEIGHT:g} mean squared error of the image",
    }
    if recipe.start:
        before = read_card(recipe.start, recipe.kind)
        load_weights(recipe.start, before, observer)
        card["start"] = before
    return Task(observer, observing_loss, card)


def observing_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return cross-entropy and squared error of digits observed in all tasks, an equal share of the
    batch in each.

    Parameters
    ----------
    network : nn.Module
        An `Observer`.
    images : Tensor, shape (B, 1, 32, 32)
    labels : Tensor, shape (B,)
    """
    first = int(torch.randint(2**62, ()))
    seen, masks, numbers = [], [], []
    parts = torch.arange(len(images)).tensor_split(len(TASKS))
    # observations are exact, whatever the network's precision
    with torch.autocast(images.device.type, enabled=False):
        for number, (observe, indices) in enumerate(zip(TASKS.values(), parts, strict=True)):
            if len(indices):
                wanted = observe(images[indices], [seed_of(first, int(i)) for i in indices])
                seen.append(observation_image(wanted))
                masks.append(known(wanted, seen[-1]))
                numbers += [number] * len(indices)
    found = network(torch.cat(seen), torch.cat(masks), torch.tensor(numbers, device=images.device))
    error = F.mse_loss(found.images.float(), images)
    return F.cross_entropy(found.logits.float(), labels) + WEIGHT * error

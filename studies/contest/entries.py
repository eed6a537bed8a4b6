"""The runs of the contest: a method on a task with some parameters and steps, and what its images
are worth.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

import mnist
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.sampler import seed_of
from mnist.data import digits
from mnist.problems import Problem, problem
from studies.contest.peers import CountedDenoiser, Peer
from studies.contest.rules import Contest
from studies.contest.tracks import contestants, images_of, posed, track
from studies.frame.models import Model, is_latent
from studies.frame.processes import status
from studies.frame.statistics import scores
from studies.frame.study import Arrays

FIRST, OTHERS = 2000, 1000  # held-out digits of the contest, and of the search
BATCH = 50
ENDS: dict[str, set[float]] = {
    "eta": {0, 1},
    "etab": {0, 1},
    "per_error": {0, 1},
    "power": {0},
    **{name: {1} for name in ("iterations", "particles", "newton_steps", "krylov_steps")},
    **{name: {1} for name in ("draws", "inner", "admm", "descent", "ode")},
}
"""Ends of what parameters can be."""


@dataclass(frozen=True)
class Entry:
    """A run of the contest: a method on a task with some parameters and steps."""

    task: str
    method: str
    setting: str
    """"authors" or "searched"."""
    parameters: dict[str, float]
    steps: int

    def peer(self, model: str) -> Peer:
        """Return the method, on the track of a model."""
        return next(peer for peer in contestants(model) if peer.name == self.method)


def execute(entry: Entry, config: Contest, first: int, count: int, seed: int) -> Arrays:
    """Run an entry on some digits; return images, scores and passes; a digit that diverges has
    NaN for them. Where y has no noise, every method's images are projected onto it, which costs no
    pass; the residual is of what the method itself returned.
    """
    model = track(config.model, config.device)
    judge = mnist.load_classifier(device=config.device)
    wanted, images, labels = problem(entry.task, first, count, config.seed, config.device)
    counted, started = CountedDenoiser(model.denoiser, count), time.perf_counter()
    run = entry.peer(config.model)
    drawn, passes = run_in_batches(run, entry, counted, model, wanted, first, seed), counted.passes
    failed = ~drawn.flatten(1).isfinite().all(1)
    drawn = torch.where(failed.reshape(-1, 1, 1, 1), 0, drawn)
    residual = wanted.residual(drawn).detach().cpu().numpy()
    if exact(wanted) and not is_latent(config.model):
        drawn = wanted.project(drawn)
    values = scores(drawn, images, labels, judge) | {"residual": residual}
    with torch.no_grad():
        features = judge.features(drawn.clamp(-1, 1)).cpu().numpy()
    return {key: np.where(failed.cpu().numpy(), np.nan, value) for key, value in values.items()} | {
        "images": drawn.clamp(-1, 1).cpu().numpy().astype(np.float16),
        "features": features.astype(np.float32),
        "passes": np.array([passes.forward, passes.jvp, passes.vjp]),
        "seconds": np.array(time.perf_counter() - started),
    }


def exact(wanted: Problem) -> TypeGuard[LinearConstraint]:
    """Return whether a problem is linear, without noise."""
    return isinstance(wanted, LinearConstraint) and not wanted.sigma and not wanted.damping


def run_in_batches(
    peer: Peer,
    entry: Entry,
    denoiser: CountedDenoiser,
    model: Model,
    wanted: Problem,
    first: int,
    seed: int,
) -> Tensor:
    """Return an image for each observation; NaN where a run diverges."""
    count, found = len(wanted.y), []
    for at in range(0, count, BATCH):
        part = slice(at, min(at + BATCH, count))
        seeds = [seed_of(seed, 7, first + i) for i in range(part.start, part.stop)]
        some = posed(wanted.select(part), model)
        try:
            drawn = peer.run(denoiser, some, seeds, entry.steps, **entry.parameters)
            found.append(images_of(drawn, model))
        except DivergenceError:  # all of them
            shape = (len(seeds), *model.image_shape)
            found.append(torch.full(shape, torch.nan, device=wanted.y.device))
    return torch.cat(found)


def twice(entry: Entry, config: Contest) -> Arrays:
    """Return an entry's run of the contest; the diversity of its samples, by a second run of other
    seeds; and their distance from the true digits, with its deviation.
    """
    first = execute(entry, config, FIRST, config.digits, config.seed)
    second = execute(entry, config, FIRST, config.again, config.seed + 1)
    spread = first["images"][: config.again].astype(np.float32) - second["images"]
    fine = np.isfinite(first["residual"])
    both = fine[: config.again] & np.isfinite(second["residual"])
    features = first.pop("features")[fine]
    truth = true_features(config.digits, config.device)
    distance = kernel_distance(features, truth) if len(features) > 1 else (np.nan, np.nan)
    return first | {
        "diversity": np.where(both, np.sqrt(np.square(spread).mean((1, 2, 3)) / 2), np.nan),
        "kernel_distance": np.array(distance),
    }


@torch.no_grad()
def true_features(count: int, device: str) -> Any:
    """Return the judge's features of the contest's digits, (count, k)."""
    images = digits("held-out")[0][FIRST : FIRST + count].to(device)
    return mnist.load_classifier(device=device).features(images).cpu().numpy()


def at_edge(peer: Peer, parameters: dict[str, float]) -> str:
    """Return the parameters whose best value is the first or the last of those that were searched,
    and no end of what they can be: a wider search might find a better one.
    """
    found = []
    for name, grid in peer.search.items():
        best, ends = parameters[name], {min(grid), max(grid)} - ENDS.get(name, set())
        if len(grid) > 1 and best in ends:
            found.append(name)
    return ", ".join(found)


def clock(task: str, method: str, model: str, device: str) -> tuple[float, float]:
    """Return milliseconds per evaluation and digit (the better of two runs of 6 steps) and peak
    memory in MB, in a process that does nothing else.
    """
    peer = next(peer for peer in contestants(model) if peer.name == method)
    entry = Entry(task, method, "authors", dict(peer.defaults), 6)
    config = Contest(model=model, device=device)
    found = [execute(entry, config, OTHERS, BATCH, seed) for seed in (0, 1)]
    taken = min(float(run["seconds"] / run["passes"].sum()) for run in found) / BATCH
    return 1000 * taken, status("VmHWM") / 1024


class _Kept(torch.nn.Module):
    """Features that are there already, as torchmetrics wants them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        """Return them."""
        return features


def kernel_distance(features: Any, reference: Any) -> tuple[float, float]:
    """Return the kernel distance of two sets of features, (N, k), and its deviation over 100
    subsets of half of them.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings(
            "ignore", "Metric `Kernel Inception Distance` will save all extracted features"
        )
        torch.default_generator.manual_seed(0)
        from torchmetrics.image.kid import KernelInceptionDistance  # takes seconds to import

        metric = KernelInceptionDistance(
            feature=_Kept(features.shape[1]), subsets=100, subset_size=max(2, len(features) // 2)
        )
        metric.update(torch.from_numpy(reference), real=True)
        metric.update(torch.from_numpy(features), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)

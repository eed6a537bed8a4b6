"""The runs of the contest: a method on a task with some parameters and steps, what its images are
worth, and the search for the parameters.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mnist
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.sampler import seed_of
from mnist.data import digits
from mnist.problems import Problem, problem
from studies.contest.peers import CountedDenoiser, Peer
from studies.contest.rules import Contest
from studies.contest.tracks import contestants, images_of, posed, track
from studies.frame.models import Model
from studies.frame.processes import status
from studies.frame.statistics import scores
from studies.frame.study import Arrays

FIRST, OTHERS = 2000, 1000  # held-out digits of the contest, and of the search
STEPS = 4
"""Of the shorter of the two runs that tell what a step costs."""
FEWEST, PRICED = 2, 10
"""Digits of these runs, if each of twice as many costs the same, and if not."""
BATCH = 50


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
    NaN for them.
    """
    model = track(config.model, config.device)
    judge = mnist.load_classifier(device=config.device)
    wanted, images, labels = problem(entry.task, first, count, config.seed, config.device)
    counted, started = CountedDenoiser(model.denoiser, count), time.perf_counter()
    run = entry.peer(config.model)
    drawn, passes = run_in_batches(run, entry, counted, model, wanted, first, seed), counted.passes
    failed = ~drawn.flatten(1).isfinite().all(1)
    drawn = torch.where(failed.reshape(-1, 1, 1, 1), 0, drawn)
    values = scores(drawn, images, labels, judge) | {
        "residual": wanted.residual(drawn).detach().cpu().numpy()
    }
    with torch.no_grad():
        features = judge.features(drawn.clamp(-1, 1)).cpu().numpy()
    return {key: np.where(failed.cpu().numpy(), np.nan, value) for key, value in values.items()} | {
        "images": drawn.clamp(-1, 1).cpu().numpy().astype(np.float16),
        "features": features.astype(np.float32),
        "passes": np.array([passes.forward, passes.jvp, passes.vjp]),
        "seconds": np.array(time.perf_counter() - started),
    }


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
    features = first.pop("features")[fine]
    truth = true_features(config.digits, config.device)
    distance = kernel_distance(features, truth) if len(features) > 1 else (np.nan, np.nan)
    return first | {
        "diversity": np.sqrt(np.square(spread).mean((1, 2, 3)) / 2),
        "kernel_distance": np.array(distance),
    }


@torch.no_grad()
def true_features(count: int, device: str) -> Any:
    """Return the judge's features of the contest's digits, (count, k)."""
    images = digits("held-out")[0][FIRST : FIRST + count].to(device)
    return mnist.load_classifier(device=device).features(images).cpu().numpy()


def price(entry: Entry, config: Contest) -> tuple[float, float]:
    """Return the evaluations of a step, and those of a run beside its steps, such as the check of
    products, by two short runs.

    Two digits tell the price if each of four costs the same. A check is of some samples at each
    time, and its share of a digit falls with their number: then the runs are of ten.
    """
    few = evaluations(entry, config, STEPS, FEWEST)  # halves and quarters add up exactly
    alike = few == evaluations(entry, config, STEPS, 2 * FEWEST)
    count = FEWEST if alike else PRICED
    few = few if alike else evaluations(entry, config, STEPS, count)
    step = (evaluations(entry, config, 2 * STEPS, count) - few) / STEPS
    # a method may stop early: the longer run then costs no more
    return (step, few - STEPS * step) if step > 0 else (few / STEPS, 0.0)


def evaluations(entry: Entry, config: Contest, steps: int, count: int) -> float:
    """Return the evaluations of a run of some steps on some digits of the search, per digit."""
    run = execute(replace(entry, steps=steps), config, OTHERS, count, config.seed)
    return float(run["passes"].sum())


def steps_within(budget: float, step: float, once: float) -> int:
    """Return how many steps a budget of evaluations pays for, at least 2; see `price`."""
    return max(2, round((budget - once) / step))


def try_parameters(
    task: str,
    method: str,
    parameters: dict[str, float],
    config: Contest,
    part: range,
    known: tuple[float, float] | None = None,
) -> Arrays:
    """Return what some parameters got on a part of the digits of the search, with half of the
    largest budget, as JSON: "doubt", the judge's, by which they are chosen, its sum, and the
    `price`, "step" and "once", unless it is `known`.
    """
    entry = Entry(task, method, "searched", parameters, 1)
    step, once = known or price(entry, config)
    entry = replace(entry, steps=steps_within(max(config.budgets) / 2, step, once))
    found = execute(entry, config, OTHERS + part.start, len(part), config.seed)
    doubt = float(np.nan_to_num(found["doubt"], nan=100.0).sum())
    return {"row": np.array(json.dumps({"doubt": doubt, "step": step, "once": once}))}


def at_edge(peer: Peer, parameters: dict[str, float]) -> str:
    """Return the parameters whose best value is the first or the last of three or more that were
    searched: a wider search might find a better one.
    """
    grids = {name: sorted(grid) for name, grid in peer.search.items() if len(grid) > 2}
    return ", ".join(
        name for name, grid in grids.items() if parameters[name] in (grid[0], grid[-1])
    )


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

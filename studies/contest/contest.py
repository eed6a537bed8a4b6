r"""The contest: linear inverse problems on held-out digits, our sampler and the methods that people
use, at equal budgets.

Every method has the same denoiser, the same observations and the same seeds. It runs with its
authors' parameters and number of steps, and with the parameters that a small search on other digits
found, at several numbers of network evaluations (forward passes, J v and J^T u together, counted).
What an evaluation takes, in milliseconds and in memory, is measured apart, each method in a process
of its own, one after the other. An interrupted command goes on; it needs the extra `peers`.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.sampler import seed_of
from studies.contest.contest_report import plot, table
from studies.contest.ours import CONTESTANTS, OURS, paper
from studies.contest.peers import CountedDenoiser, Peer
from studies.contest.peers_azula import azula
from studies.contest.peers_deepinv import deepinv
from studies.frame.answer import Answer
from studies.frame.figure_text import subject
from studies.frame.processes import in_a_process, status
from studies.frame.statistics import scores
from studies.frame.study import Arrays, Config, Pieces, Study
from mnist.problems import TASKS, problem

FIRST, OTHERS = 2000, 1000  # held-out digits of the contest, and of the search
BATCH = 50
SHOWN = 10
MASKS = ("half", "box", "random")
METHODS = tuple(peer.name for peer in CONTESTANTS)
STANDARD = tuple(name for name in METHODS if name not in ("TMPD", "RePaint", "DPS, annealed"))


@dataclass(frozen=True)
class Contest(Config):
    """Contest on linear inverse problems. Example: jacobian-lab benchmark contest --tasks half
    --digits 20 --again 5.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    """half, box, random, super-resolution, blur."""
    methods: tuple[str, ...] = STANDARD
    """Names of methods; besides the default ones "TMPD", "RePaint" (masks only) and "DPS,
    annealed".
    """
    digits: int = 200
    """Held-out digits, from 2000 on."""
    searched: int = 30
    """Held-out digits of the search, from 1000 on."""
    again: int = 20
    """Digits that are drawn a second time with other seeds, for the diversity."""
    budgets: tuple[int, ...] = (25, 100)
    """Network evaluations of a run with the parameters that were found; the search has half of the
    largest.
    """
    longest: int = 1000
    """Most steps of a run with the authors' own settings."""
    model: str = "mnist"
    """mnist, or the path of one that you trained; on DDPM's linear schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, chosen, known in (
            ("tasks", self.tasks, tuple(TASKS)),
            ("methods", self.methods, METHODS),
        ):
            if not chosen or set(chosen) - set(known):
                raise InputError(
                    f"--{name} must be of {', '.join(known)}: got {', '.join(chosen) or 'none'}"
                )
        if (
            not 2 <= self.digits <= 3000
            or not 1 <= self.searched <= 1000
            or not 2 <= self.again <= self.digits
        ):
            raise InputError(
                "--digits must lie from 2 to 3000, --searched from 1 to 1000, --again from 2 to"
                f" --digits: got {self.digits}, {self.searched}, {self.again}"
            )
        if not self.budgets or min(self.budgets) < 1 or self.longest < 1:
            raise InputError(
                f"--budgets and --longest must be at least 1: got {self.budgets} and {self.longest}"
            )


@dataclass(frozen=True)
class Entry:
    """A run of the contest: a method on a task with some parameters and steps."""

    task: str
    method: str
    setting: str
    """"authors" or "searched"."""
    parameters: dict[str, float]
    steps: int

    @property
    def peer(self) -> Peer:
        """The method."""
        return next(peer for peer in CONTESTANTS if peer.name == self.method)


def execute(entry: Entry, config: Contest, first: int, count: int, seed: int) -> Arrays:
    """Run an entry on some digits; return images, scores and passes; a run that diverges has NaN
    for them.
    """
    denoiser = mnist.load_denoiser(config.model, config.device)
    judge = mnist.load_classifier(device=config.device)
    constraint, images, labels = problem(entry.task, first, count, config.seed, config.device)
    counted, started = CountedDenoiser(denoiser, count), time.perf_counter()
    drawn, passes = run_in_batches(entry, counted, constraint, first, seed), counted.passes
    failed = ~drawn.flatten(1).isfinite().all(1)
    drawn = torch.where(failed.reshape(-1, 1, 1, 1), 0, drawn)
    values = scores(drawn, images, labels, judge) | {
        "residual": constraint.residual(drawn).cpu().numpy()
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
    entry: Entry, denoiser: CountedDenoiser, constraint: LinearConstraint, first: int, seed: int
) -> torch.Tensor:
    """Return a sample for each observation; NaN for a batch that diverges."""
    count, found = len(constraint.y), []
    for at in range(0, count, BATCH):
        part = slice(at, min(at + BATCH, count))
        seeds = [seed_of(seed, 7, first + i) for i in range(part.start, part.stop)]
        some = constraint.select(part)
        try:
            drawn = entry.peer.run(denoiser, some, seeds, entry.steps, **entry.parameters).detach()
        except DivergenceError:
            drawn = torch.full((len(seeds), *denoiser.shape), torch.nan, device=some.y.device)
        found.append(drawn)
    return torch.cat(found)


def twice(entry: Entry, config: Contest) -> Arrays:
    """Return an entry's run of the contest, and the diversity of its samples, by a second run of
    other seeds.
    """
    first = execute(entry, config, FIRST, config.digits, config.seed)
    second = execute(entry, config, FIRST, config.again, config.seed + 1)
    spread = first["images"][: config.again].astype(np.float32) - second["images"]
    return first | {"diversity": np.sqrt(np.square(spread).mean((1, 2, 3)) / 2)}


def evaluations_per_step(entry: Entry, config: Contest) -> float:
    """Return the evaluations of a step, counted over four steps on the digits of the search: on
    few, the check of products, two samples at each time, would count for more than it is.
    """
    probe = replace(entry, steps=4)
    found = execute(probe, config, OTHERS, config.searched, config.seed)
    return float(found["passes"].sum()) / 4


def search_parameters(task: str, peer: Peer, config: Contest) -> Arrays:
    """Return the parameters with which the judge doubts least, as JSON, and what all of them
    got.
    """
    rows: list[dict[str, Any]] = []
    for parameters in peer.combinations():
        entry = Entry(task, peer.name, "searched", parameters, 1)
        cost = evaluations_per_step(entry, config)
        entry = replace(entry, steps=max(2, round(max(config.budgets) / 2 / cost)))
        found = execute(entry, config, OTHERS, config.searched, config.seed)
        rows.append(
            {
                "parameters": parameters,
                "doubt": float(np.nan_to_num(found["doubt"], nan=100.0).mean()),
                "cost": cost,
                "residual": float(found["residual"].mean()),
            }
        )
    best = min(rows, key=lambda row: row["doubt"])
    return {"best": np.array(json.dumps(best)), "all": np.array(json.dumps(rows))}


def clock(task: str, method: str, model: str, device: str) -> tuple[float, float]:
    """Return milliseconds per evaluation and digit (the better of two runs of 6 steps) and peak
    memory in MB, in a process that does nothing else.
    """
    config = Contest(model=model, device=device)
    peer = next(peer for peer in CONTESTANTS if peer.name == method)
    entry = Entry(task, method, "authors", dict(peer.defaults), 6)
    found = [execute(entry, config, OTHERS, BATCH, seed) for seed in (0, 1)]
    taken = min(float(run["seconds"] / run["passes"].sum()) for run in found) / BATCH
    return 1000 * taken, status("VmHWM") / 1024


def pairs_of(config: Contest) -> list[tuple[str, Peer]]:
    """Return the tasks and methods, after loading the libraries: if one is missing, it is said
    before anything is computed.
    """
    peers = [peer for peer in CONTESTANTS if peer.name in config.methods]
    for library, load in (("azula", azula), ("deepinv", deepinv)):
        if any(peer.library.startswith(library) for peer in peers):
            load()
    return [
        (task, peer)
        for task in config.tasks
        for peer in peers
        if peer.name != "RePaint" or task in MASKS
    ]


def entries_of(config: Contest, pairs: list[tuple[str, Peer]], pieces: Pieces) -> list[Entry]:
    """Return the runs of the contest, those with the authors' settings and, after the search, at
    each budget; the long ones last.
    """
    entries = [
        Entry(task, peer.name, "authors", dict(peer.defaults), min(peer.steps, config.longest))
        for task, peer in pairs
        if peer.name not in OURS
    ]
    searched = [(task, peer) for task, peer in pairs if peer.run is not paper]
    for task, peer in tqdm(searched, desc="search", unit="method"):
        found = pieces(
            _name("search", task, peer.name), partial(search_parameters, task, peer, config)
        )
        row = json.loads(str(found["best"]))
        for budget in config.budgets:
            steps = max(2, round(budget / row["cost"]))
            entries.append(Entry(task, peer.name, "searched", row["parameters"], steps))
    return sorted(entries, key=lambda entry: entry.steps)


def compute(config: Contest, pieces: Pieces) -> Arrays:
    """Return the entries as JSON, and their scores, passes, speeds, features and shown images."""
    pairs = pairs_of(config)
    entries = entries_of(config, pairs, pieces)

    def timed(task: str, peer: Peer) -> Arrays:
        return {
            "speed": np.array(in_a_process(clock, task, peer.name, config.model, config.device))
        }

    runs = [
        pieces(
            _name("run", entry.task, entry.method, entry.setting, str(entry.steps)),
            partial(twice, entry, config),
        )
        for entry in tqdm(entries, desc="contest", unit="run")
    ]
    quick = {
        (task, peer.name): pieces(_name("speed", task, peer.name), partial(timed, task, peer))
        for task, peer in tqdm(pairs, desc="speed and memory", unit="method")
    }
    _, images, labels = problem(config.tasks[0], FIRST, config.digits, config.seed)
    judge = mnist.load_classifier()
    with torch.no_grad():
        truth = judge.features(images).numpy()
    first = min(SHOWN, config.digits)
    shown = [problem(task, FIRST, first, config.seed)[0] for task in config.tasks]
    keys = ("psnr", "ssim", "agreement", "doubt", "residual", "passes", "diversity", "features")
    return {key: np.stack([run[key] for run in runs]) for key in keys} | {
        "entries": np.array([json.dumps(vars(entry)) for entry in entries]),
        "speed": np.stack([quick[entry.task, entry.method]["speed"] for entry in entries]),
        "truth": truth,
        "labels": labels.numpy(),
        "budgets": np.array(config.budgets),
        "digits": images[:SHOWN].numpy(),
        "observed": np.stack([wanted.pseudo_inverse(wanted.y).numpy() for wanted in shown]),
        "tasks": np.array(config.tasks),
        **subject(config),
        "shown": np.stack([run["images"][:SHOWN].astype(np.float32) for run in runs]),
    }


def _name(*words: str) -> str:
    return "-".join(re.sub(r"\W+", "_", word) for word in words)


ANSWER = Answer(("task", "method", "setting", "evaluations", "residual", "psnr", "agreement"))
STUDY = Study(
    "contest",
    Contest,
    compute,
    table,
    plot,
    models=lambda config: {config.model: "denoiser", "classifier": "classifier"},
    libraries=("azula", "deepinv"),
    answer=ANSWER,
)

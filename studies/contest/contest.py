r"""The contest: inverse problems on held-out digits, our sampler and the methods that people use,
at equal budgets, beside the best that any method can do.

Every method has the same denoiser, the same observations and the same seeds. It runs with its
authors' parameters and number of steps, and with the parameters that a small search on other digits
found, at several numbers of network evaluations (forward passes, J v and J^T u together, counted).
Whether samples are fair is told by two statistics of `studies.contest.calibration`.
An interrupted command goes on; it needs the extra `peers`.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np

import mnist
from jacobian_lab import InputError
from mnist.problems import observation_image, problem
from studies.contest.calibration import calibrate
from studies.contest.choices import computed, entries_of, piece_name
from studies.contest.contest_report import CALIBRATION, VARIABLES, plot, table
from studies.contest.entries import FIRST, Entry, clock, twice
from studies.contest.limits import measure_limits
from studies.contest.peers import Peer
from studies.contest.rules import Contest
from studies.contest.tracks import refusal, track
from studies.frame.answer import Answer, Row
from studies.frame.figure_text import subject
from studies.frame.processes import in_a_process
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.workers import on_processes

SHOWN, LIMITS = 10, ("agreement", "psnr")


def ask(task: str, peer: Peer, config: Contest) -> Arrays:
    """Return why a method does not run on a task, or ""."""
    return {"refusal": np.array(refusal(peer, task, config.model, config.device))}


def clocked(task: str, method: str, config: Contest) -> Arrays:
    """Return milliseconds and memory; see `clock`."""
    return {"speed": np.array(in_a_process(clock, task, method, config.model, config.device))}


def pairs_of(config: Contest, pieces: Pieces) -> tuple[list[tuple[str, Peer]], list[Row]]:
    """Return the tasks and methods, and those that are left out with their reasons."""
    pairs = [(task, peer) for task in config.tasks for peer in config.peers()]
    track(config.model, config.device)
    work = {
        piece_name("ask", task, peer.name): partial(ask, task, peer, config) for task, peer in pairs
    }
    answers = [str(found["refusal"]) for found in computed(pieces, "methods", work, here=True)]
    kept = [pair for pair, answer in zip(pairs, answers, strict=True) if not answer]
    left_out: list[Row] = [
        {"task": task, "method": peer.name, "setting": "left out", "note": answer}
        for (task, peer), answer in zip(pairs, answers, strict=True)
        if answer
    ]
    for row in left_out:
        print(f"left out on {row['task']}: {row['method']} ({row['note']})", file=sys.stderr)
    if not kept:
        raise InputError(f"no method is left: {left_out[0]['note']}")
    return kept, left_out


def compute(config: Contest, pieces: Pieces) -> Arrays:
    """Return the entries as JSON, their scores, passes and shown images, and the limits."""
    with on_processes(pieces, config.processes):
        return hold(config, pieces)


def hold(config: Contest, pieces: Pieces) -> Arrays:
    """Hold the contest; see `compute`."""
    pairs, left_out = pairs_of(config, pieces)
    work = {
        piece_name("limit", task): partial(measure_limits, task, FIRST, config.seed, config.device)
        for task in config.tasks
    }
    limits = computed(pieces, "limits", work)
    named = entries_of(config, pairs, pieces)
    work = {name: partial(twice, entry, config) for name, (entry, _) in named.items()}
    runs = computed(pieces, "contest", work)
    entries, edges = zip(*named.values(), strict=True)
    keys = sorted(runs[0].keys() - {"images", "seconds"})
    images, labels = (x[FIRST:][: config.digits] for x in mnist.digits("held-out"))
    first = min(SHOWN, config.digits)
    shown = [problem(task, FIRST, first, config.seed)[0] for task in config.tasks]
    return {
        **{key: np.stack([run[key] for run in runs]) for key in keys},
        **{f"limit_{key}": np.stack([limit[key] for limit in limits]) for key in LIMITS},
        "entries": np.array([json.dumps(vars(entry)) for entry in entries]),
        "at_edge": np.array(edges),
        "left_out": np.array(json.dumps(left_out)),
        "ours": np.array([peer.name for _, peer in pairs if peer.library == "jacobian-lab"]),
        "labels": labels.numpy(),
        "budgets": np.array(config.budgets),
        "tasks": np.array(config.tasks),
        **subject(config),
        **_calibrations(config, entries, runs, pieces),
        **_speeds(config, pairs, entries, pieces),
        "digits": images[:first].numpy(),
        "observed": np.stack([observation_image(wanted).numpy() for wanted in shown]),
        "expected": np.stack([limit["images"][:first] for limit in limits]),
        "shown": np.stack([run["images"][:first] for run in runs]),
    }


def _calibrations(
    config: Contest, entries: tuple[Entry, ...], runs: list[Arrays], pieces: Pieces
) -> Arrays:
    """Return the statistics of `calibrate` for each run, from its stored images."""
    tasks = list(dict.fromkeys(entry.task for entry in entries))
    order = [[i for i, entry in enumerate(entries) if entry.task == task] for task in tasks]
    work = {
        piece_name("calibration", task): partial(
            calibrate,
            task,
            np.stack([runs[i]["images"] for i in mine]),
            FIRST,
            config.seed,
            config.device,
        )
        for task, mine in zip(tasks, order, strict=True)
    }
    found = computed(pieces, "calibration", work)
    back = np.argsort(np.concatenate(order))
    return {key: np.concatenate([part[key] for part in found])[back] for key in found[0]}


def _speeds(
    config: Contest,
    pairs: list[tuple[str, Peer]],
    entries: tuple[Entry, ...],
    pieces: Pieces,
) -> Arrays:
    """Return milliseconds and memory of each entry, if they are asked."""
    if not config.speed:
        return {}
    work = {
        piece_name("speed", task, peer.name): partial(clocked, task, peer.name, config)
        for task, peer in pairs
    }
    found = dict(zip(work, computed(pieces, "speed and memory", work, here=True), strict=True))
    speeds = [found[piece_name("speed", entry.task, entry.method)]["speed"] for entry in entries]
    return {"speed": np.stack(speeds)}


ANSWER = Answer(
    ("task", "method", "setting", "evaluations", "residual", "psnr", "agreement", *CALIBRATION),
    keeps=lambda row: row["setting"] != "left out",
)
STUDY = Study(
    "contest",
    Contest,
    compute,
    table,
    plot,
    models=Contest.models,
    libraries=("azula", "deepinv"),
    answer=ANSWER,
    variables=VARIABLES,
)

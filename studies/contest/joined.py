"""Contests that were held one after the other, of some tasks, methods or budgets each, as one.

A contest of all methods takes hours for each task and budget. Its parts are runs of
their own, and what they stored is joined here: nothing is computed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jacobian_lab import InputError
from jacobian_lab._checksums import SUMS, read_sums
from jacobian_lab._files import read_json
from studies.contest.contest_report import VARIABLES, plot, table
from studies.contest.standing import Summary, budgets_of, entries_in
from studies.frame.dataset import DATA, arrays_of, read_dataset
from studies.frame.study import Arrays, Options, Pieces, Study

CLAIM, CONTEST = "config.json", "contest"
ALIKE = ("model", "seed", "digits", "again", "weights")
"""What the claims of contests that are joined have in common."""


@dataclass(frozen=True)
class Contests(Options):
    """Join finished contests. Example: jacobian-lab benchmark contests runs/contest-1a2b3c4d
    runs/contest-5e6f7a8b.
    """

    POSITIONAL = ("runs",)

    runs: tuple[Path, ...] = ()
    """Folders of finished contests on the same digits, of other tasks, methods or budgets each. Of
    two runs of a method on a task at one budget, that of the first folder is taken.
    """
    hashes: dict[str, str] = field(init=False, default_factory=dict)
    """SHA-256 of their data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.runs:
            raise InputError("name the folders of finished contests: got none")
        claims = [read_json(run / CLAIM, "the claim of a contest") for run in self.runs]
        for run, claim in zip(self.runs, claims, strict=True):
            if claim.get("study") != CONTEST:
                raise InputError(f"{run} is no run of jacobian-lab benchmark contest")
            if unlike := [key for key in ALIKE if claim.get(key) != claims[0].get(key)]:
                raise InputError(
                    f"{run} and {self.runs[0]} differ in {', '.join(unlike)}: join contests of one"
                    " model, with the same digits and seeds"
                )
            known = read_sums(run / SUMS) if (run / SUMS).is_file() else {}
            self.hashes[str(run)] = known.get(DATA, "")


def compute(config: Contests, _: Pieces) -> Arrays:
    """Return what the runs stored, joined."""
    return joined([arrays_of(read_dataset(run)) for run in config.runs])


def joined(parts: list[Arrays]) -> Arrays:
    """Return contests on the same digits as one, from what they stored."""
    along = {name: VARIABLES[name].dims.split()[:1] for name in parts[0] if name in VARIABLES}
    found = {
        name: np.concatenate([part[name] for part in parts])
        if along[name] in (["entry"], ["task"], ["own"])
        else parts[0][name]
        for name in along.keys() & set.intersection(*(set(part) for part in parts))
    }
    budgets = np.unique(np.concatenate([part["budgets"] for part in parts]))
    kept = {
        "entry": _first(_keys(found | {"budgets": budgets})),
        "task": _first(found["tasks"].tolist()),
        "own": _first(found["ours"].tolist()),
    }
    for name, values in found.items():
        for dim in along[name]:
            found[name] = values[kept[dim]] if dim in kept else values
    left_out = [row for part in parts for row in json.loads(str(part["left_out"]))]
    once = {(row["task"], row["method"]): row for row in left_out}
    return found | {
        "budgets": budgets,
        "left_out": np.array(json.dumps(list(once.values()))),
    }


def _keys(arrays: Arrays) -> list[str]:
    """Return what tells each entry from the others, as JSON: of searched ones the budget."""
    return [
        json.dumps(
            [
                *(entry[name] for name in ("task", "method", "setting")),
                budget if entry["setting"] == "searched" else entry["steps"],
            ]
        )
        for entry, budget in zip(entries_in(arrays), budgets_of(arrays), strict=True)
    ]


def _first(names: list[str]) -> NDArray[np.intp]:
    """Return where each name stands for the first time."""
    return np.sort(np.unique(names, return_index=True)[1])


STUDY = Study(
    "contests",
    Contests,
    compute,
    table,
    plot,
    models=lambda _: {},
    variables=VARIABLES,
    answer=Summary(),
)

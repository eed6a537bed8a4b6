"""The rules of the contest: its options, and which methods they name."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from jacobian_lab import InputError
from mnist.problems import PLAIN, TASKS
from studies.contest.peers import Peer
from studies.contest.peers_azula import azula
from studies.contest.peers_deepinv import deepinv
from studies.contest.tracks import METHODS, contestants
from studies.frame.options import model_files
from studies.frame.study import Config

Setting = Literal["authors", "searched"]
STANDARD = tuple(name for name in METHODS if name not in ("TMPD", "RePaint", "DPS, annealed"))


@dataclass(frozen=True)
class Contest(Config):
    """Contest on inverse problems. Example: jacobian-lab benchmark contest --tasks half --digits 20
    --again 5.
    """

    tasks: tuple[str, ...] = tuple(PLAIN)
    """half, box, random, super-resolution, blur; with noise "half, noise" and so on, "blur, exact"
    without; not linear: quantised, saturated.
    """
    methods: tuple[str, ...] = STANDARD
    """Names of methods; besides the default ones "TMPD", "RePaint" and "DPS, annealed". A method
    that cannot do a task is left out of it, which is told.
    """
    digits: int = 200
    """Held-out digits, from 2000 on."""
    searched: int = 90
    """Held-out digits of the search, from 1000 on, for its last parameters; for the others a third
    or a ninth.
    """
    again: int = 20
    """Digits that are drawn a second time with other seeds, for the diversity."""
    budgets: tuple[int, ...] = (25, 50, 100, 200)
    """Network evaluations of a run; the parameters are searched at each."""
    settings: tuple[Setting, ...] = ("authors", "searched")
    """Whose parameters: the authors' with as many steps as they take, most of the whole time, or
    those that were searched, at each of --budgets.
    """
    parameters_of: Path | None = None
    """table.csv of a finished contest, whose searched parameters are taken: nothing is searched."""
    taken: dict[str, list[dict[str, Any]]] = field(init=False, default_factory=dict)
    """These parameters, "task: method" -> "parameters", "at_edge", "budget" (0: not told)."""
    longest: int = 1000
    """Most steps of a run with the authors' own settings."""
    model: str = "mnist"
    """mnist, mnist-flow, mnist-latent, or the path of one that you trained."""
    speed: bool = False
    """Measure milliseconds and memory too: each method in a process of its own, one after the
    other, on a machine that has nothing else to do.
    """
    processes: int = 1
    """Processes that compute at once, with one thread each: as many as the machine has cores is
    fastest. What they have finished is kept, whatever is killed. More than 1 need the extra sweep.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, chosen, known in (
            ("tasks", self.tasks, tuple(TASKS)),
            ("methods", self.methods, METHODS),
        ):
            if not chosen or set(chosen) - set(known):
                raise InputError(
                    f"--{name} must be of {'; '.join(known)}: got {'; '.join(chosen) or 'none'}"
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
        if not self.settings:
            raise InputError("--settings must be authors, searched or both: got none")
        if not self.budgets or min(self.budgets) < 1 or self.longest < 1 or self.processes < 1:
            raise InputError(
                "--budgets, --longest and --processes must be at least 1: got"
                f" {self.budgets}, {self.longest}, {self.processes}"
            )
        if self.parameters_of and "searched" not in self.settings:
            raise InputError("--parameters-of is for --settings searched: add it, or leave it out")
        if self.parameters_of:
            self.taken.update(searched_in(self.parameters_of))

    def models(self) -> Mapping[str, str]:
        """Return the models with weights, for the manifest."""
        return {**model_files(self), "classifier": "classifier", "limits": "limits"}

    def peers(self) -> list[Peer]:
        """Return the methods of this track, after loading their libraries: if one is missing, it is
        said before anything is computed.
        """
        peers = [peer for peer in contestants(self.model) if peer.name in self.methods]
        if not peers:
            raise InputError(
                f"none of --methods {', '.join(self.methods)} is for --model {self.model}, which"
                f" has {', '.join(peer.name for peer in contestants(self.model))}"
            )
        if self.settings == ("authors",) and not any(peer.has_authors for peer in peers):
            raise InputError(
                f"nothing to run with --settings authors: {', '.join(peer.name for peer in peers)}"
                " are this project's own. Add searched"
            )
        for library, load in (("azula", azula), ("deepinv", deepinv)):
            if any(peer.library.startswith(library) for peer in peers):
                load()
        return peers


def searched_in(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the searched parameters of a contest's table, see `Contest.taken`.

    Raises
    ------
    InputError
        If the file cannot be read, or is no such table.
    """
    try:
        rows = list(csv.DictReader(StringIO(path.read_text("utf-8"))))
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["setting"] == "searched":
                found.setdefault(f"{row['task']}: {row['method']}", []).append(
                    {
                        "parameters": json.loads(row["parameters"]),
                        "at_edge": row["at_edge"],
                        "budget": int(row.get("budget") or 0),
                    }
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--parameters-of {path} is not the table.csv of a finished contest:"
            f" {type(error).__name__}: {error}"
        ) from error
    if not found:
        raise InputError(f"--parameters-of {path} has no row with the setting searched")
    return found

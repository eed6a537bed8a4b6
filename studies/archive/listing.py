"""The command `jacobian-lab list`: which runs there are, with their options, age and state."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jacobian_lab import InputError, _require
from studies.archive.stored import Stored, runs_in
from studies.frame.answer import Row, terminal_table

UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))
"""Of an age, with their seconds."""


@dataclass(frozen=True)
class ListRuns:
    """List the runs in a folder. Example: jacobian-lab list --study eigenvalues."""

    runs: Path = Path("runs")
    """Folder in which the runs lie."""
    study: str = ""
    """Only those of this study, such as eigenvalues; by default all."""

    def __post_init__(self) -> None:
        _require.options(self)


def list_runs(config: ListRuns) -> None:
    """Print a line for each run, the newest last."""
    runs = [run for run in runs_in(config.runs) if config.study in ("", run.study_name)]
    if not runs:
        of_study = f" of the study {config.study}" if config.study else ""
        raise InputError(f"no run{of_study} lies in {config.runs}")
    print(terminal_table([row_of(run) for run in runs], most=len(runs)))


def row_of(run: Stored) -> Row:
    """Return what the list says of a run."""
    try:
        said = in_words(run.chosen())
    except InputError as error:  # a study that is gone
        said = str(error)
    return {
        "run": run.folder.name,
        "state": run.state,
        "age": _age(run.age),
        "options that are not the default": said or "none",
    }


def in_words(options: dict[str, Any]) -> str:
    """Return options as the command line takes them: "--digits 2 --times 300 700"."""
    return shlex.join(words_of(options))


def words_of(options: dict[str, Any]) -> list[str]:
    """Return options as the words that the command line takes; without those that are not set."""
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _age(seconds: float) -> str:
    for name, size in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(seconds, 0):.0f} seconds"

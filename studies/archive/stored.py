"""Runs that lie on the disk: which study made them with which options, in which state they are, and
their data.

>>> import studies
>>> data = studies.open("runs/eigenvalues-1a2b3c4d")  # doctest: +SKIP
>>> data["largest"].sel(time=300, operator="J").mean("sample")  # doctest: +SKIP
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jacobian_lab import InputError
from jacobian_lab._files import read_json
from mnist.runs import Claim
from studies.commands import COMMANDS, study_of
from studies.frame.answer import Row
from studies.frame.dataset import DATA, OLD, Arrays, arrays_of, read_dataset
from studies.frame.study import Study

if TYPE_CHECKING:
    import xarray

CLAIM, MANIFEST, PARTIAL = "config.json", "manifest.json", ".partial"
NO_OPTIONS = ("study", "code", "weights", "hashes")
"""What a claim holds beside options."""


@dataclass(frozen=True)
class Stored:
    """A run's folder: finished, unfinished, or of a kind that is no longer written."""

    folder: Path

    @cached_property
    def claim(self) -> Claim:
        """Study, options, weights and code."""
        return read_json(self.folder / CLAIM, "the claim of a run: name the folder of a run")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What repeats the run: command, versions, seconds."""
        return read_json(self.folder / MANIFEST, "the manifest of a finished run")

    @property
    def study_name(self) -> str:
        """The name of the study."""
        return str(self.claim.get("study", ""))

    @cached_property
    def command(self) -> str:
        """The command of the study, such as "benchmark contest"."""
        name = self.study_name
        for known in (known for group in COMMANDS.values() for known in group):
            if known.replace(" ", "-") in (name, f"benchmark-{name}"):
                return known
        raise InputError(
            f"{self.folder} is of the study {name!r}, which this version does not have"
        )

    @cached_property
    def study(self) -> Study[Any]:
        """The study."""
        known = {name: command for group in COMMANDS.values() for name, command in group.items()}
        return study_of(known[self.command])

    @property
    def state(self) -> str:
        """Whether the run is "finished", "unfinished, 12 pieces", or "of the old kind"."""
        if self.folder.suffix == PARTIAL:
            pieces = len(list(self.folder.glob("*.npz")))
            return f"unfinished, {pieces} piece{'s' * (pieces != 1)}"
        return "finished" if (self.folder / DATA).is_file() else "of the old kind"

    @property
    def age(self) -> float:
        """Seconds since the data were written, which drawing anew leaves as they are, or else the
        newest file in the folder.
        """
        data = self.folder / DATA
        files = [data] if data.is_file() else self.folder.iterdir()
        return time.time() - max(path.stat().st_mtime for path in files)

    def options(self) -> dict[str, Any]:
        """Return the options, as JSON knows them."""
        return {key: value for key, value in self.claim.items() if key not in NO_OPTIONS}

    def chosen(self) -> dict[str, Any]:
        """Return the options that are not at their defaults."""
        defaults = {
            field.name: list(field.default) if isinstance(field.default, tuple) else field.default
            for field in fields(self.study.config)
            if field.default is not MISSING
        }
        return {
            key: value
            for key, value in self.options().items()
            if key not in defaults or defaults[key] != value
        }

    def data(self) -> xarray.Dataset:
        """Return the data; raise if the run is unfinished, of the old kind, or damaged."""
        return read_dataset(self.folder)

    def arrays(self) -> Arrays:
        """Return the data as arrays, for the study's `table` and `plot`."""
        return arrays_of(self.data())

    def answer(self, arrays: Arrays) -> list[Row]:
        """Return the rows that the study prints at its end."""
        with self.told_if_other_code():
            return self.study.answer(self.study.table(arrays))

    @contextmanager
    def told_if_other_code(self) -> Iterator[None]:
        """Raise what a user understands if this version's study draws in this block what the run,
        of other code, does not have.
        """
        try:
            yield
        except KeyError as error:
            raise InputError(
                f"{self.folder} was made by other code: {DATA} lacks {error}, which this version's"
                f" {self.study_name} draws. The command in {MANIFEST} computes it anew beside it"
            ) from error


def open_run(folder: Path | str) -> xarray.Dataset:
    """Return the data of a finished run, in memory and undamaged.

    Parameters
    ----------
    folder : Path or str
        Such as "runs/eigenvalues-1a2b3c4d"; or the file data.nc in it. `xarray.open_dataset` reads
        that file as well, but does not look whether it is damaged.

    Returns
    -------
    xarray.Dataset
        Named dimensions and coordinates; each variable's `attrs` has "description" and "units". Its
        own `attrs` has "study", and as JSON "options" and "code".

    Raises
    ------
    InputError
        If there is no such run, it is unfinished, of the old kind, or damaged.
    """
    folder = Path(folder)
    return read_dataset(folder.parent if folder.name in (DATA, OLD) else folder)


def finished(folders: Sequence[Path]) -> list[Stored]:
    """Return the runs of these folders; raise if one is missing, or not finished."""
    runs = [Stored(folder) for folder in folders]
    for run in runs:
        if not (run.folder / CLAIM).is_file():
            raise InputError(f"{run.folder} is not the folder of a run: it has no {CLAIM}")
        if run.folder.suffix == PARTIAL:
            raise InputError(f"{run.folder} is unfinished: its command goes on with it")
    return runs


def runs_in(folder: Path) -> Iterator[Stored]:
    """Yield the runs in a folder, the newest last, and print which cannot be read; raise if there
    is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name that of the runs")
    found = [Stored(path.parent) for path in folder.glob(f"*/{CLAIM}")]
    yield from sorted(
        (run for run in found if _is_study(run)), key=lambda run: run.age, reverse=True
    )


def _is_study(run: Stored) -> bool:
    """Say whether a run is of a study, and not of a training; print why if it cannot be told."""
    try:
        return bool(run.study_name)
    except InputError as error:
        print(f"left out: {error}", file=sys.stderr)
        return False

"""The folder of a run: whose it is, which code made it, one process at a time, and whole or not at
all.

    FOLDER.partial/    while the run computes: its claim, its lock, and what it has finished so far
    FOLDER/            the finished run: the same folder, renamed

The claim, a JSON file, says what makes a run this one, and under "code" what computes it. A folder
with the same claim made by other code is left as it is; the run is computed anew in FOLDER-CODE,
beside it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from jacobian_lab import InputError
from jacobian_lab._files import (
    UNFINISHED,
    json_bytes,
    json_hash,
    locked,
    read_json,
    remove_unfinished,
    write_whole,
)

Claim: TypeAlias = dict[str, Any]
LOCK = ".lock"
"""File of a run folder that the process that computes it holds locked."""
LIBRARIES = ("jacobian-lab", "torch", "numpy", "scipy")
"""Distributions whose versions belong to the identity of a run: those that compute its numbers."""
LOOKS = "figure_style.py"
"""The one source file without effect on numbers: fonts and colours of figures."""


class Outcome(NamedTuple):
    """What became of a run."""

    folder: Path
    how: str
    """ "computed", "resumed with 10 pieces" or "reused"."""
    answer: str = ""
    """What it found, as a table for a terminal."""
    failures: tuple[str, ...] = ()
    """Checks that it makes where the answer is known and that failed, a line each."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run."""

    folder: Path
    partial: Path
    """Where it lies while it computes."""
    finished: bool

    def finish(self) -> None:
        """Let the finished run appear, in the place of nothing or of an empty folder.

        Raises
        ------
        InputError
            If something else lies there by now; nothing is lost.
        """
        try:
            self.partial.rename(self.folder)
        except OSError as error:
            raise InputError(
                f"the run is finished and lies in {self.partial}, but {self.folder} cannot take its"
                f" place ({error.strerror}): move away what is in {self.folder}, and the same"
                " command puts the run there"
            ) from error
        (self.folder / LOCK).unlink(missing_ok=True)


@contextmanager
def run_folder(
    folder: Path, claim_file: str, claim: Claim, resumes: bool = True
) -> Iterator[RunFolder]:
    """Yield the folder of the run of this claim: finished, or this process's own to compute in
    until the block ends.

    Waits while another process computes the same run. If the block raises an `InputError` before
    anything was written, the folder is free again.

    Parameters
    ----------
    folder : Path
        Where the finished run lies.
    claim_file : str
        Name of the file in it that holds the claim.
    claim : dict
        What makes the run this one, as JSON knows it.
    resumes : bool
        Whether the same command goes on after an interrupt.

    Raises
    ------
    InputError
        If the folder holds a run of another claim, holds something else, or cannot be written.
    """
    told = ""
    while True:
        run, made_elsewhere = _find(folder, claim_file, claim)
        if made_elsewhere != told:
            print(made_elsewhere, file=sys.stderr, flush=True)
            told = made_elsewhere
        if run.finished:
            yield run
            return
        made = [place for place in run.partial.parents if not place.exists()]
        with locked(
            run.partial / LOCK, f"another process computes {run.folder}: waiting until it is done"
        ):
            mine = {LOCK}
            try:
                if _find(folder, claim_file, claim)[0] == run:
                    mine.add(claim_file)
                    remove_unfinished(run.partial)
                    write_whole(run.partial / claim_file, json_bytes(claim))
                    yield run
                    return
                _free(run.partial, mine, [])  # another process has finished it in the meantime
            except InputError:
                _free(run.partial, mine, made)
                raise
            except KeyboardInterrupt as stop:
                if resumes:
                    stop.add_note("the same command goes on where this one stopped")
                raise


def code(packages: tuple[str, ...], libraries: tuple[str, ...] = ()) -> Claim:
    """Return what computes: a hash of the sources of some packages, and the versions of what they
    build on.

    All the sources, since which of them a number depends on is known to nobody; and the libraries,
    since what they compute changes with their versions, too.
    """
    return {
        "sources": _source_hash(packages),
        **{name: _version(name) for name in (*LIBRARIES, *libraries)},
    }


def default_folder(name: str, claim: Claim) -> Path:
    """Return runs/NAME-HASH, the hash of the claim without its code."""
    return (
        Path("runs")
        / f"{name}-{json_hash({key: value for key, value in claim.items() if key != 'code'})[:8]}"
    )


@lru_cache
def _source_hash(packages: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        for root in map(Path, (spec and spec.submodule_search_locations) or ()):
            for path in sorted(path for path in root.rglob("*.py") if path.name != LOOKS):
                total.update(
                    f"{package}/{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes()
                )
    return total.hexdigest()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _free(folder: Path, mine: set[str], made: list[Path]) -> None:
    """Remove a folder in which nothing lies but these files, and those above it that were made for
    it and are empty.
    """
    with suppress(OSError):  # a file of the user's may have come, which keeps the folder
        if {path.name for path in folder.iterdir()} <= mine:
            for name in mine:
                (folder / name).unlink(missing_ok=True)
            for place in (folder, *made):
                place.rmdir()


def _find(folder: Path, claim_file: str, claim: Claim) -> tuple[RunFolder, str]:
    """Return where the run of this claim lies or will lie, and what to tell of one that other code
    made.
    """
    name = folder.resolve().name
    run = RunFolder(folder, folder.parent / f"{name}.partial", (folder / claim_file).is_file())
    for place in (folder,) if run.finished else (folder, run.partial):
        made = _check_claim(place, claim_file, claim, place == run.partial)
        if made is not None:
            beside = folder.with_name(f"{name}-{json_hash(claim['code'])[:8]}")
            told = (
                f"{place} was made by other code ({made}): it stays, and {beside} is the folder of"
                " this run"
            )
            return _find(beside, claim_file, claim)[0], told
    return run, ""


def _is_free(folder: Path, is_partial: bool) -> bool:
    """Say whether nothing lies in a folder; in an unfinished one, nothing but what a killed run
    leaves before its claim.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return True
    except OSError:
        return False  # a file, or a folder that may not be read
    return not names or (
        is_partial and all(name == LOCK or UNFINISHED.fullmatch(name) for name in names)
    )


def _check_claim(folder: Path, claim_file: str, wanted: Claim, is_partial: bool) -> str | None:
    """Return what code made the run in a folder, if other code did; raise if the folder is neither
    free nor such a run's.
    """
    if folder.is_symlink() or folder.resolve() == Path.cwd():
        raise InputError(
            f"{folder} is a link or the working directory, which no run can replace: choose another"
            " --out"
        )
    if _is_free(folder, is_partial):
        return None
    try:
        found = read_json(folder / claim_file, "the claim of a run")
    except InputError as error:
        if not folder.exists():  # another process has moved it away in this moment
            return None
        raise InputError(
            f"{folder} exists and is not the folder of a run: choose another --out"
        ) from error
    different = [
        f"{key} {found.get(key)!r} (now {wanted.get(key)!r})"
        for key in sorted((found | wanted).keys() - {"code"})
        if found.get(key) != wanted.get(key)
    ]
    if different:
        raise InputError(
            f"{folder} holds a run with other options: {', '.join(different)}. Choose another"
            " --out, or remove that folder"
        )
    made, now = found.get("code"), wanted["code"]
    if made == now:
        return None
    if not isinstance(made, dict):
        return "it does not say which"
    return ", ".join(
        f"{key} {str(made.get(key))[:12]}, now {str(now.get(key))[:12]}"
        for key in sorted(made | now)
        if made.get(key) != now.get(key)
    )

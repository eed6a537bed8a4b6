"""The frame of every study: a typed config, a `compute`, a `table` and a `plot`; it writes one whole folder for each run.

    RUN/config.json     the options
    RUN/manifest.json   command, git state, versions, device, seed, the weights' hash, wall time
    RUN/data.npz        what was computed; figures are drawn from it alone
    RUN/table.csv       the figures in numbers
    RUN/figure.png, RUN/figure.pdf

While a study computes, its folder is called `RUN.partial`, and each finished piece lies in it. A run that was interrupted
goes on from there; at the end the folder is renamed, so that RUN exists whole or not at all.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import platform
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jacobian_lab import InputError, _require
from mnist.files import write_whole
from mnist.weights import read_card
from studies.style import STYLE
from studies.weights import pipeline_hash

Arrays: TypeAlias = dict[str, NDArray[Any]]
Row: TypeAlias = dict[str, str | int | float]
LIBRARIES = ("jacobian-lab", "torch", "numpy", "scipy", "matplotlib")
PIPELINE, PIPELINE_LIBRARIES = "pipeline", ("diffusers", "transformers")
"""The kind of a model in diffusers' format, and what else runs it."""


@dataclass(frozen=True)
class Config:
    """Options that every study has."""

    seed: int = 0
    """Seed of the noise; each sample derives its own."""
    device: str = "cpu"
    """Where the network runs: cpu, cuda, cuda:1, mps."""
    out: Path | None = None
    """Folder of the run; by default runs/STUDY-HASH, the hash of the options."""

    def __post_init__(self) -> None:
        _require.options(self)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must lie from 0 to 2^63 - 1: got {self.seed}")
        _require.device(self.device)


C = TypeVar("C", bound=Config)


class Pieces:
    """Finished pieces of a computation, kept on disk, so that an interrupted run does not compute them again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = 0

    def __call__(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """Return the piece of this name: from disk if it is there, else computed and written whole."""
        path = self.folder / f"{name}.npz"
        if path.is_file() and (stored := _stored(path)) is not None:
            self.found += 1
            return stored
        arrays = compute()
        _save(path, arrays)
        return arrays


@dataclass(frozen=True)
class Study(Generic[C]):
    """A question, and how it is answered and drawn."""

    name: str
    config: type[C]
    compute: Callable[[C, Pieces], Arrays]
    table: Callable[[Arrays], list[Row]]
    plot: Callable[[Arrays], Figure]
    models: Callable[[C], Mapping[str, str]]
    """The models that a config uses, name or path -> kind (of a card, or "pipeline"), for the manifest."""


def run(study: Study[C], config: C) -> Path:
    """Run a study, go on with an interrupted one, or redraw a finished one; return its folder.

    Raises
    ------
    InputError
        If the folder holds a run with other options, holds something else, or cannot be written.
    """
    claim = _claim(study, config)
    digest = hashlib.sha256(json.dumps(claim, sort_keys=True).encode()).hexdigest()[:8]
    folder = config.out or Path("runs") / f"{study.name}-{digest}"
    partial = folder.parent / (folder.resolve().name + ".partial")
    _check_claim(folder, claim)
    _check_claim(partial, claim)
    if (folder / "config.json").is_file():
        if not (folder / "data.npz").is_file():
            raise InputError(f"{folder} is the folder of this run, but its data.npz is gone: remove the folder and run again")
        stored = _stored(folder / "data.npz")
        if stored is None:
            raise InputError(f"{folder / 'data.npz'} is damaged: remove the folder {folder} and run again")
        draw(study, stored, folder)
        return folder
    try:
        partial.mkdir(parents=True, exist_ok=True)
        write_whole(partial / "config.json", _json(claim))
    except OSError as error:
        raise InputError(f"cannot write to {partial}: {error.strerror}. Choose another --out") from error
    started = time.time()
    try:
        pieces = Pieces(partial)
        arrays = study.compute(config, pieces)
    except InputError:
        if [path.name for path in partial.iterdir()] == ["config.json"]:
            shutil.rmtree(partial)  # nothing was computed: the folder stays free for the corrected command
        raise
    _save(partial / "data.npz", arrays)
    draw(study, arrays, partial)
    write_whole(partial / "manifest.json", _json(manifest(study, config, started, pieces.found)))
    for piece in partial.glob("*.npz"):
        if piece.name != "data.npz":
            piece.unlink()
    if folder.is_dir():
        shutil.rmtree(folder)  # empty but for files that were never finished, as checked above
    partial.rename(folder)
    return folder


def check_times(times: tuple[int | float, ...]) -> None:
    """Raise unless there are times, each once; whether the schedule has them, it says itself."""
    if not times or len(set(times)) != len(times):
        raise InputError(f"--times must be one or more different times: got {' '.join(map(str, times)) or 'none'}")


def draw(study: Study[C], arrays: Arrays, folder: Path) -> None:
    """Write the table and the figure of the arrays into the folder."""
    rows = study.table(arrays)
    write_whole(folder / "table.csv", _csv(rows))
    with mpl.rc_context(STYLE):
        figure = study.plot(arrays)
        for ending in ("png", "pdf"):
            path = folder / f"figure.partial.{ending}"
            figure.savefig(path)
            path.replace(folder / f"figure.{ending}")


def manifest(study: Study[C], config: C, started: float, found: int) -> dict[str, Any]:
    """Return what a reader needs to repeat the run."""
    libraries = (*LIBRARIES, *(PIPELINE_LIBRARIES if PIPELINE in study.models(config).values() else ()))
    return {
        "study": study.name,
        "command": shlex.join(["jacobian-lab", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "pieces_from_an_interrupted_run": found,
        "git": _git(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "machine": f"{platform.system()} {platform.machine()}",
        "device": config.device,
        "seed": config.seed,
        "weights": _claim(study, config)["weights"],
    }


def _claim(study: Study[C], config: C) -> dict[str, Any]:
    """Return what makes a run this one: the study, its options without the folder, and the weights that they name."""
    options = {key: value for key, value in dataclasses.asdict(config).items() if key != "out"}
    weights = {name: pipeline_hash(name) if kind == PIPELINE else read_card(name, kind).get("sha256")
               for name, kind in study.models(config).items()}
    claim: dict[str, Any] = json.loads(json.dumps({"study": study.name, **options, "weights": weights}, default=str))
    return claim


def _check_claim(folder: Path, wanted: dict[str, Any]) -> None:
    """Raise if the folder is not free for this run."""
    if folder.is_symlink() or folder.resolve() == Path.cwd():
        raise InputError(f"{folder} is a link or the working directory, which no run can replace: choose another --out")
    left = folder.iterdir() if folder.is_dir() else ()
    if not folder.exists() or (folder.is_dir() and all(path.suffix == ".partial" and path.is_file() for path in left)):
        return  # free: at most files that were never finished; a folder of that name is another run, which goes on
    try:
        found = dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} exists and is not the folder of a run: choose another --out") from error
    different = [f"{key} {found.get(key)!r} (now {wanted.get(key)!r})" for key in sorted(found | wanted)
                 if found.get(key) != wanted.get(key)]
    if different:
        raise InputError(f"{folder} holds a run with other options: {', '.join(different)}. Choose another --out, or remove "
                         "that folder")


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _csv(rows: list[Row]) -> bytes:
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _stored(path: Path) -> Arrays | None:
    """Return the arrays of a file, or None if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file) as stored:  # np.load would leave a damaged file open
            return dict(stored)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error):
        return None


def _save(path: Path, arrays: Arrays) -> None:
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())


def _git() -> dict[str, str | bool] | None:
    """Return commit and cleanness of the repository that holds this file, or None if it is not in one."""
    git = shutil.which("git")
    here = Path(__file__)

    def ask(*words: str) -> str:
        done = subprocess.run([str(git), *words], cwd=here.parent, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", here.name)  # a project that merely encloses our installation is not meant
        return {"commit": ask("rev-parse", "HEAD"), "clean": not ask("status", "--porcelain")}
    except (OSError, subprocess.SubprocessError):
        return None

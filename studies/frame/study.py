"""The frame of every study: a typed config, a `compute`, a `table` and a `plot`; it writes one
whole folder for each run.

    RUN/config.json     the options
    RUN/manifest.json   command, git state, versions, device, seed, the weights' hash, wall time
    RUN/data.npz        what was computed; figures are drawn from it alone
    RUN/table.csv       the figures in numbers
    RUN/figure.png, RUN/figure.pdf      unless there is nothing to draw

While a study computes, its folder is called `RUN.partial`, and each finished piece lies in it. A
run that was interrupted goes on from there; at the end the folder is renamed, so that RUN exists
whole or not at all. See `mnist.runs`. What measures times or memory measures anew in each run: its
folder is called after the time, and a finished one is never handed out.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Generic, TypeVar

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from jacobian_lab import InputError, _require
from jacobian_lab._files import json_bytes, load_arrays, read_json, save_arrays, write_whole
from mnist.runs import Claim, Outcome, code, default_folder, run_folder
from mnist.weights import COMPUTES, read_card
from studies.frame.answer import Answer, terminal_table
from studies.frame.answer import Row as Row
from studies.frame.figure_style import STYLE
from studies.frame.model_files import pipeline_hash
from studies.frame.pieces import TURN, Needs
from studies.frame.pieces import Arrays as Arrays
from studies.frame.pieces import Pieces as Pieces
from studies.frame.user_models import made_hash

PACKAGES = ("jacobian_lab", "mnist", "studies")
OUTSIDE = ("out", "processes")
"""Options that change no number."""
MADE = "made"
"""The kind of a model that a function of the user's makes."""
FIGURES: dict[str, Any] = {"png": {"pil_kwargs": {"optimize": True}}, "pdf": {}}
"""Formats, and how they are saved: a small PNG."""
PIPELINE, PIPELINE_LIBRARIES = "pipeline", ("diffusers", "transformers")
"""The kind of a model in diffusers' format, and what else runs it."""


@dataclass(frozen=True)
class Options:
    """The option that every run has."""

    out: Path | None = None
    """Folder of the run; by default runs/STUDY-HASH, the hash of the options, or of a benchmark
    runs/STUDY-TIME.
    """

    def __post_init__(self) -> None:
        _require.options(self)


@dataclass(frozen=True)
class Config(Options):
    """Options that every study has."""

    seed: int = 0
    """Seed of the noise; each sample derives its own."""
    device: str = "cpu"
    """Where the network runs: cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must lie from 0 to 2^63 - 1: got {self.seed}")
        _require.device(self.device)


C = TypeVar("C", bound=Options)


@dataclass(frozen=True)
class Study(Generic[C]):
    """A question, and how it is answered and drawn."""

    name: str
    config: type[C]
    compute: Callable[[C, Pieces], Arrays]
    table: Callable[[Arrays], list[Row]]
    plot: Callable[[Arrays], Figure] | None
    """None if there is nothing to draw."""
    models: Callable[[C], Mapping[str, str]]
    """The models that a config uses, name or path -> kind (of a card, or "pipeline"), for the
    manifest.
    """
    answer: Answer = field(default_factory=Answer)
    """The part of the table that is printed at the end."""
    libraries: tuple[str, ...] = ()
    """What else its numbers depend on, besides torch, numpy, scipy, and for pipelines diffusers and
    transformers.
    """
    measures_anew: bool = False
    """Whether each run measures again, as times and memory have to be."""


def run(study: Study[C], config: C) -> Path:
    """Run a study, go on with an interrupted one, or redraw a finished one; return its folder. See
    `perform`.
    """
    return perform(study, config).folder


def perform(
    study: Study[C],
    config: C,
    runs: Path = Path("runs"),
    prepare: Callable[[Pieces], None] = lambda _: None,
) -> Outcome:
    """Run a study, go on with an interrupted one, or redraw a finished one; return its folder, in
    `runs` unless the options name it, and which of the three. `prepare` is shown the pieces before
    they are computed, to name an engine.

    A run of other code is never handed out: the study is computed anew beside it, which is printed.
    Nor is one that measured what has to be measured anew.

    Raises
    ------
    InputError
        If the folder holds a run with other options, holds something else, or cannot be written; or
        what lies in it is damaged.
    """
    with TURN:
        claim = claim_of(study, config)
    name = default_folder(study.name, claim).name
    if study.measures_anew:
        name = f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    place_of = config.out or runs / name
    with run_folder(place_of, "config.json", claim, not study.measures_anew) as place, TURN:
        if place.finished and study.measures_anew:
            raise InputError(
                f"{place.folder} holds a finished run, and {study.name} measures anew: choose"
                " another --out"
            )
        if place.finished:
            stored = load_arrays(
                place.folder / "data.npz", f"Remove the folder {place.folder} and run again"
            )
            answer = draw(study, stored, place.folder)
            how = "reused: table and figures drawn anew from data.npz"
            return Outcome(place.folder, how + other_threads(place.folder), answer)
        needs = Needs(claim["code"], claim["weights"], dict(study.models(config)))
        started, pieces = time.time(), Pieces(place.partial, needs)
        prepare(pieces)
        arrays = study.compute(config, pieces)
        save_arrays(place.partial / "data.npz", arrays)
        answer = draw(study, arrays, place.partial)
        write_whole(
            place.partial / "manifest.json",
            json_bytes(manifest(study, config, claim, started, pieces.found)),
        )
        place.finish()
        for name in pieces.names:
            (place.folder / name).unlink(missing_ok=True)
    found = f"resumed with {pieces.found} piece{'s' * (pieces.found > 1)}"
    return Outcome(place.folder, found if pieces.found else "computed", answer)


def check_times(times: tuple[int | float, ...]) -> None:
    """Raise unless there are times, each once; whether the schedule has them, it says itself."""
    if not times or len(set(times)) != len(times):
        raise InputError(
            "--times must be one or more different times: got"
            f" {' '.join(map(str, times)) or 'none'}"
        )


def draw(study: Study[C], arrays: Arrays, folder: Path) -> str:
    """Write the table and the figure of the arrays into the folder; return the answer."""
    rows = study.table(arrays)
    write_whole(folder / "table.csv", _csv(rows))
    for ending, image in figures(study, arrays).items():
        write_whole(folder / f"figure.{ending}", image)
    return terminal_table(study.answer(rows))


def figures(study: Study[C], arrays: Arrays, endings: Iterable[str] = FIGURES) -> dict[str, bytes]:
    """Return the figure of the arrays in each format; none if there is nothing to draw."""
    if study.plot is None:
        return {}
    found = {}
    with mpl.rc_context(STYLE):
        figure = study.plot(arrays)
        for ending in endings:
            buffer = BytesIO()
            figure.savefig(buffer, format=ending, **FIGURES[ending])
            found[ending] = buffer.getvalue()
    return found


def manifest(
    study: Study[C], config: C, claim: Claim, started: float, found: int
) -> dict[str, Any]:
    """Return what a reader needs to repeat the run."""
    versions = {name: number for name, number in claim["code"].items() if name != "sources"}
    return {
        "study": study.name,
        "command": shlex.join(["jacobian-lab", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "pieces_from_an_interrupted_run": found,
        "git": _git(),
        "versions": {
            "python": platform.python_version(),
            **versions,
            "matplotlib": version("matplotlib"),
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "device": getattr(config, "device", "cpu"),
        "seed": getattr(config, "seed", 0),
        "weights": claim["weights"],
    }


def other_threads(folder: Path) -> str:
    """Return what is to be told of a finished run if another number of threads computed it."""
    try:
        made = read_json(folder / "manifest.json", "a manifest").get("threads")
    except InputError:
        return ""
    now = torch.get_num_threads()
    if made in (None, now):
        return ""
    return (
        f" (computed with {made} thread{'s' * (made != 1)} a piece, and this command would take"
        f" {now}: sums of floats may differ in their last digits)"
    )


def claim_of(study: Study[C], config: C) -> Claim:
    """Return what makes a run this one: study, options but those `OUTSIDE`, weights and code."""
    options = {k: value for k, value in dataclasses.asdict(config).items() if k not in OUTSIDE}
    models = study.models(config)
    weights = {name: identity(name, kind) for name, kind in models.items()}
    # what a user's function calls is unknown
    by_diffusers = not {PIPELINE, MADE}.isdisjoint(models.values())
    libraries = (*(PIPELINE_LIBRARIES if by_diffusers else ()), *study.libraries)
    claim: Claim = json.loads(
        json.dumps(
            {"study": study.name, **options, "weights": weights, "code": code(PACKAGES, libraries)},
            default=str,
        )
    )
    return claim


def identity(name: str, kind: str) -> Any:
    """Return the hashes of a model's weights, and of what uses them."""
    if kind == MADE:
        return made_hash(name)
    return pipeline_hash(name) if kind == PIPELINE else _essentials(read_card(name, kind))


def _essentials(card: dict[str, Any]) -> dict[str, Any]:
    """Return of a model's card what its numbers depend on: the weights, and how they are used."""
    return {key: card[key] for key in COMPUTES if key in card}


def _csv(rows: list[Row]) -> bytes:
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    )
    return text.getvalue().encode()


def _git() -> dict[str, str | bool] | None:
    """Return commit and cleanness of the repository of this file, or None if it has none."""
    git = shutil.which("git")
    here = Path(__file__)

    def ask(*words: str) -> str:
        done = subprocess.run(
            [str(git), *words],
            cwd=here.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout.strip()

    try:
        # a project that merely encloses our installation is not meant
        ask("ls-files", "--error-unmatch", here.name)
        return {"commit": ask("rev-parse", "HEAD"), "clean": not ask("status", "--porcelain")}
    except (OSError, subprocess.SubprocessError):
        return None

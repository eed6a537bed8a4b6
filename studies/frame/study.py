"""The frame of every study: a typed config, a `compute`, a `table` and a `plot`; it writes one
whole folder for each run.

    RUN/config.json     the options
    RUN/manifest.json   command, git state, versions, device, seed, the weights' hash, wall time
    RUN/data.nc         what was computed, labelled; figures are drawn from it alone
    RUN/SHA256SUMS      its checksum
    RUN/table.csv       the figures in numbers
    RUN/findings.csv    of a study of published claims: what it says of them
    RUN/figure.png, RUN/figure.pdf      unless there is nothing to draw

While a study computes, its folder is called `RUN.partial`, and each finished piece lies in it. A
run that was interrupted goes on from there; at the end the folder is renamed, so that RUN exists
whole or not at all. See `mnist.runs`. What measures times or memory measures anew in each run: its
folder is called after the time, and a finished one is never handed out.
"""

from __future__ import annotations

import csv
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from jacobian_lab import InputError, _require
from jacobian_lab._files import json_bytes, write_whole
from mnist.runs import Claim, Outcome, default_folder, run_folder
from studies.frame.answer import Answer, terminal_table
from studies.frame.answer import Row as Row
from studies.frame.dataset import (
    DATA,
    Arrays,
    Variables,
    arrays_of,
    dataset,
    read_dataset,
    write_dataset,
)
from studies.frame.figure_style import STYLE
from studies.frame.figure_text import printable, without_math
from studies.frame.findings import Finding, findings_in_words
from studies.frame.pieces import TURN, Needs, Pieces
from studies.frame.provenance import claim_of, manifest, other_threads

if TYPE_CHECKING:
    import xarray

__all__ = ["Arrays", "Pieces", "Row", "Study"]  # names of others, which studies take from here
FIGURES: dict[str, Any] = {"png": {"pil_kwargs": {"optimize": True}}, "pdf": {}}
"""Formats, and how they are saved: a small PNG."""


@dataclass(frozen=True)
class Options:
    """The option that every run has."""

    out: Path | None = None
    """Folder of the run; by default runs/STUDY-HASH, the hash of the options, or of a benchmark
    runs/STUDY-TIME.
    """

    def __post_init__(self) -> None:
        _require.options(self)
        for option in fields(self):
            value = getattr(self, option.name)
            of_any_length = isinstance(value, tuple) and str(option.type).endswith("...]")
            if of_any_length and len(set(value)) < len(value):
                name = f"--{option.name.replace('_', '-')}"
                raise InputError(f"{name} must each be given once: got {' '.join(map(str, value))}")


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
    variables: Variables = field(default_factory=dict)
    """What `compute` returns: name -> dimensions, unit and description."""
    answer: Answer = field(default_factory=Answer)
    """The part of the table that is printed at the end."""
    libraries: tuple[str, ...] = ()
    """What else its numbers depend on, besides torch, numpy, scipy, and for pipelines diffusers and
    transformers.
    """
    measures_anew: bool = False
    """Whether each run measures again, as times and memory have to be."""
    findings: Callable[[Arrays], list[Finding]] | None = None
    """What it says of published claims, which is printed below the answer."""
    failures: Callable[[Arrays], list[str]] | None = None
    """Which of its checks failed, a line each, besides the assertions of findings: a command then
    ends with exit status 1.
    """


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
        name = f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    place_of = config.out or runs / name
    with run_folder(place_of, "config.json", claim, not study.measures_anew) as place, TURN:
        if place.finished and study.measures_anew:
            raise InputError(
                f"{place.folder} holds a finished run, and {study.name} measures anew: choose"
                " another --out"
            )
        if place.finished:
            drawn = draw(study, arrays_of(read_dataset(place.folder)), place.folder)
            how = f"reused: table and figures drawn anew from {DATA}"
            return Outcome(place.folder, how + other_threads(place.folder), *drawn)
        if study.measures_anew:
            for left in place.partial.glob("*.npz"):
                left.unlink()  # by an interrupted command, which measured at another time
        needs = Needs(claim["code"], claim["weights"], dict(study.models(config)))
        started, pieces = time.time(), Pieces(place.partial, needs)
        prepare(pieces)
        arrays = printable(study.compute(config, pieces))
        write_dataset(place.partial, labelled(study, arrays, claim))
        drawn = draw(study, arrays, place.partial)
        write_whole(
            place.partial / "manifest.json",
            json_bytes(manifest(study, config, claim, started, pieces.found)),
        )
        place.finish()
        for name in pieces.names:
            (place.folder / name).unlink(missing_ok=True)
    found = f"resumed with {pieces.found} piece{'s' * (pieces.found > 1)}"
    return Outcome(place.folder, found if pieces.found else "computed", *drawn)


def check_times(times: tuple[int | float, ...]) -> None:
    """Raise unless there are times, each once; whether the schedule has them, it says itself."""
    if not times or len(set(times)) != len(times):
        raise InputError(
            "--times must be one or more different times: got"
            f" {' '.join(map(str, times)) or 'none'}"
        )


def labelled(study: Study[C], arrays: Arrays, claim: Claim) -> xarray.Dataset:
    """Return a run's arrays as a dataset that says which run it is of."""
    options = {key: value for key, value in claim.items() if key not in ("study", "code")}
    return dataset(
        arrays,
        study.variables,
        {
            "title": f"jacobian-lab {study.name}",
            "study": study.name,
            "options": json.dumps(options),
            "code": json.dumps(claim["code"]),
        },
    )


def draw(study: Study[C], arrays: Arrays, folder: Path) -> tuple[str, tuple[str, ...]]:
    """Write the table and the figure of the arrays into the folder; return the answer, and which
    checks failed.
    """
    rows = study.table(arrays)
    write_whole(folder / "table.csv", csv_of(rows))
    for ending, image in figures(study, arrays).items():
        write_whole(folder / f"figure.{ending}", image)
    failures = study.failures(arrays) if study.failures else []
    findings = study.findings(arrays) if study.findings else []
    if findings:
        write_whole(folder / "findings.csv", csv_of([finding.row() for finding in findings]))
    failures += [finding.oracle for finding in findings if not finding.passed]
    return answer_text(study, rows, findings), tuple(failures)


def answer_text(study: Study[C], rows: list[Row], findings: list[Finding]) -> str:
    """Return what a study prints at its end."""
    answer = terminal_table(study.answer(rows))
    return f"{answer}\n\n{findings_in_words(findings)}" if findings else answer


def figures(
    study: Study[C],
    arrays: Arrays,
    endings: Iterable[str] = FIGURES,
    style: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return the figure of the arrays in each format, with settings of matplotlib on top of the
    house's; none if there is nothing to draw.
    """
    if study.plot is None:
        return {}
    found = {}
    with mpl.rc_context(STYLE | dict(style or {})):
        figure = study.plot(without_math(arrays))
        for ending in endings:
            buffer = BytesIO()
            figure.savefig(buffer, format=ending, **FIGURES.get(ending, {}))
            found[ending] = buffer.getvalue()
    return found


def csv_of(rows: list[Row]) -> bytes:
    """Return the rows as the content of table.csv."""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    )
    return text.getvalue().encode()

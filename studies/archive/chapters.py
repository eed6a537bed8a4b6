"""What a report says of one run, as texts and tables."""

from __future__ import annotations

import csv
import shlex
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

from studies.archive.figure_svg import inline_figure
from studies.archive.listing import in_words, words_of
from studies.archive.stored import Stored
from studies.commands import COMMANDS
from studies.frame.answer import Row, cells_of
from studies.frame.dataset import Arrays, arrays_of
from studies.frame.option_texts import option_texts
from studies.frame.study import csv_of

if TYPE_CHECKING:
    import xarray

HEAD = ["option", "value", "default", "meaning"]


class Table(NamedTuple):
    """A table of texts."""

    names: list[str]
    cells: list[list[str]]


@dataclass(frozen=True)
class Chapter:
    """What a report says of one run."""

    run: Stored
    anchor: str
    """Its place in the page, and how the ids in it begin."""
    command: str
    """Of the study, such as "benchmark contest"."""
    chosen_words: str
    """The options that are not at their defaults, as the command line takes them."""
    question: str
    """What the study does, in a sentence."""
    about: str
    """The same in a paragraph."""
    figure: str
    """SVG, or nothing."""
    answer: Table
    whole: Table
    """The rows of table.csv."""
    variables: Table
    chosen: Table
    others: Table
    provenance: Table
    repeat: str
    """The command that computes the same again."""


def chapter_of(run: Stored, anchor: str) -> Chapter:
    """Return what a report says of a run.

    Raises
    ------
    InputError
        If the run is not finished, of the old kind, damaged, of a study that is gone, or of one
        whose table and figure need what its data lack.
    """
    command, chosen, data = run.command, run.chosen(), run.data()
    known = {name: entry for group in COMMANDS.values() for name, entry in group.items()}[command]
    about = import_module(known.module).__doc__ or ""
    rows, figure = _drawn(run, anchor, arrays_of(data))
    options = _options(run)
    return Chapter(
        run=run,
        anchor=anchor,
        command=command,
        chosen_words=in_words(chosen),
        question=known.does,
        about=" ".join(about.split("\n\n")[0].split()),
        figure=figure,
        answer=Table(*cells_of(run.study.answer(rows))),
        whole=_whole(rows),
        variables=_variables(data),
        chosen=Table(HEAD, [cells for name, cells in options.items() if name in chosen]),
        others=Table(HEAD, [cells for name, cells in options.items() if name not in chosen]),
        provenance=Table(["what", "value"], _leaves(run.manifest, "")),
        repeat=shlex.join(["jacobian-lab", *command.split(), *words_of(chosen)]),
    )


def _drawn(run: Stored, anchor: str, arrays: Arrays) -> tuple[list[Row], str]:
    """Return a run's table and its figure."""
    study, label = run.study, f"Figure of the study {run.study_name}; its numbers are in the table"
    with run.told_if_other_code():
        rows = study.table(arrays)
        return rows, inline_figure(study, arrays, anchor, label) if study.plot else ""


def _whole(rows: list[Row]) -> Table:
    names, *cells = csv.reader(StringIO(csv_of(rows).decode()))
    return Table(names, cells)


def _variables(data: xarray.Dataset) -> Table:
    return Table(
        ["variable", "dimensions", "units", "description"],
        [
            [
                str(name),
                ", ".join(f"{dim} {size}" for dim, size in variable.sizes.items()) or "single",
                variable.attrs.get("units", ""),
                variable.attrs.get("description", ""),
            ]
            for name, variable in data.variables.items()
        ],
    )


def _options(run: Stored) -> dict[str, list[str]]:
    """Return the options of a run, name -> the cells of its row."""
    texts = option_texts(run.study.config)
    defaults = {field.name: field.default for field in fields(run.study.config)}
    return {
        name: [
            f"--{name.replace('_', '-')}",
            said(value),
            said(defaults.get(name, MISSING)),
            texts.get(name, ""),
        ]
        for name, value in run.options().items()
    }


def said(value: Any) -> str:
    """Return the value of an option in words."""
    if value is None or value is MISSING:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _leaves(value: Any, name: str) -> list[list[str]]:
    """Return the leaves of a JSON object, each with its path, in words."""
    if not isinstance(value, dict):
        return [[name, said(value)]]
    return [
        line for key, entry in value.items() for line in _leaves(entry, f"{name} {key}".strip())
    ]

"""What a study prints at its end: the few rows and columns of its table that a reader wants.

Answer(columns, keeps, over, across)   selects rows and columns, and averages over digits or seeds
    terminal_table, markdown_table   the rows as text; `x_low` and `x_high` are shown beside x
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from studies.frame.statistics import mean_interval

Value: TypeAlias = str | int | float
Row: TypeAlias = dict[str, Value]
MOST = 40
"""Rows that are printed: a screen."""


@dataclass(frozen=True)
class Answer:
    """Which part of a table is the answer.

    Parameters
    ----------
    columns : sequence of str, optional
        The columns that are kept, in this order; all by default.
    keeps : callable, optional
        Row -> whether it is kept; all by default.
    over : sequence of str, optional
        Columns, such as "digit", over whose values the numbers are averaged: the mean and its
        95 % interval by Student's t take the place of a number. Several numbers at one value are
        not independent, and count as their mean.
    by : sequence of str, optional
        Columns of numbers that are not averaged, such as a setting; "time" never is.
    across : str, optional
        One of the columns, such as "quantity", whose entries become columns, each with the numbers
        of the last column.
    """

    columns: tuple[str, ...] = ()
    keeps: Callable[[Row], bool] = bool
    over: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    across: str = ""

    def __call__(self, rows: list[Row]) -> list[Row]:
        """Return the rows of the answer."""
        found = self._selected([row for row in rows if self.keeps(row)])
        return laid_across(found, self.across, self.columns[-1]) if self.across else found

    def _selected(self, kept: list[Row]) -> list[Row]:
        if self.over:
            names = (*self.columns, *self.over)
            kept = [{name: row[name] for name in names} for row in kept] if self.columns else kept
            return averaged(kept, self.over, self.by)
        wanted = [name for column in self.columns for name in (column, *_bounds(column))]
        return [{n: row[n] for n in wanted if n in row} for row in kept] if wanted else kept


def laid_across(rows: list[Row], name: str, value: str) -> list[Row]:
    """Return a row for each group of rows that agree in all but two columns: the entries of the
    first name its columns, which hold those of the second with their intervals.
    """
    found: dict[tuple[tuple[str, Value], ...], Row] = {}
    for row in rows:
        entry, ends = str(row[name]), _bounds(value)
        head = tuple((key, v) for key, v in row.items() if key not in (name, value, *ends))
        line = found.setdefault(head, dict(head))
        line[entry] = row[value]
        line |= {to: row[end] for end, to in zip(ends, _bounds(entry), strict=True) if end in row}
    return list(found.values())


def averaged(rows: list[Row], over: tuple[str, ...], by: tuple[str, ...] = ()) -> list[Row]:
    """Return a row for each group of rows that agree in all but their numbers: the means of these.

    What is a float in any row is a number; times, texts and integers name the group.
    """
    names = [name for name in (rows[0] if rows else ()) if name not in (*by, *over, "time")]
    numbers = [name for name in names if any(isinstance(row[name], float) for row in rows)]
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        key = tuple(v for name, v in row.items() if name not in numbers and name not in over)
        groups.setdefault(key, []).append(row)
    return [_mean(group, numbers, over) for group in groups.values()]


def _mean(group: list[Row], numbers: list[str], over: tuple[str, ...]) -> Row:
    found: Row = {}
    for name, first in group[0].items():
        if name in numbers:
            alike: dict[tuple[Value, ...], list[float]] = {}
            for row in group:
                if row[name] != "":
                    alike.setdefault(tuple(row[n] for n in over), []).append(float(row[name]))
            values = [fmean(some) for some in alike.values()]
            if not values:
                found[name] = ""
                continue
            found[name], low, high = mean_interval(values)
            if len(values) > 1:
                found |= dict(zip(_bounds(name), (low, high), strict=True))
        elif name not in over:
            found[name] = first
    return found


def terminal_table(rows: list[Row], most: int = MOST) -> str:
    """Return the rows, the first `most` of them, as a table of aligned columns for a terminal."""
    names, cells = cells_of(rows)
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (names, *cells[:most])
    ]
    more = [f"... and {len(cells) - most} rows more in table.csv"] if len(cells) > most else []
    return "\n".join([*lines, *more])


def markdown_table(rows: list[Row]) -> str:
    """Return the rows as a table in Markdown."""
    names, cells = cells_of(rows)
    lines = [names, ["---"] * len(names), *cells]
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells_of(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the texts of the cells; columns that are empty throughout are left
    out.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    bounds = {end for name in columns for end in _bounds(name)}
    names = [
        name
        for name in columns
        if name not in bounds and any(row.get(name, "") != "" for row in rows)
    ]
    cells = [[_cell(row, name) for name in names] for row in rows]
    return [name.replace("_", " ") for name in names], cells


def _cell(row: Row, name: str) -> str:
    low, high = (row.get(end, "") for end in _bounds(name))
    text = _text(row.get(name, ""))
    known = all(isinstance(end, float) and math.isfinite(end) for end in (low, high))
    return f"{text} [{_text(low)}, {_text(high)}]" if text and known else text


def _bounds(name: str) -> tuple[str, str]:
    """Return the columns of the ends of a column's interval."""
    return ("low", "high") if name in ("value", "mean") else (f"{name}_low", f"{name}_high")


def _text(value: Value) -> str:
    if not isinstance(value, float):
        return str(value)
    return (
        "" if math.isnan(value) else f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    )

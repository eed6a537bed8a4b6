"""Who is first of a task and a budget: runs compared digit by digit, and told in a few columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.frame.answer import Answer, Row
from studies.frame.statistics import mean_interval
from studies.frame.study import Arrays

SCORES = {"agreement": "judge's agreement", "psnr": "PSNR, dB"}
"""By which runs are compared, and how a figure calls them."""
OVER = 1.1
"""How much of its budget a run may cost."""
PAIR = ("inexact Newton", "gradient descent")
"""Our two methods of likely images: along J e and along J^T e."""


def entries_in(arrays: Arrays) -> list[dict[str, Any]]:
    """Return the entries of a contest: "task", "method", "setting", "parameters", "steps"."""
    return [json.loads(str(entry)) for entry in arrays["entries"]]


def budgets_of(arrays: Arrays) -> list[int]:
    """Return the budget for which each run counts: the nearest to what it spent."""
    budgets = np.asarray(arrays["budgets"])
    return [int(budgets[np.abs(budgets - spent).argmin()]) for spent in arrays["passes"].sum(1)]


def behind_the_first(arrays: Arrays) -> dict[int, Row]:
    """Return, for each searched run, how far it is behind the first of its task and budget in
    agreement and in PSNR: the mean over the digits, which all share, and its 95 % interval.

    One that spent a tenth more than its budget is not first.
    """
    evaluations, nearest = arrays["passes"].sum(1), budgets_of(arrays)
    groups: dict[tuple[str, int], list[int]] = {}
    for i, entry in enumerate(entries_in(arrays)):
        if entry["setting"] == "searched" and np.isfinite(arrays["residual"][i]).sum() > 1:
            groups.setdefault((entry["task"], nearest[i]), []).append(i)
    found: dict[int, Row] = {}
    for (_, budget), members in groups.items():
        within = [i for i in members if evaluations[i] <= OVER * budget]
        for score in SCORES if within else ():
            # a digit that failed is not named rightly, and has 0 dB
            values = np.nan_to_num(arrays[score].astype(float))
            first = max(within, key=lambda i: values[i].mean())
            for i in members:
                names = (f"{score}_behind", f"{score}_behind_low", f"{score}_behind_high")
                interval = mean_interval(values[first] - values[i])
                found[i] = found.get(i, {}) | dict(zip(names, interval, strict=True))
    return found


@dataclass(frozen=True)
class Summary(Answer):
    """Of a contest's table, a row for each task and budget: the limit, our two methods, and the
    first of the others in agreement and in PSNR; agreement with its interval, PSNR, and by how much
    each of ours is behind the first where the interval of that is above 0.
    """

    def __call__(self, rows: list[Row]) -> list[Row]:
        """Return the rows of the summary."""
        limits = {row["task"]: _told(row) for row in rows if row["method"] == "limit"}
        groups: dict[tuple[Any, Any], dict[str, Row]] = {}
        for row in rows:
            if row["setting"] == "searched" and row["agreement"] != "":
                groups.setdefault((row["task"], row["budget"]), {})[str(row["method"])] = row
        order = sorted(groups, key=lambda key: (list(limits).index(key[0]), key[1]))
        return [_line(groups[key], limits[key[0]]) for key in order]


def _line(runs: dict[str, Row], limit: str) -> Row:
    """Return the row of a task and a budget."""
    some = next(iter(runs.values()))
    line: Row = {"task": some["task"], "evaluations": some["budget"], "limit": limit}
    line |= {name: _told(runs[name], behind=True) for name in PAIR if name in runs}
    others = [
        row
        for name, row in runs.items()
        if name not in PAIR and float(row["evaluations"]) <= OVER * int(row["budget"])
    ]
    for score in SCORES if others else ():
        best = max(others, key=lambda row: _place(row, score))
        line[f"first of the others, {score}"] = f"{best['method']} {_told(best)}"
    return line


def _place(row: Row, score: str) -> tuple[float, float]:
    """Return what is largest of the first: how far a run is behind counts digits that failed, which
    its own mean leaves out.
    """
    return -float(row.get(f"{score}_behind") or 0), float(row[score])


def _told(row: Row, behind: bool = False) -> str:
    """Return "88.5 % [83, 92], 18.5 dB", and how far behind the run is beyond doubt."""
    rate, low, high = (
        100 * float(row[name]) for name in ("agreement", "agreement_low", "agreement_high")
    )
    text = f"{rate:.3g} % [{low:.0f}, {high:.0f}], {float(row['psnr']):.1f} dB"
    for score, size, unit in (("agreement", 100, " points"), ("psnr", 1, " dB")):
        if behind and float(row.get(f"{score}_behind_low") or 0) > 0:
            text += f"; {size * float(row[f'{score}_behind']):.2g}{unit} behind"
    return text

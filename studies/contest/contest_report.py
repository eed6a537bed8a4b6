"""The contest's table and figures, from what it stored."""

from __future__ import annotations

import json
from math import ceil
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from studies.contest.limits import limit_rows
from studies.contest.standing import SCORES, behind_the_first, budgets_of, entries_in
from studies.frame.answer import Row
from studies.frame.dataset import IMAGE, SUBJECT, Variable
from studies.frame.figure_style import COLOURS
from studies.frame.figure_text import plain_ticks, write_subject
from studies.frame.panels import grid
from studies.frame.statistics import mean_interval, rate_interval, ratio_interval
from studies.frame.study import Arrays

MEANS = ("residual", "psnr", "ssim", "diversity")
"""Scores of a digit whose means are in the table, each with its interval."""
CALIBRATION = ("class_excess", "spread")
"""Whether samples are fair; see `studies.contest.calibration`."""
"""Scores that are drawn."""
REACH = {"agreement": 0.4, "psnr": 6.0}
"""How far below the limit the panels reach."""
FREE = "DDIM"
"""The method that has not heard of the problem: in the table only."""
ACROSS, BEST, GALLERY = 4, 5, 6
"""Most tasks in a line; peers that have a colour; digits that are drawn."""
OURS = (COLOURS["inexact"], COLOURS["gradient"], "#56b4e9", "#1a3e6e", "#7fbf7b")
PEERS = (COLOURS["exact"], COLOURS["krylov"], "#e69f00", "#7b3294", "#8c510a")
OTHER, LIMIT = "#c8c8c8", "#222222"
MARKS = "osv^<>ph"
SCORED = {
    "residual": Variable("entry sample", "RMSE of what is observed, of what the method returned"),
    "psnr": Variable("entry sample", "PSNR to the digit", "dB"),
    "ssim": Variable("entry sample", "structural similarity to the digit"),
    "agreement": Variable("entry sample", "whether the judge sees the digit"),
    "doubt": Variable("entry sample", "the judge's cross entropy", "nat"),
    "diversity": Variable("entry again", "RMS difference of two samples, over sqrt(2)"),
    "kernel_distance": Variable(
        "entry moment", "kernel distance to the true digits, its deviation"
    ),
    "passes": Variable("entry pass", "forward passes, J v and J^T u that a sample cost"),
    "speed": Variable("entry what", "milliseconds for an evaluation of a digit, peak MB"),
}
VARIABLES = {
    **SUBJECT,
    **SCORED,
    "entries": Variable("entry", "task, method, setting, parameters and steps, as JSON"),
    "at_edge": Variable("entry", "parameters whose best value is at an edge of the search"),
    "left_out": Variable("", "methods that do not run on a task, and why, as JSON"),
    "ours": Variable("own", "methods of this project, for each task"),
    "labels": Variable("sample", "classes of the digits"),
    "budgets": Variable("budget", "network evaluations of the searched runs"),
    "tasks": Variable("task", "what is observed"),
    "limit_agreement": Variable("task held_out", "whether the limit's network names the digit"),
    "limit_psnr": Variable("task held_out", "PSNR of the limit's mean image", "dB"),
    "class_excess": Variable(
        "entry sample", "p(class of the sample | y) - p(class of the digit | y)"
    ),
    "distance": Variable("entry sample", "|sample - mean image|^2"),
    "true_distance": Variable("entry sample", "|digit - mean image|^2"),
    "digits": Variable(f"shown {IMAGE}", "the first digits"),
    "observed": Variable(f"task shown {IMAGE}", "what is observed of them"),
    "expected": Variable(f"task shown {IMAGE}", "the limit's mean images"),
    "shown": Variable(f"entry shown {IMAGE}", "the first samples"),
}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each limit and each run, sorted by task, setting and evaluations: means with
    95 % intervals, and how far a searched run is behind the first; last, what was left out and why.
    """
    rows: list[Row] = []
    behind, nearest = behind_the_first(arrays), budgets_of(arrays)
    for i, entry in enumerate(entries_in(arrays)):
        fine = np.isfinite(arrays["residual"][i])
        forward, jvp, vjp = arrays["passes"][i].tolist()
        row: Row = {
            "task": entry["task"],
            "method": entry["method"],
            "setting": entry["setting"],
            "steps": entry["steps"],
            "parameters": json.dumps(entry["parameters"]),
            "at_edge": str(arrays["at_edge"][i]),
            "budget": nearest[i] if entry["setting"] == "searched" else "",
            "digits": len(fine),
            "failed": int((~fine).sum()),
            "evaluations": forward + jvp + vjp,
            "forward": forward,
            "jvp": jvp,
            "vjp": vjp,
        }
        if "speed" in arrays:
            taken, peak = arrays["speed"][i].tolist()
            row |= {"ms_per_digit": taken * (forward + jvp + vjp), "peak_MB": peak}
        scored = _scored(arrays, i, fine) if fine.sum() > 1 else {}
        rows.append(row | scored | behind.get(i, {}))
    tasks = arrays["tasks"].tolist()
    for task, agreement, psnr in zip(
        tasks, arrays["limit_agreement"], arrays["limit_psnr"], strict=True
    ):
        rows += limit_rows(task, agreement, psnr, len(arrays["labels"]))
    rows.sort(key=lambda row: (tasks.index(row["task"]), *_place(row)))
    rows += json.loads(str(arrays["left_out"]))
    names = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
    return [{name: row.get(name, "") for name in names} for row in rows]


def _place(row: Row) -> tuple[bool, str, float]:
    """Return what sorts the rows of a task: the limits come first."""
    return row["setting"] != "limit", str(row["setting"]), float(row.get("evaluations", 0))


def _scored(arrays: Arrays, i: int, fine: Any) -> Row:
    """Return the scores of a run with their intervals, over the digits that did not fail; a digit
    that failed is not named rightly.
    """
    row: Row = {}
    for key in MEANS:
        mean, low, high = mean_interval(arrays[key][i][np.isfinite(arrays[key][i])])
        row |= {key: mean, f"{key}_low": low, f"{key}_high": high}
    rate, low, high = rate_interval(int(arrays["agreement"][i][fine].sum()), len(fine))
    if "class_excess" in arrays:  # a run of earlier code has none
        excess = mean_interval(arrays["class_excess"][i][fine])
        spread = ratio_interval(arrays["distance"][i][fine], arrays["true_distance"][i][fine])
        for key, ends in zip(CALIBRATION, (excess, spread), strict=True):
            row |= dict(zip((key, f"{key}_low", f"{key}_high"), ends, strict=True))
    distance, deviation = arrays["kernel_distance"][i].tolist()
    return row | {
        "agreement": rate,
        "agreement_low": low,
        "agreement_high": high,
        "kernel_distance": distance,
        "kernel_distance_low": distance - 1.96 * deviation,
        "kernel_distance_high": distance + 1.96 * deviation,
    }


def plot(arrays: Arrays) -> Figure:
    """Draw agreement and PSNR of each task against the evaluations, beside the limits; below, the
    first digits by the methods that have a colour.
    """
    rows, tasks = table(arrays), arrays["tasks"].tolist()
    looks = coloured(rows, arrays)
    spent = [float(row["evaluations"]) for row in rows if row["evaluations"] != ""]
    span = 0.8 * min(spent), 1.25 * max(spent)
    across = ceil(len(tasks) / ceil(len(tasks) / ACROSS))
    lines = [tasks[at : at + across] for at in range(0, len(tasks), across)]
    heights = [*[3.4] * len(lines), 0.55, 0.5 + 0.25 * ((len(looks) + 4) // 2)]
    figure = Figure(figsize=(7.6, sum(heights) + 0.6))
    write_subject(
        figure,
        arrays,
        f"{len(arrays['labels'])} digits; lines: parameters searched;{_others(rows, looks)}"
        " bars, band: 95 % intervals; what lies below a panel is in the table",
    )
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    for part, some in zip(parts, lines, strict=False):
        panels = part.subplots(len(SCORES), across, squeeze=False, sharex=True)
        for line, (key, label) in zip(panels, SCORES.items(), strict=True):
            for axes, task in zip(line, some, strict=False):
                _plot_score(axes, [row for row in rows if row["task"] == task], looks, key, span)
            line[0].set_ylabel(label)
            for axes in line[len(some) :]:
                axes.set_axis_off()
        for axes, task in zip(panels[0], some, strict=False):
            axes.set_title(task)
        panels[-1, (len(some) - 1) // 2].set_xlabel("network evaluations")
    handles: dict[str, Any] = {}
    for axes in (axes for part in parts for axes in part.axes):
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = ["limit", *looks]
    names = [name for name in order if name in handles]
    parts[-2].legend([handles[name] for name in names], names, loc="center", ncols=4)
    _gallery(parts[-1], arrays, list(looks), tasks[0])
    return figure


def _others(rows: list[Row], looks: dict[str, Any]) -> str:
    """Return what hollow and gray marks are, if there are any."""
    hollow = any(row["setting"] == "authors" for row in rows)
    gray = any(row["setting"] != "limit" and row["method"] not in {*looks, FREE} for row in rows)
    return hollow * " hollow: the authors' own;" + gray * " gray: other methods;"


def coloured(rows: list[Row], arrays: Arrays) -> dict[str, dict[str, Any]]:
    """Return colour and mark of our methods, and of the peers that are right most often at their
    largest searched budget, on average over the tasks.
    """
    rates: dict[str, dict[str, float]] = {}
    for row in rows:  # in the order of their evaluations
        if row["setting"] == "searched" and row["agreement"] != "" and row["method"] != FREE:
            rates.setdefault(str(row["method"]), {})[str(row["task"])] = float(row["agreement"])
    ours = list(dict.fromkeys(arrays["ours"].tolist()))[: len(OURS)]
    best = sorted(
        (name for name in rates if name not in ours),
        key=lambda name: -sum(rates[name].values()) / len(arrays["tasks"]),
    )
    named = [*zip(ours, OURS, strict=False), *zip(best[:BEST], PEERS, strict=False)]
    return {
        name: {"color": colour, "marker": MARKS[k % len(MARKS)], "zorder": 4 + (name in ours)}
        for k, (name, colour) in enumerate(named)
    }


def _plot_score(
    axes: Any, rows: list[Row], looks: dict[str, Any], key: str, span: tuple[float, float]
) -> None:
    """Draw a score of a task against the evaluations: each method, and the limit."""
    limit = next(row for row in rows if row["setting"] == "limit")
    low, value, high = (float(limit[name]) for name in (f"{key}_low", key, f"{key}_high"))
    axes.axhspan(low, high, color=LIMIT, alpha=0.12, linewidth=0)
    axes.axhline(value, color=LIMIT, linewidth=1, linestyle="--", label="limit")
    other = {"color": OTHER, "marker": ".", "zorder": 2, "linewidth": 0.7}
    for method in dict.fromkeys(str(row["method"]) for row in rows if row["setting"] != "limit"):
        look, known = looks.get(method, other), method in looks
        mine = [row for row in rows if row["method"] == method and row[key] != ""]
        searched = [row for row in mine if row["setting"] == "searched"]
        if method == FREE or not mine:
            continue
        if searched:
            x, y = _column(searched, "evaluations"), _column(searched, key)
            bars = [y - _column(searched, f"{key}_low"), _column(searched, f"{key}_high") - y]
            axes.errorbar(
                x,
                y,
                yerr=np.maximum(bars, 0) if known else None,
                elinewidth=0.5,
                label=method if known else None,
                **look,
            )
        authors = [row for row in mine if row["setting"] == "authors"]
        axes.plot(
            _column(authors, "evaluations"),
            _column(authors, key),
            linestyle="",
            markerfacecolor="white",
            label=None if searched or not known else method,
            **look,
        )
    top = max(high, *(float(row[key]) for row in rows if row[key] != ""))
    bottom = value - REACH[key]
    axes.set(xscale="log", xlim=span, ylim=(bottom, top + 0.03 * (top - bottom)))
    plain_ticks(axes.xaxis)
    if key == "agreement":
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.grid(axis="y", color="#eeeeee", linewidth=0.6)


def _column(rows: list[Row], key: str) -> Any:
    return np.array([float(row[key]) for row in rows])


def _gallery(part: Any, arrays: Arrays, methods: list[str], task: str) -> None:
    """Draw the first digits: truth, what is observed of them, the limit's mean, and each method's
    at its largest searched budget.
    """
    entries, at = entries_in(arrays), arrays["tasks"].tolist().index(task)
    lines = [
        ("truth", arrays["digits"]),
        ("observed", arrays["observed"][at]),
        ("limit, mean", arrays["expected"][at]),
    ]
    for method in methods:
        mine = [
            i
            for i, entry in enumerate(entries)
            if (entry["method"], entry["task"]) == (method, task)
        ]
        if mine:
            lines.append((method, arrays["shown"][max(mine, key=lambda i: _shown(entries[i]))]))
    # in two blocks, side by side
    middle = -(-len(lines) // 2)
    shown: list[tuple[str, Any]] = [
        (name, images[:GALLERY].astype(np.float32)) for name, images in lines
    ]
    shown += [("", [None] * len(shown[0][1]))] * (2 * middle - len(shown))
    blocks = part.subfigures(1, 2)
    for block, some in zip(blocks, (shown[:middle], shown[middle:]), strict=True):
        grid(block, some)
    part.suptitle(f"The first digits, {task}", fontsize=9)


def _shown(entry: dict[str, Any]) -> tuple[bool, int]:
    """Return what sorts the runs of a method: the longest of those with searched parameters is
    shown.
    """
    return entry["setting"] == "searched", entry["steps"]

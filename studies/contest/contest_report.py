"""The contest's table and figures, from what it stored."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from studies.frame.answer import Row
from studies.frame.figure_text import write_subject
from studies.frame.panels import grid
from studies.frame.statistics import mean_interval, rate_interval
from studies.frame.study import Arrays
from studies.sampling.problems import BLUR_NOISE

SHADES = (
    "#0072b2",
    "#56b4e9",
    "#009e73",
    "#999999",
    "#e69f00",
    "#d55e00",
    "#cc79a7",
    "#8c564b",
    "#7f3fbf",
    "#bcbd22",
    "#17becf",
    "#444444",
    "#aa4499",
    "#117733",
)
PANELS = (
    ("agreement", "evaluations"),
    ("agreement", "ms_per_digit"),
    ("psnr", "evaluations"),
    ("residual", "evaluations"),
)
LABELS = {
    "agreement": "agreement",
    "psnr": "PSNR, dB",
    "residual": "residual",
    "evaluations": "evaluations",
    "ms_per_digit": "ms for a digit",
}
TICKS = (5, 10, 20, 50, 100, 200, 500, 1000)
NOISE = {"blur": BLUR_NOISE}
"""Of the observations, for tasks that have it: what a residual should come down to, and not
below.
"""
FREE = "DDIM"
"""The method that has not heard of the problem."""
SMALLEST = 1e-4
"""Residual, on the pixels' scale, below which there is none to be seen."""
MARKS = ("o", "s", "^", "x", "v", "D", "P", "*", "h", "<", ">", "d", "p", "8")


class _Kept(torch.nn.Module):
    """Features that are there already, as torchmetrics wants them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return them."""
        return features


def kernel_distance(features: Any, reference: Any) -> tuple[float, float]:
    """Return the kernel distance of two sets of features, (N, k), and its deviation over 100
    subsets of half of them.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings(
            "ignore", "Metric `Kernel Inception Distance` will save all extracted features"
        )
        torch.default_generator.manual_seed(0)
        from torchmetrics.image.kid import KernelInceptionDistance  # takes seconds to import

        metric = KernelInceptionDistance(
            feature=_Kept(features.shape[1]), subsets=100, subset_size=max(2, len(features) // 2)
        )
        metric.update(torch.from_numpy(reference), real=True)
        metric.update(torch.from_numpy(features), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def _entries(arrays: Arrays) -> list[dict[str, Any]]:
    return [json.loads(str(entry)) for entry in arrays["entries"]]


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each run, sorted by task, setting and evaluations: means with 95 %
    intervals.
    """
    rows: list[Row] = []
    for i, entry in enumerate(_entries(arrays)):
        fine = np.isfinite(arrays["residual"][i])
        forward, jvp, vjp = arrays["passes"][i].tolist()
        row: Row = {
            "task": entry["task"],
            "method": entry["method"],
            "setting": entry["setting"],
            "steps": entry["steps"],
            "parameters": json.dumps(entry["parameters"]),
            "digits": len(fine),
            "failed": int((~fine).sum()),
            "evaluations": forward + jvp + vjp,
            "forward": forward,
            "jvp": jvp,
            "vjp": vjp,
            "ms_per_digit": float(arrays["speed"][i, 0] * (forward + jvp + vjp)),
            "peak_MB": float(arrays["speed"][i, 1]),
        }
        rows.append(row | (_scored(arrays, i, fine) if fine.sum() > 1 else {}))
    tasks = arrays["tasks"].tolist()
    rows.sort(
        key=lambda row: (tasks.index(row["task"]), str(row["setting"]), float(row["evaluations"]))
    )
    full = max(rows, key=len)
    return [{key: row.get(key, "") for key in full} for row in rows]


def _scored(arrays: Arrays, i: int, fine: Any) -> Row:
    """Return the scores of a run with their intervals, over the digits that did not fail."""
    row: Row = {}
    for key in ("residual", "psnr", "ssim", "diversity"):
        mean, low, high = mean_interval(arrays[key][i][np.isfinite(arrays[key][i])])
        row |= {key: mean, f"{key}_low": low, f"{key}_high": high}
    rate, low, high = rate_interval(int(arrays["agreement"][i][fine].sum()), int(fine.sum()))
    distance, deviation = kernel_distance(arrays["features"][i][fine], arrays["truth"])
    return row | {
        "agreement": rate,
        "agreement_low": low,
        "agreement_high": high,
        "kernel_distance": distance,
        "kernel_distance_low": distance - 1.96 * deviation,
        "kernel_distance_high": distance + 1.96 * deviation,
    }


def plot(arrays: Arrays) -> Figure:
    """Draw agreement, PSNR and residual of each task against evaluations or milliseconds; below,
    the first digits by each.
    """
    rows, tasks = table(arrays), arrays["tasks"].tolist()
    methods = list(dict.fromkeys(str(entry["method"]) for entry in _entries(arrays)))
    methods.sort(key=lambda name: ("Newton" not in name and "gradient" not in name, name))
    searched = {row["method"] for row in rows if row["setting"] == "searched"}
    top, below = 1.5 * len(tasks) + 0.8, 0.36 * (len(searched) + 2) + 0.3
    figure = Figure(figsize=(7.2, top + below))
    write_subject(figure, arrays, "bars: 95 % intervals")
    parts: Any = figure.subfigures(2, 1, height_ratios=[top, below])
    panels: Any = parts[0].subplots(len(tasks), len(PANELS), squeeze=False)
    for line, task in zip(panels, tasks, strict=True):
        _plot_task(line, task, [row for row in rows if row["task"] == task], methods)
    for axes, (_, against) in zip(panels[-1], PANELS, strict=True):
        axes.set_xlabel(LABELS[against])
    handles = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
    parts[0].legend(
        handles.values(),
        handles,
        loc="outside upper center",
        ncols=6,
        columnspacing=1.2,
        handletextpad=0.3,
        title="line: parameters searched; open: its authors' settings",
        title_fontsize=7,
    )
    _gallery(parts[1], arrays, methods, tasks[0])
    return figure


def _plot_task(line: Any, task: str, rows: list[Row], methods: list[str]) -> None:
    """Draw the panels of a task; where its observations have noise, a residual below it is none."""
    for axes, (key, against) in zip(line, PANELS, strict=True):
        _curves(axes, rows, methods, key, against)
        axes.set_ylabel(LABELS[key])
    line[0].set_ylabel(f"{task}\n{LABELS['agreement']}")
    if task in NOISE:
        last = line[-1]
        last.axhline(NOISE[task], color="0.5", linestyle=":", linewidth=0.8, zorder=0)
        last.set_ylim(bottom=0.6 * NOISE[task])
        small = {"transform": last.transAxes, "fontsize": 6, "color": "0.4"}
        last.text(0.03, 0.02, "dotted: the noise", **small)


def _curves(axes: Any, rows: list[Row], methods: list[str], key: str, against: str) -> None:
    rows = [row for row in rows if row.get(key, "") != ""]
    for method, colour, mark in zip(methods, SHADES, MARKS, strict=False):
        for setting, filled, style in (("searched", colour, "-"), ("authors", "none", "")):
            found = [row for row in rows if (row["method"], row["setting"]) == (method, setting)]
            if not found:
                continue
            x, y, low, high = (
                _column(found, name) for name in (against, key, f"{key}_low", f"{key}_high")
            )
            bars = None if key == "residual" else np.maximum([y - low, high - y], 0)
            axes.errorbar(
                x,
                np.maximum(y, SMALLEST) if key == "residual" else y,
                yerr=bars,
                color=colour,
                marker=mark,
                markerfacecolor=filled,
                linewidth=0.9,
                elinewidth=0.4,
                markersize=3.5,
                label=method,
                linestyle=style,
            )
    x = _column(rows, against)
    # DDRM takes a digit at a time where masks differ
    ticks = TICKS if x.max() < 20 * x.min() else (10, 100, 1000, 10000)
    limits = (x.min() / 1.3, x.max() * 1.3)
    axes.set(
        xscale="log", xlim=limits, xticks=[tick for tick in ticks if limits[0] <= tick <= limits[1]]
    )
    axes.xaxis.set_major_formatter("{x:g}")
    if key == "residual":
        fine = _column(rows, key).min() > 0.01
        axes.set(
            yscale="log", yticks=(0.05, 0.1, 0.2, 0.5) if fine else (SMALLEST, 1e-3, 1e-2, 1e-1, 1)
        )
        axes.yaxis.set_major_formatter(lambda y, _: "0" if y == SMALLEST else f"{y:g}")
    else:
        _leave_out_the_free(axes, rows, key)
    axes.minorticks_off()


def _leave_out_the_free(axes: Any, rows: list[Row], key: str) -> None:
    """Write the free samples' score at the lower edge if it is so far below all others that these
    would look alike.
    """
    free, others = (
        [row for row in rows if (row["method"] == FREE) == of_it] for of_it in (True, False)
    )
    if not free or not others:
        return
    low, high = _column(others, f"{key}_low").min(), _column(others, f"{key}_high").max()
    if _column(free, key).max() < low - 0.5 * (high - low):
        axes.set_ylim(low - 0.25 * (high - low), high + 0.05 * (high - low))
        axes.text(
            0.03,
            0.02,
            f"{FREE}: {_column(free, key).mean():.2g}",
            transform=axes.transAxes,
            fontsize=6,
            color="0.4",
        )


def _column(rows: list[Row], key: str) -> Any:
    return np.array([float(row[key]) for row in rows])


def _gallery(part: Any, arrays: Arrays, methods: list[str], task: str) -> None:
    """Draw the first digits: truth, what is observed of them, and each method's at its largest
    searched budget.
    """
    entries, observed = _entries(arrays), arrays["observed"][arrays["tasks"].tolist().index(task)]
    lines = [("truth", arrays["digits"]), ("observed", observed)]
    for method in methods:
        at = [
            i
            for i, entry in enumerate(entries)
            if (entry["method"], entry["task"], entry["setting"]) == (method, task, "searched")
        ]
        if at:
            lines.append((method, arrays["shown"][max(at, key=lambda i: entries[i]["steps"])]))
    grid(part, lines)
    part.suptitle(f"The first digits, {task}", fontsize=8)

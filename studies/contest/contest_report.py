"""The contest's table and figures, from what it stored."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from studies.frame.answer import Row
from studies.frame.figure_style import COLOURS
from studies.frame.figure_text import write_subject
from studies.frame.panels import grid
from studies.frame.statistics import mean_interval, rate_interval
from studies.frame.study import Arrays
from mnist.problems import BLUR_NOISE

SCORES = {
    "agreement": "judge's agreement",
    "psnr": "PSNR, dB",
    "residual": "residual",
}
NOISE = {"blur": BLUR_NOISE}
"""Of the observations, for tasks that have it: what a residual should come down to, and not
below.
"""
FREE = "DDIM"
"""The method that has not heard of the problem: in the table only."""
SMALLEST = 1e-4
"""Residual, on the pixels' scale, below which there is none to be seen."""
BUDGETS = "parameters searched, least budget", "a larger one"
PEER = "#555555"
GALLERY = 6
"""Digits that are drawn."""


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
    """Draw agreement, PSNR and residual of each task, a row for each method; below, the first
    digits by each.
    """
    rows, tasks = table(arrays), arrays["tasks"].tolist()
    methods = list(dict.fromkeys(str(row["method"]) for row in rows if row["method"] != FREE))
    methods.sort(key=lambda name: (not _is_ours(name), name))
    top, below = 0.19 * len(methods) * len(SCORES) + 2.2, 0.23 * (len(methods) + 3) + 0.4
    figure = Figure(figsize=(7.2, top + below))
    write_subject(figure, arrays, "bars: 95 % intervals; residual 0: below 0.0001")
    parts: Any = figure.subfigures(2, 1, height_ratios=[top, below])
    panels: Any = parts[0].subplots(len(SCORES), len(tasks), sharey=True, squeeze=False)
    for line, (key, label) in zip(panels, SCORES.items(), strict=True):
        for axes, task in zip(line, tasks, strict=True):
            _plot_score(axes, [row for row in rows if row["task"] == task], methods, key)
        line[len(tasks) // 2].set_xlabel(label)
    for axes, task in zip(panels[0], tasks, strict=True):
        axes.set_title(task)
    for axes, noise in (
        (panels[-1, tasks.index(task)], NOISE[task]) for task in {*tasks} & {*NOISE}
    ):
        axes.axvline(noise, color="0.5", linestyle=":", linewidth=0.8, label="the noise")
    panels[0, 0].set_yticks(range(len(methods)), methods)
    panels[0, 0].invert_yaxis()
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    parts[0].legend(handles.values(), handles, loc="outside lower center", ncols=4)
    _gallery(parts[1], arrays, methods, tasks[0])
    return figure


def _is_ours(method: str) -> bool:
    return "Newton" in method or "gradient" in method


def _plot_score(axes: Any, rows: list[Row], methods: list[str], key: str) -> None:
    """Draw a score of a task: for each method at each budget, and in its authors' setting."""
    for y, method in enumerate(methods):
        mine = [row for row in rows if row["method"] == method and row.get(key, "") != ""]
        searched = [row for row in mine if row["setting"] == "searched"]
        named = {
            BUDGETS[0]: searched[:1],
            BUDGETS[1]: searched[1:],
            "its authors' setting": [row for row in mine if row["setting"] == "authors"],
        }
        for k, (label, found) in enumerate(named.items()):
            if found:
                place, last = y + 0.22 * (k - (len(named) - 1) / 2), k == 2
                marks = {"marker": "D" if last else "o", "markersize": 2.5 if last or not k else 4}
                _draw(axes, found, place, key, label=label, **marks)
    if key == "residual":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: "0" if x <= SMALLEST else f"{x:g}")
    axes.grid(axis="y", color="#eeeeee", linewidth=0.6)


def _draw(axes: Any, rows: list[Row], y: float, key: str, **marks: Any) -> None:
    """Draw a score of one method and setting with its intervals."""
    x, low, high = (_column(rows, name) for name in (key, f"{key}_low", f"{key}_high"))
    bars = None if key == "residual" else np.maximum([x - low, high - x], 0)
    colour = COLOURS["inexact"] if _is_ours(str(rows[0]["method"])) else PEER
    axes.errorbar(
        np.maximum(x, SMALLEST) if key == "residual" else x,
        np.full(len(x), y),
        xerr=bars,
        color=colour,
        markerfacecolor="none" if marks["marker"] == "D" else colour,
        linestyle="",
        elinewidth=0.6,
        clip_on=False,
        **marks,
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
    # in two blocks, side by side
    middle = -(-len(lines) // 2)
    blocks = part.subfigures(1, 2, width_ratios=(4.4, 3.6))
    for block, some in zip(blocks, (lines[:middle], lines[middle:]), strict=True):
        grid(block, [(name, images[:GALLERY]) for name, images in some])
    part.suptitle(f"The first digits, {task}", fontsize=9)

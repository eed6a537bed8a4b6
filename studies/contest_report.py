"""The contest's table and figures, from what it stored."""

from __future__ import annotations

import itertools
import json
import warnings
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torchmetrics.image.kid import KernelInceptionDistance

from studies.constrained import grid
from studies.frame import Arrays, Row
from studies.statistics import mean_interval, rate_interval

SHADES = ("#0072b2", "#56b4e9", "#009e73", "#999999", "#e69f00", "#d55e00", "#cc79a7", "#8c564b", "#7f3fbf", "#bcbd22",
          "#17becf", "#444444", "#aa4499", "#117733")
TICKS = (20, 50, 100, 200)
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


def kernel_distance(features: Any, reference: Any) -> tuple[float, float]:  # noqa: ANN401 - arrays
    """Return the kernel distance of two sets of features, (N, k), and its deviation over 100 subsets of half of them."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
        torch.default_generator.manual_seed(0)
        metric = KernelInceptionDistance(feature=_Kept(features.shape[1]), subsets=100, subset_size=max(2, len(features) // 2))
        metric.update(torch.from_numpy(reference), real=True)
        metric.update(torch.from_numpy(features), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def _entries(arrays: Arrays) -> list[dict[str, Any]]:
    return [json.loads(str(entry)) for entry in arrays["entries"]]


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each run, sorted by task, setting and evaluations: means with 95 % intervals."""
    rows: list[Row] = []
    for i, entry in enumerate(_entries(arrays)):
        fine = np.isfinite(arrays["residual"][i])
        row: Row = {"task": entry["task"], "method": entry["method"], "setting": entry["setting"], "steps": entry["steps"],
                    "parameters": json.dumps(entry["parameters"]), "digits": len(fine), "failed": int((~fine).sum())}
        forward, jvp, vjp = arrays["passes"][i].tolist()
        row |= {"evaluations": forward + jvp + vjp, "forward": forward, "jvp": jvp, "vjp": vjp,
                "ms_per_digit": float(arrays["speed"][i, 0] * (forward + jvp + vjp)), "peak_MB": float(arrays["speed"][i, 1])}
        if fine.sum() > 1:
            for key in ("residual", "psnr", "ssim", "diversity"):
                mean, low, high = mean_interval(arrays[key][i][np.isfinite(arrays[key][i])])
                row |= {key: mean, f"{key}_low": low, f"{key}_high": high}
            rate, low, high = rate_interval(int(arrays["agreement"][i][fine].sum()), int(fine.sum()))
            distance, deviation = kernel_distance(arrays["features"][i][fine], arrays["truth"])
            row |= {"agreement": rate, "agreement_low": low, "agreement_high": high, "kernel_distance": distance,
                    "kernel_distance_low": distance - 1.96 * deviation, "kernel_distance_high": distance + 1.96 * deviation}
        rows.append(row)
    tasks = arrays["tasks"].tolist()
    rows.sort(key=lambda row: (tasks.index(row["task"]), str(row["setting"]), float(row["evaluations"])))
    full = max(rows, key=len)
    return [{key: row.get(key, "") for key in full} for row in rows]


def plot(arrays: Arrays) -> Figure:
    """Draw, for each task, agreement and residual against evaluations and milliseconds; below, the first digits by each."""
    rows, tasks = table(arrays), arrays["tasks"].tolist()
    methods = list(dict.fromkeys(str(entry["method"]) for entry in _entries(arrays)))
    methods.sort(key=lambda name: ("Newton" not in name and "gradient" not in name, name))
    searched = sum(any(row["method"] == name and row["setting"] == "searched" for row in rows) for name in methods)
    top, below = 1.5 * len(tasks) + 0.8, 0.36 * (searched + 2) + 0.3
    figure = Figure(figsize=(7.2, top + below))
    parts: Any = figure.subfigures(2, 1, height_ratios=[top, below])
    panels: Any = parts[0].subplots(len(tasks), 4, squeeze=False)
    for line, task in zip(panels, tasks, strict=True):
        _curves(line, [row for row in rows if row["task"] == task], methods)
        line[0].set_ylabel(f"{task}\nagreement")
        line[2].set_ylabel("residual")
    for axes, name in zip(panels[-1], ("evaluations", "ms for a digit") * 2, strict=True):
        axes.set_xlabel(name)
    handles = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
    parts[0].legend(handles.values(), handles, loc="outside upper center", ncols=6, columnspacing=1.2, handletextpad=0.3,
                    title="line: parameters searched; open: its authors' settings", title_fontsize=7)
    _gallery(parts[1], arrays, methods, tasks[0])
    return figure


def _curves(line: Any, rows: list[Row], methods: list[str]) -> None:  # noqa: ANN401 - axes of matplotlib
    panels = itertools.product(("agreement", "residual"), ("evaluations", "ms_per_digit"))
    for axes, (key, against) in zip(line, panels, strict=True):
        for method, colour, mark in zip(methods, SHADES, MARKS, strict=False):
            for setting, filled, style in (("searched", colour, "-"), ("authors", "none", "")):
                found = [row for row in rows if (row["method"], row["setting"]) == (method, setting) and row.get(key, "") != ""]
                if not found:
                    continue
                x, y, low, high = (np.array([float(row[name]) for row in found])
                                   for name in (against, key, f"{key}_low", f"{key}_high"))
                bars = np.maximum([y - low, high - y], 0) if key == "agreement" else None
                axes.errorbar(x, np.maximum(y, SMALLEST) if key == "residual" else y, yerr=bars, color=colour, marker=mark,
                              markerfacecolor=filled, linewidth=0.9, elinewidth=0.4, markersize=3.5, label=method,
                              linestyle=style)
        axes.set(xscale="log", xticks=TICKS, xticklabels=TICKS)
        axes.minorticks_off()
        if key == "residual":
            axes.set(yscale="log", yticks=[SMALLEST, 1e-3, 1e-2, 1e-1], yticklabels=["0", "0.001", "0.01", "0.1"])
            axes.minorticks_off()


def _gallery(part: Any, arrays: Arrays, methods: list[str], task: str) -> None:  # noqa: ANN401 - a SubFigure
    """Draw the first digits: truth, what is observed of them, and each method's at its largest searched budget."""
    entries, observed = _entries(arrays), arrays["observed"][arrays["tasks"].tolist().index(task)]
    lines = [("truth", arrays["digits"]), ("observed", observed)]
    for method in methods:
        at = [i for i, entry in enumerate(entries)
              if (entry["method"], entry["task"], entry["setting"]) == (method, task, "searched")]
        if at:
            lines.append((method, arrays["shown"][max(at, key=lambda i: entries[i]["steps"])]))
    grid(part, lines)
    part.suptitle(f"The first digits, {task}", fontsize=8)

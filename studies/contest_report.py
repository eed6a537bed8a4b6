"""The contest's table and figures, from what it stored."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torchmetrics.image.kid import KernelInceptionDistance

from studies.frame import Arrays, Row
from studies.statistics import mean_interval, rate_interval
from studies.style import show

SHADES = ("#0072b2", "#56b4e9", "#009e73", "#999999", "#e69f00", "#d55e00", "#cc79a7", "#8c564b", "#7f3fbf", "#bcbd22",
          "#17becf", "#444444", "#aa4499", "#117733")
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
    """Draw, for each task, agreement and residual against seconds and evaluations; below, the same digits by each method."""
    rows, tasks = table(arrays), arrays["tasks"].tolist()
    methods = list(dict.fromkeys(str(entry["method"]) for entry in _entries(arrays)))
    methods.sort(key=lambda name: ("Newton" not in name and "gradient" not in name, name))
    figure = Figure(figsize=(7.2, 1.65 * len(tasks) + 0.7 + 0.32 * len(methods) + 0.6))
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.65 * len(tasks) + 0.7, 0.32 * len(methods) + 0.6])
    panels: Any = parts[0].subplots(len(tasks), 4, squeeze=False)
    for line, task in zip(panels, tasks, strict=True):
        _curves(line, [row for row in rows if row["task"] == task], methods)
        line[0].set_ylabel(f"{task}\nagreement")
    for axes, name in zip(panels[-1], ("evaluations", "ms for a digit", "evaluations", "ms for a digit"), strict=True):
        axes.set_xlabel(name)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    parts[0].legend(handles, labels, loc="outside upper center", ncols=5)
    _gallery(parts[1], arrays, methods, tasks[0])
    return figure


def _curves(line: Any, rows: list[Row], methods: list[str]) -> None:  # noqa: ANN401 - axes of matplotlib
    for k, (key, against) in enumerate((("agreement", "evaluations"), ("agreement", "ms_per_digit"),
                                        ("residual", "evaluations"), ("residual", "ms_per_digit"))):
        axes = line[k]
        for m, method in enumerate(methods):
            for setting, filled in (("searched", SHADES[m]), ("authors", "none")):
                found = [row for row in rows if row["method"] == method and row["setting"] == setting and row[key] != ""]
                if not found:
                    continue
                x, y, low, high = (np.array([float(row[name]) for row in found])
                                   for name in (against, key, f"{key}_low", f"{key}_high"))
                y = np.maximum(y, 1e-5) if key == "residual" else y
                bars = [np.abs(y - np.minimum(low, y)), np.abs(np.maximum(high, y) - y)] if key == "agreement" else None
                axes.errorbar(x, y, yerr=bars, color=SHADES[m], marker=MARKS[m], markerfacecolor=filled, linewidth=0.9,
                              elinewidth=0.4, markersize=3.5, label=method if setting == "searched" else None,
                              linestyle="-" if setting == "searched" else "")
        axes.set(xscale="log", yscale="log" if key == "residual" else "linear")
        if k == 2:
            axes.set_ylabel("residual")


def _gallery(part: Any, arrays: Arrays, methods: list[str], task: str) -> None:  # noqa: ANN401 - a SubFigure
    """Draw the first digits: truth, what is observed of them, and each method's at its largest searched budget."""
    entries, observed = _entries(arrays), arrays["observed"][arrays["tasks"].tolist().index(task)]
    lines = [("truth", arrays["digits"]), ("observed", observed)]
    for method in methods:
        at = [i for i, entry in enumerate(entries)
              if (entry["method"], entry["task"], entry["setting"]) == (method, task, "searched")]
        if at:
            lines.append((method, arrays["shown"][max(at, key=lambda i: entries[i]["steps"])]))
    panels = part.subplots(len(lines), len(arrays["digits"]), squeeze=False)
    for panel, (name, images) in zip(panels, lines, strict=True):
        for axes, image in zip(panel, images, strict=True):
            show(axes, image)
        panel[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=6)
    part.suptitle(f"The first digits, {task}", fontsize=8)

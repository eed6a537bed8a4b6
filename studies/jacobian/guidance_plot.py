"""The figure of `guidance`: three measures of J against the scale, and the denoised images."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.frame.figure_text import write_subject
from studies.frame.panels import grid
from studies.frame.study import Arrays

MEASURES = {
    "largest": "largest |eigenvalue|",
    "trace": "tr $J$",
    "asymmetry": r"$|J - J^T|_F \,/\, |J + J^T|_F$",
}
SHADES = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


def plot(arrays: Arrays) -> Figure:
    """Draw the three measures against the scale, a colour for each noise level; below, what the
    scale makes of D(x_t).
    """
    times, scales = arrays["times"].tolist(), arrays["scales"].tolist()
    below = 1.0 * len(times) + 0.4
    figure = Figure(figsize=(7.2, 3.4 + below))
    write_subject(figure, arrays)
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.4, below])
    top, bottom = parts
    for axes, (key, label) in zip(top.subplots(1, 3), MEASURES.items(), strict=True):
        for k, t in enumerate(times):
            _plot_measure(axes, arrays, key, k, f"$t$ = {t}")
        axes.set(xlabel="guidance scale", ylabel=label, xticks=scales)
        if key != "trace":
            axes.set_ylim(0, None)
        handles = axes.get_legend_handles_labels()
    dense = "; dashes: from its dense $J$" if np.isfinite(arrays["trace_dense"]).all() else ""
    count = len(arrays["names"])
    top.suptitle(
        f"Lines and bands: mean and range over {count} noisy sample{'s' * (count > 1)};\nbars:"
        f" {arrays['names'][0]} by products, 95 %{dense}",
        fontsize=9,
    )
    top.legend(*handles, loc="outside lower center", ncols=len(times))
    rows = [
        (f"$t$ = {t}", [arrays["clean"], *images])
        for t, images in zip(times, arrays["denoised"], strict=True)
    ]
    grid(bottom, rows, ("clean", *(f"$s$ = {s:g}" for s in scales)))
    bottom.suptitle(f'$D_s(x_t)$, decoded: "{arrays["captions"][0]}"', fontsize=9)
    return figure


def _plot_measure(axes: Any, arrays: Arrays, key: str, k: int, label: str) -> None:
    """Draw one measure at one noise level: mean and range of the digits, interval and truth of the
    first.
    """
    order = np.argsort(arrays["scales"])
    scales, values = arrays["scales"][order], arrays[key][k][order]
    colour = SHADES[k % len(SHADES)]
    axes.plot(scales, values.mean(1), "-", color=colour, label=label)
    axes.fill_between(scales, values.min(1), values.max(1), color=colour, alpha=0.12, linewidth=0)
    first, (low, high) = values[:, 0], arrays[f"{key}_interval"][k, order, 0].T
    # side by side at each scale
    at = scales + 0.02 * (np.ptp(scales) or 1) * (k - (len(arrays["times"]) - 1) / 2)
    bars = [first - low, high - first]
    axes.errorbar(at, first, bars, fmt="none", ecolor=colour, elinewidth=1)
    dense = arrays[f"{key}_dense"][k][order]
    axes.plot(at, dense, "_", color=colour, markersize=6, markeredgewidth=1.2)

"""The figure of `guidance`: three measures of J against the scale, and the denoised images."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.frame.dataset import IMAGE, SUBJECT, TIME, Variable
from studies.frame.figure_text import write_subject
from studies.frame.panels import grid
from studies.frame.study import Arrays

MEASURES = {
    "largest": "largest |eigenvalue|",
    "trace": "tr $J$",
    "asymmetry": r"$|J - J^T|_F \,/\, |J + J^T|_F$",
}
SHADES = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
CELLS = "time guidance sample"
VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "guidance": Variable("guidance", "scale of classifier-free guidance; 1 is off"),
    "sample": Variable("sample", "the digit or image"),
    "digit": Variable("sample", "number of the digit or image", coordinate=True),
    "captions": Variable("sample", "the prompt", coordinate=True),
    "clean": Variable(IMAGE, "the first image"),
    "denoised": Variable(f"time guidance {IMAGE}", "D(x_t) of the first image, decoded"),
    "eigenvalues": Variable(f"{CELLS} k", "leading |eigenvalues| of J"),
    "converged": Variable(CELLS, "whether they converged"),
    "products": Variable(CELLS, "products J v and J^T u that it took"),
    "largest": Variable(CELLS, "largest |eigenvalue| of J"),
    "trace": Variable(CELLS, "tr J, estimated from products"),
    "asymmetry": Variable(CELLS, "|J - J^T|_F / |J + J^T|_F, estimated from products"),
    **{
        f"{name}_interval": Variable(f"{CELLS} bound", f"interval of {name}: low and high")
        for name in ("largest", "trace", "asymmetry")
    },
    **{
        f"{name}_dense": Variable("time guidance", f"{name} of the first sample's dense J")
        for name in ("largest", "trace", "asymmetry")
    },
    "smallest_real_dense": Variable("time guidance", "smallest real part of its eigenvalues"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw the three measures against the scale, a colour for each noise level; below, what the
    scale makes of D(x_t).
    """
    times, scales = arrays["time"].tolist(), arrays["guidance"].tolist()
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
    count = len(arrays["sample"])
    top.suptitle(
        f"Lines and bands: mean and range over {count} noisy sample{'s' * (count > 1)};\nbars:"
        f" {arrays['sample'][0]} by products, 95 %{dense}",
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
    order = np.argsort(arrays["guidance"])
    scales, values = arrays["guidance"][order], arrays[key][k][order]
    colour = SHADES[k % len(SHADES)]
    axes.plot(scales, values.mean(1), "-", color=colour, label=label)
    axes.fill_between(scales, values.min(1), values.max(1), color=colour, alpha=0.12, linewidth=0)
    first, (low, high) = values[:, 0], arrays[f"{key}_interval"][k, order, 0].T
    # side by side at each scale
    at = scales + 0.02 * (np.ptp(scales) or 1) * (k - (len(arrays["time"]) - 1) / 2)
    bars = [first - low, high - first]
    axes.errorbar(at, first, bars, fmt="none", ecolor=colour, elinewidth=1)
    dense = arrays[f"{key}_dense"][k][order]
    axes.plot(at, dense, "_", color=colour, markersize=6, markeredgewidth=1.2)

"""The figure of `eigenvalues`: the largest of J and of its parts, and what the certificate says."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.figure_style import COLOURS, LABELS, spread
from studies.frame.figure_text import write_subject
from studies.frame.study import Arrays

PARTS = ("J", "symmetric", "skew")
PUBLISHED = {
    "J": {900: 16.85, 700: 8.45, 500: 7.88, 300: 4.98},
    "symmetric": {900: 16.44, 700: 8.65, 500: 9.00, 300: 6.52},
    "skew": {900: 2.67, 700: 3.35, 500: 2.51, 300: 1.22},
}
"""Stable Diffusion 1.5, one image: Graikos, Jojic, Samaras (2025), arXiv 2410.18804."""
HOLLOW: Any = {"markerfacecolor": "none", "markersize": 5}


def plot(arrays: Arrays) -> Figure:
    """Draw the largest |eigenvalue| with its spread and the truth; beside it, stated and true
    errors.
    """
    figure = Figure(figsize=(7.2, 3.5))
    left, right = figure.subplots(1, 2)
    write_subject(figure, arrays)
    _plot_largest(left, arrays)
    _plot_errors(right, arrays)
    (lines, labels), (more, others) = (a.get_legend_handles_labels() for a in (left, right))
    figure.legend(lines + more, labels + others, loc="outside lower center", ncols=3)
    return figure


def _line(arrays: Arrays) -> str:
    return "-" if len(arrays["time"]) > 1 else "_"


def _plot_largest(axes: Axes, arrays: Arrays) -> None:
    """Draw mean and range of each part's largest |eigenvalue|, and the first sample's truth."""
    times = arrays["time"]
    for p, part in enumerate(PARTS):
        values = list(arrays["largest"][:, :, p])
        spread(axes, times, values, LABELS[part], COLOURS[part], _line(arrays))
        axes.plot(times, arrays["truth"][:, p], "o", color=COLOURS[part], **HOLLOW)
        at = [t for t in times.tolist() if t in PUBLISHED[part]]
        published = [PUBLISHED[part][t] for t in at]
        axes.plot(at, published, "x", color=COLOURS[part])
    axes.margins(x=0.1)
    if np.isfinite(arrays["truth"]).all():
        label = f"left: {arrays['sample'][0]}, dense"
        axes.plot([], [], "o", color="#333333", **HOLLOW, label=label)
    if set(times.tolist()) & set(PUBLISHED["J"]):
        axes.plot([], [], "x", color="#333333", label="Stable Diffusion 1.5, published")
    axes.set(
        xlabel="time $t$",
        ylabel="largest |eigenvalue|",
        ylim=(0, None),
        title=f"Mean and range (band) over {arrays['largest'].shape[1]} noisy samples",
    )


def _plot_errors(axes: Axes, arrays: Arrays) -> None:
    """Draw the error that the first sample's result states, and the true one."""
    times, line = arrays["time"], _line(arrays)
    for p, part in enumerate(PARTS):
        axes.semilogy(times, arrays["error"][:, 0, p], line, color=COLOURS[part])
        error = np.abs(arrays["largest"][:, 0, p] - arrays["truth"][:, p])
        axes.semilogy(times, np.maximum(error, 1e-9), "o", color=COLOURS[part], **HOLLOW)
    axes.plot([], [], line, color="#333333", label="right: bound that the result states")
    if np.isfinite(arrays["truth"]).all():
        label = "right: error against the dense one, float64"
        axes.plot([], [], "o", color="#333333", **HOLLOW, label=label)
    axes.set(
        xlabel="time $t$",
        ylabel="error of the eigenvalue",
        title=f"{str(arrays['sample'][0]).capitalize()}: what the certificate says",
    )

"""The figure of `locality`: fields at a pixel beside the filters, and how well each agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.claims.locality_table import FILTERS
from studies.frame.figure_style import show
from studies.frame.figure_text import write_subject
from studies.frame.statistics import mean_interval
from studies.frame.study import Arrays

COLOUR = dict(zip(FILTERS, ("#0072b2", "#009e73", "#d55e00", "#888888"), strict=True))
SHOWN = 3
"""Noise levels whose fields are drawn."""


def plot(arrays: Arrays) -> Figure:
    """Draw the mean row and column at the middle pixel beside the filters; then cosines and widths
    by noise level.
    """
    figure = Figure(figsize=(7.2, 6.6))
    middle = len(arrays["place"]) // 2
    row, column = arrays["place"][middle]
    write_subject(
        figure,
        arrays,
        f"above: fields at pixel ({row}, {column}), each on its own scale, the middle 17x17 pixels",
    )
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    draw_fields(parts[0], arrays, middle)
    left, right = parts[1].subplots(1, 2)
    draw_cosines(left, arrays)
    draw_widths(right, arrays)
    handles = [h for axes in (left, right) for h in axes.get_legend_handles_labels()[0]]
    labels = [h for axes in (left, right) for h in axes.get_legend_handles_labels()[1]]
    kept = dict(zip(labels, handles, strict=True))
    parts[1].legend(kept.values(), kept.keys(), loc="outside lower center", ncols=3, fontsize=7)
    return figure


def draw_fields(figure: Any, arrays: Arrays, place: int) -> None:
    """Draw the fields at a pixel: a row of pictures for each of a few noise levels."""
    count = len(arrays["time"])
    chosen = sorted({0, count // 2, count - 1})[:SHOWN]
    names = ("row of $J$", "column of $J$", "Wiener", "stationary", "isotropic", "untrained")
    panels: Any = figure.subplots(len(chosen), len(names), squeeze=False)
    side = round(arrays["mean"].shape[-1] ** 0.5)
    low, high = arrays["place"].min(), arrays["place"].max() + 1
    for axes, k in zip(panels, chosen, strict=True):
        fields = [*arrays["mean"][k, :, place], *arrays["filters"][k, :, place]]
        for panel, field, name in zip(axes, fields, names, strict=True):
            image = field.reshape(1, side, side)[:, low:high, low:high]
            # the peak would hide the rest
            limit = float(np.sort(np.abs(image).ravel())[-5]) or 1.0
            show(panel, image, name if k == chosen[0] else "", limit)
        axes[0].set_ylabel(f"$t$ = {arrays['time'][k]}", rotation=0, ha="right", va="center")


def draw_cosines(axes: Any, arrays: Arrays) -> None:
    """Draw the cosine of the mean row with each filter, and of the mean column with Wiener's."""
    times = arrays["time"]
    for i, name in enumerate(FILTERS):
        values = arrays["cosine"][:, 0, i]
        draw_bars(axes, times, values, "o-", COLOUR[name], f"row of $J$ and {name}")
    draw_bars(
        axes, times, arrays["cosine"][:, 1, 0], "s:", COLOUR["Wiener"], "column of $J$ and Wiener"
    )
    draw_bars(
        axes, times, arrays["single"][:, 0], "^--", "#56b4e9", "row at a single digit and Wiener"
    )
    axes.set(xlabel="time $t$", ylabel="cosine", ylim=(0, 1), title="Agreement, mean of 25 pixels")


def draw_widths(axes: Any, arrays: Arrays) -> None:
    """Draw the widths of the mean row and of the filters."""
    draw_bars(axes, arrays["time"], arrays["width"][:, 0], "D-", "#000000", "width, row of $J$")
    for i, name in enumerate(FILTERS):
        axes.plot(
            arrays["time"],
            arrays["filter_width"][:, i],
            "x--",
            color=COLOUR[name],
            label=f"width, {name}",
        )
    axes.set(xlabel="time $t$", ylabel="width, pixels", title="Root mean square distance")


def draw_bars(axes: Any, times: Any, values: Any, style: str, colour: str, label: str) -> None:
    """Draw means of (times, samples) with 95 % intervals."""
    mean, low, high = np.transpose([mean_interval(v) for v in values])
    axes.errorbar(
        times, mean, (mean - low, high - mean), fmt=style, color=colour, label=label, capsize=2
    )

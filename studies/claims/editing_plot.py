"""The figure of `editing`: edits of digits, and how far they leak and stay linear."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from studies.frame.dataset import Arrays
from studies.frame.figure_style import COLOURS, show
from studies.frame.figure_text import plain_ticks, write_subject
from studies.frame.statistics import mean_interval, middle_of, over_digits

COLUMNS = ("D(x_t)", "leading, -", "leading, +", "projected, -", "projected, +")
OF_WAYS = {
    "leading": COLOURS["inexact"],
    "projected": COLOURS["exact"],
    "random": COLOURS["identity"],
}
MOST = 3
"""Digits that are shown."""


def plot(arrays: Arrays) -> Figure:
    """Draw edits at the middle noise level, and leak and cosine against the step at each."""
    k, count = middle_of(arrays["time"]), min(MOST, arrays["clean"].shape[1])
    figure = Figure(figsize=(7.2, 2.2 + 1.35 * count))
    t = arrays["time"][k]
    write_subject(
        figure,
        arrays,
        f"above: edits at t = {t} by 0.2 $|x_t|$, the region framed",
        "below: means over digits, bands: 95 % intervals",
    )
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.35 * count, 2.2])
    above, below = parts
    axes = above.subplots(count, len(COLUMNS), squeeze=False)
    rows, columns = (np.flatnonzero(arrays["region"][0].any(axis)) for axis in (1, 0))
    for i in range(count):
        clean, edit = arrays["clean"][k, i], arrays["edit"][k, i]
        pictures = [clean, *(clean + edit[sign, way] for way in (0, 1) for sign in (1, 0))]
        for j, picture in enumerate(pictures):
            title = COLUMNS[j].replace("D(x_t)", "$D(x_t)$") if i == 0 else ""
            show(axes[i, j], picture.clip(-1, 1), title)
            axes[i, j].add_patch(
                Rectangle(
                    (columns[0] - 0.5, rows[0] - 0.5),
                    len(columns),
                    len(rows),
                    fill=False,
                    edgecolor=COLOURS["exact"],
                    linewidth=0.8,
                )
            )
        axes[i, 0].set_ylabel(str(arrays["sample"][i]))
    draw_curves(below, arrays)
    return figure


def draw_curves(figure: Any, arrays: Arrays) -> None:
    """Draw leak and cosine against the step, for each direction and noise level."""
    left, right = figure.subplots(1, 2)
    styles = ("-", "--", ":")
    for way, colour in OF_WAYS.items():
        w = arrays["way"].tolist().index(way)
        for m, t in enumerate(arrays["time"].tolist()):
            for panel, name in ((left, "leak"), (right, "cosine")):
                values = over_digits(arrays[name][m, :, :, w], arrays["digit"])
                mean, low, high = np.array([mean_interval(of_step) for of_step in values.T]).T
                label = f"{way}, $t$ = {t}" if panel is left else None
                style, x = styles[m % len(styles)], arrays["step"]
                panel.plot(x, mean, style, color=colour, label=label)
                panel.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    left.set(ylabel="share of change outside", ylim=(0, 1))
    right.set(ylabel="cosine of change and $J v$", ylim=(None, 1.01))
    for panel in (left, right):
        panel.set(xscale="log", xlabel=r"step $|s v| \,/\, |x_t|$")
        plain_ticks(panel.xaxis)
    figure.legend(loc="outside right center")

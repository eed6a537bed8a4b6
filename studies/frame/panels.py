"""Panels that several studies draw: rows of images, and values along sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from studies.frame.figure_style import show
from studies.frame.figure_text import plain_ticks, round_time_ticks

UNKNOWN = "#8fb0cf"
"""The colour of pixels that are not known."""


def grid(
    figure: Any,
    rows: Sequence[tuple[str, Sequence[NDArray[Any] | None]]],
    titles: Sequence[str] = (),
) -> None:
    """Show rows of images, each with its label; None leaves a gap."""
    panels = figure.subplots(
        len(rows), len(rows[0][1]), squeeze=False, gridspec_kw={"wspace": 0, "hspace": 0}
    )
    for row, (label, images) in zip(panels, rows, strict=True):
        for axes, image in zip(row, images, strict=True):
            if image is None:
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            else:
                _show(axes, image)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, title in zip(panels[0], titles, strict=False):
        axes.set_title(title)


def tiles(figure: Any, images: Sequence[tuple[str, NDArray[Any]]]) -> None:
    """Show images with their titles, four in a row."""
    panels = figure.subplots(-(-len(images) // 4), 4, squeeze=False).reshape(-1)
    for axes, (title, image) in zip(panels, images, strict=False):
        _show(axes, image)
        axes.set_title(title)
    for axes in panels[len(images) :]:
        axes.set_axis_off()


def _show(axes: Axes, image: NDArray[Any]) -> None:
    """Show an image; NaN pixels, unknown ones, have a colour of their own."""
    if len(image) == 3:
        image = np.where(np.isnan(image), 2 * np.array(to_rgb(UNKNOWN))[:, None, None] - 1, image)
    show(axes, image)
    axes.set_facecolor(UNKNOWN)


def plot_along(axes: Axes, values: NDArray[Any], times: NDArray[Any], colour: str) -> None:
    """Draw values of N samples, (N, times, states), against the time: the median, and the range
    from 10 to 90 %.
    """
    states = values.shape[2]
    x = (np.arange(len(times))[:, None] + np.arange(states) / states).reshape(-1)
    low, middle, high = np.nanquantile(values.reshape(len(values), -1), (0.1, 0.5, 0.9), axis=0)
    axes.plot(x, middle, color=colour, linewidth=1)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    round_time_ticks(axes, times)

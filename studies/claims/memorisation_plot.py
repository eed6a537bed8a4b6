"""The figure of `memorisation`: who memorises, flat directions by noise level, spectra, and maps of
where.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from studies.claims.memorisation_table import FLAT, flat_directions
from studies.frame.figure_style import show
from studies.frame.figure_text import write_subject
from studies.frame.statistics import mean_interval, rate_interval
from studies.frame.study import Arrays

COLOURS = ("#d55e00", "#cc79a7", "#009e73", "#0072b2", "#555555", "#e69f00")
SHOWN = 4
"""Samples whose maps are shown."""


def plot(arrays: Arrays) -> Figure:
    """Draw distances, flat directions and spectra above, and maps of where below."""
    figure = Figure(figsize=(7.2, 6.2))
    write_subject(figure, arrays, "bars: 95 % intervals over samples")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.15))[:, 0]
    left, middle, right = above.subplots(1, 3)
    _plot_nearness(left, arrays)
    _plot_flat(middle, arrays)
    _plot_spectra(right, arrays)
    above.legend(*middle.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    _plot_maps(below, arrays)
    return figure


def _plot_nearness(axes: Axes, arrays: Arrays) -> None:
    """Draw the share of samples that are nearer to training digits, and the ratio of distances."""
    shares = np.array([rate_interval(int(k.sum()), len(k)) for k in arrays["of_training"]])
    ratios = np.array([mean_interval(k) for k in arrays["ratio"]])
    for values, colour, marker, label in (
        (shares, "#0072b2", "o", "share nearer to training"),
        (ratios, "#d55e00", "s", "nearest / second nearest"),
    ):
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(arrays["size"], values[:, 0], reach, color=colour, marker=marker, label=label)
    axes.axhline(0.5, color="#777777", linestyle=":", linewidth=0.8)
    axes.set(xscale="log", xlabel="training digits", ylim=(0, 1.05), title="Who memorises")
    axes.legend(fontsize=7, loc="lower left")


def _plot_flat(axes: Axes, arrays: Arrays) -> None:
    """Draw flat directions against the noise level: of the denoisers, and of the ideal."""
    for k, (size, colour) in enumerate(zip(arrays["size"], COLOURS, strict=False)):
        values = np.array([mean_interval(v) for v in flat_directions(arrays["spectrum"][k])])
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        label = f"{size:,} digits"
        axes.errorbar(arrays["time"], values[:, 0], reach, color=colour, marker="o", label=label)
        ideal = flat_directions(arrays["ideal_spectrum"][k]).mean(1)
        axes.plot(arrays["time"], ideal, "--", color=colour, linewidth=0.8)
    axes.plot([], [], "--", color="#333333", linewidth=0.8, label="their exact mean")
    axes.set(xlabel="time $t$", title="Flat directions", ylim=(0, None))
    axes.set_ylabel(rf"eigenvalues of $\alpha J$ above {FLAT}")


def _plot_spectra(axes: Axes, arrays: Arrays) -> None:
    """Draw the mean spectra of all denoisers at a low noise level."""
    at = len(arrays["time"]) // 3
    for k, (_, colour) in enumerate(zip(arrays["size"], COLOURS, strict=False)):
        values = arrays["spectrum"][k, at].mean(0)
        axes.plot(np.arange(1, len(values) + 1), values, color=colour)
    axes.axhline(FLAT, color="#777777", linestyle=":", linewidth=0.8)
    axes.set(xscale="log", xlabel="index", title=f"Spectra at $t$ = {arrays['time'][at]}")
    axes.set_ylabel(r"eigenvalue of $\alpha (J + J^T) / 2$")


def _plot_maps(figure: SubFigure, arrays: Arrays) -> None:
    """Draw samples of half-memorised digits, diag J of their denoiser, and the difference."""
    at = len(arrays["time"]) // 2
    count = min(SHOWN, len(arrays["half_sample"]))
    diagonal = arrays["half_diagonal"][at]
    difference = arrays["whole_diagonal"][at] - diagonal
    bounds = [float(np.abs(images[:count]).max()) for images in (diagonal, difference)]
    rows = (
        ("samples of half-memorised digits", arrays["half_sample"], None),
        (r"diag $J$ of their denoiser", diagonal, bounds[0]),
        (r"diag $J$ of most digits less that", difference, bounds[1]),
    )
    for part, (title, images, limit) in zip(
        figure.subfigures(1, 3, squeeze=False)[0], rows, strict=True
    ):
        part.suptitle(
            title if limit is None else f"{title}, $t$ = {arrays['time'][at]}", fontsize=8
        )
        grid = part.subplots(2, 2, squeeze=False).ravel()
        for axes, image in zip(grid, images[:count], strict=False):
            drawn = show(axes, image[None], limit=limit)
            axes.axhline(image.shape[0] / 2 - 0.5, color="#777777", linewidth=0.8, linestyle="--")
        for axes in grid[count:]:
            axes.set_axis_off()
        if limit is not None:
            part.colorbar(drawn, ax=list(grid), shrink=0.8)

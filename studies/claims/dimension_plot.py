"""The figure of `dimension`: intervals on manifolds, FLIPD on digits, and why it is negative."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.claims.dimension_table import correlation, readings, stated
from studies.frame.figure_text import write_subject
from studies.frame.statistics import mean_interval
from studies.frame.study import Arrays

BLUE, ORANGE, GREEN, PINK, GRAY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777"
SMALLEST = 1e-12
"""Error below which a point is drawn at the edge: the rounding of float64."""


def plot(arrays: Arrays) -> Figure:
    """Draw what is known on manifolds, FLIPD against PNG and by class, tr J against the noise, the
    spectra, and the readings by time.
    """
    figure = Figure(figsize=(7.2, 6.6))
    digits, spectra = arrays["png"].size, arrays["far"].size
    write_subject(figure, arrays, f"{digits} digits, spectra of {spectra}; bars: 95 % intervals")
    axes = figure.subplots(3, 2).ravel()
    k = len(arrays["time"]) // 3  # 100 of the default times
    _plot_manifolds(axes[0], arrays)
    _plot_png(axes[1], arrays, k)
    _plot_classes(axes[2], arrays, k)
    _plot_shares(axes[3], arrays)
    _plot_spectra(axes[4], arrays)
    _plot_readings(axes[5], arrays)
    return figure


def _plot_manifolds(axes: Axes, arrays: Arrays) -> None:
    """Draw the error of FLIPD on each manifold, and the half-width that is stated."""
    value, half = stated(arrays)
    error = np.maximum(np.abs(value - arrays["dimension"][:, None]), SMALLEST)
    for k, (kind, colour) in enumerate(zip(arrays["kind"].tolist(), (BLUE, ORANGE), strict=True)):
        beside = np.linspace(-0.15, 0.15, error.shape[2]) + 0.4 * k - 0.2
        at = (np.arange(error.shape[1])[:, None] + beside).ravel()
        axes.plot(at, half[k].ravel(), "_", color=colour, label=f"{kind}, stated")
        axes.plot(at, error[k].ravel(), ".", color=colour, label=f"{kind}, error")
    axes.set(
        yscale="log",
        xlabel="dimension $d$ of the manifold in 1,024 pixels",
        ylabel="half-width and |FLIPD $- d$|",
        xticks=range(error.shape[1]),
        xticklabels=arrays["dimension"].tolist(),
        ylim=(SMALLEST / 10, 1),
        title="Known manifolds: error below the stated half-width",
    )
    axes.legend(ncols=2, fontsize=7, columnspacing=1, handletextpad=0.2, loc="lower right")


def _plot_png(axes: Axes, arrays: Arrays, k: int) -> None:
    """Draw FLIPD against the size as PNG, ones apart from the others."""
    value, ones = (arrays["trace"] + arrays["misfit"])[k], arrays["label"] == 1
    for chosen, label, colour in ((~ones, "other digits", BLUE), (ones, "ones", ORANGE)):
        axes.plot(arrays["png"][chosen], value[chosen], "o", color=colour, label=label)
    found = correlation(arrays, k)
    axes.set(
        xlabel="size as PNG, bytes",
        ylabel="FLIPD, dimensions",
        title=f"$t$ = {arrays['time'][k]:g}: rank correlation {found[0]:.2f}"
        f" [{found[1]:.2f}, {found[2]:.2f}]",
    )
    axes.legend(loc="lower right")


def _plot_classes(axes: Axes, arrays: Arrays, k: int) -> None:
    """Draw the mean FLIPD of each class."""
    value = (arrays["trace"] + arrays["misfit"])[k]
    for c in range(10):
        _bar(axes, c, value[arrays["label"] == c], ORANGE if c == 1 else BLUE)
    axes.set(
        xlabel="class",
        ylabel="mean FLIPD, dimensions",
        xticks=range(10),
        title=f"$t$ = {arrays['time'][k]:g}: FLIPD by class",
    )


def _plot_shares(axes: Axes, arrays: Arrays) -> None:
    """Draw alpha tr J against the share of the noise in the input."""
    times = arrays["time"].tolist()
    for k, (t, colour) in enumerate(zip(times, _shades(len(times)), strict=True)):
        at = arrays["share"] + 0.008 * (k - len(times) / 2)
        mean, low, high = np.array([mean_interval(v) for v in arrays["share_trace"][k].T]).T
        axes.errorbar(at, mean, (mean - low, high - mean), color=colour, label=f"$t$ = {t:g}")
    axes.axhline(0, color=GRAY, linewidth=0.6)
    axes.set(
        xlabel="share of the noise in the input (FLIPD: 0)",
        ylabel=r"$\alpha\,$tr$\,J$",
        title="tr $J$ is negative where noise is missing",
    )
    axes.legend(ncols=2)


def _plot_spectra(axes: Axes, arrays: Arrays) -> None:
    """Draw the mean spectrum of digits at each time beside one of a torus."""
    count = 200
    times = arrays["time"].tolist()
    for k, (t, colour) in enumerate(zip(times, _shades(len(times)), strict=True)):
        values = arrays["spectrum"][k].mean(0)[:count]
        axes.plot(np.arange(1, count + 1), values, color=colour, label=f"digits, $t$ = {t:g}")
    known = arrays["leading"][-1, -1].mean(0)
    label = f"{arrays['kind'][-1]}, $d$ = {arrays['dimension'][-1]}"
    axes.plot(np.arange(1, len(known) + 1), known, "--", color=GRAY, label=label)
    axes.set(
        xscale="log",
        xlabel="number of the eigenvalue",
        ylabel=r"eigenvalue of $\alpha\,(J + J^T)\,/\,2$",
        title="With noise: a torus has a gap, digits have none",
    )
    axes.legend(loc="upper right", fontsize=7)


def _plot_readings(axes: Axes, arrays: Arrays) -> None:
    """Draw what each method reads as the dimension of the same digits."""
    times = arrays["time"]
    colours = (BLUE, ORANGE, GREEN, PINK)
    for (name, values), colour in zip(readings(arrays).items(), colours, strict=True):
        mean, low, high = np.array([mean_interval(v) for v in values]).T
        label = name if name.startswith(("FLIPD", "alpha")) else f"eigenvalues {name}"
        label = label.replace("alpha tr J", r"$\alpha\,$tr$\,J$")
        axes.errorbar(times, mean, (mean - low, high - mean), color=colour, label=label)
    axes.axhline(0, color=GRAY, linewidth=0.6)
    axes.set(xlabel="time $t$", ylabel="dimension", title="Four readings of the same digits")
    axes.set_ylim(axes.get_ylim()[0] - np.ptp(axes.get_ylim()) / 2)  # room for the legend
    axes.legend(loc="lower right", fontsize=7)


def _bar(axes: Axes, at: float, values: NDArray[Any], colour: str) -> None:
    mean, low, high = mean_interval(values)
    axes.errorbar(at, mean, [[mean - low], [high - mean]], fmt="o", color=colour)


def _shades(count: int) -> list[Any]:
    """Return a colour for each time, darker as the noise grows."""
    from matplotlib import colormaps

    return [colormaps["viridis_r"](x) for x in np.linspace(0.15, 0.95, count)]

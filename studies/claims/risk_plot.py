"""The figure of `risk`: SURE beside the error, its deviation, Tweedie's identity, and df."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.claims.risk_table import RiskSamples, crossing, relative_deviation, samples
from studies.frame.figure_text import write_subject
from studies.frame.statistics import Interval, mean_interval, ratio_interval
from studies.frame.study import Arrays

BLUE, ORANGE, GREEN, GRAY = "#0072b2", "#d55e00", "#009e73", "#777777"


def plot(arrays: Arrays) -> Figure:
    """Draw SURE of each digit, the means, the deviation with its prediction, and df."""
    figure = Figure(figsize=(7.2, 5.4))
    s, times = samples(arrays), arrays["time"]
    write_subject(figure, arrays, f"{s.loss.shape[1]} digits; bars: 95 % intervals of the mean")
    axes = figure.subplots(2, 2).ravel()
    _plot_each(axes[0], times, s)
    _plot_ratios(axes[1], times, s)
    _plot_deviation(axes[2], times, s)
    _plot_freedom(axes[3], times, s)
    return figure


def _plot_each(axes: Axes, times: NDArray[Any], s: RiskSamples) -> None:
    """Draw SURE of each digit against its error, at the lowest noise and past the crossing."""
    deviation = relative_deviation(s)
    drowned = np.flatnonzero(deviation > 2)
    for k, colour in ((drowned[0] if len(drowned) else len(times) - 1, ORANGE), (0, BLUE)):
        risk = s.loss[k].mean()
        label = f"$t$ = {times[k]:g}"
        axes.plot(s.loss[k] / risk, (s.loss + s.excess)[k] / risk, ".", color=colour, label=label)
    axes.axline((1, 1), slope=1, color=GRAY, linewidth=0.6)
    axes.set(
        xlabel="squared error of a digit / mean",
        ylabel="SURE of the digit / mean error",
        title="SURE of one digit",
    )
    axes.legend()


def _plot_ratios(axes: Axes, times: NDArray[Any], s: RiskSamples) -> None:
    """Draw the means of SURE and of Tweedie's estimate over that of the error."""
    pairs = (
        (s.loss + s.controlled, ORANGE, r"SURE $-\ \tau^2(|\epsilon|^2 - n)$"),
        (s.tau2 * s.df, GREEN, r"$\tau^2 \alpha\,$tr$\,J$ (Tweedie)"),
    )
    for k, (values, colour, label) in enumerate(pairs):
        found = [ratio_interval(v, loss) for v, loss in zip(values, s.loss, strict=True)]
        mean, low, high = _intervals(found)
        axes.errorbar(
            times + 12 * k, mean, (mean - low, high - mean), color=colour, fmt="o", label=label
        )
    axes.axhline(1, color=GRAY, linewidth=0.6)
    axes.set(
        xlabel="time $t$",
        ylabel="mean / mean squared error",
        ylim=(0.5, 1.5),
        title="Two estimates of the risk",
    )
    axes.legend(loc="upper left")


def _plot_deviation(axes: Axes, times: NDArray[Any], s: RiskSamples) -> None:
    """Draw the deviation of one SURE from its error over the risk, and what is predicted."""
    risk = s.loss.mean(1)
    predicted = np.sqrt(s.variance.mean(1)) / risk
    axes.semilogy(times, relative_deviation(s), "o", color=ORANGE, label="measured")
    axes.semilogy(times, predicted, color=BLUE, label="second-order formula")
    rough = np.sqrt(2 * s.n) / s.df.mean(1)
    axes.semilogy(times, rough, ":", color=BLUE, label=r"$\sqrt{2n}\,/\,\alpha\,$tr$\,J$")
    axes.axhline(1, color=GRAY, linewidth=0.6)
    at, _ = crossing(s, times)
    if np.isfinite(at):
        axes.axvline(at, color=GRAY, linewidth=0.6, linestyle="--")
        axes.annotate(f"$t$ = {at:.0f}", (at, 1), (4, -12), textcoords="offset points", fontsize=8)
    axes.set(
        xlabel="time $t$",
        ylabel="deviation of SURE / risk",
        title="SURE of one digit drowns at high noise",
    )
    axes.legend(loc="lower right")


def _plot_freedom(axes: Axes, times: NDArray[Any], s: RiskSamples) -> None:
    """Draw the degrees of freedom."""
    mean, low, high = _intervals([mean_interval(v) for v in s.df])
    axes.errorbar(times, mean, (mean - low, high - mean), color=GREEN, fmt="o-")
    axes.axhline(np.sqrt(2 * s.n), color=GRAY, linewidth=0.6, linestyle="--")
    label = rf"$\sqrt{{2n}}$ = {np.sqrt(2 * s.n):.0f}"
    axes.annotate(
        label,
        (times[-1], np.sqrt(2 * s.n)),
        (0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    axes.set(
        xlabel="time $t$",
        yscale="log",
        ylabel=r"$\alpha\,$tr$\,J$",
        title=f"Degrees of freedom of D, of n = {s.n:,}",
    )


def _intervals(found: list[Interval]) -> NDArray[Any]:
    return np.array(found).T

"""The figure of `skewness`: errors and skew shares by loss, and a shifted time of J^T."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.claims.skewness_table import over_samples, share_interval, solenoidal_bounds
from studies.frame.figure_text import write_subject
from studies.frame.statistics import Interval, mean_interval
from studies.frame.study import Arrays

COLOURS = {
    "plain": ("#333333", "o"),
    "symmetric": ("#009e73", "s"),
    "towards": ("#0072b2", "v"),
    "away": ("#d55e00", "^"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw errors of D and J above; skew shares, solenoidal shares and the shifted time below."""
    figure = Figure(figsize=(7.2, 5.6))
    write_subject(figure, arrays, "bars: 95 % intervals over samples or digits")
    (error, jacobian, skew), (solenoidal, model, inflation) = figure.subplots(2, 3)
    _plot_by_loss(error, arrays, lambda k, m: mean_interval(over_samples(arrays, "error", k, m)))
    error.set(yscale="log", ylabel=r"$|D - D^*|^2$", title="Mixture: error of $D$")
    _plot_by_loss(
        jacobian, arrays, lambda k, m: mean_interval(over_samples(arrays, "jacobian_error", k, m))
    )
    jacobian.set(yscale="log", ylabel=r"$|J - J^*|_F^2$", title="Mixture: error of $J$")
    _plot_by_loss(
        skew, arrays, lambda k, m: share_interval(arrays, "skew_error", "jacobian_error", k, m)
    )
    n = int(arrays["size"])
    skew.axhline((n - 1) / (2 * n), color="#777777", linestyle=":", label="random matrix")
    skew.set(ylim=(0, None), ylabel=r"$|skew(J)|_F^2 \,/\, |J - J^*|_F^2$", title="Skew share")
    _plot_by_loss(solenoidal, arrays, lambda k, m: solenoidal_bounds(arrays, k, m)[0])
    _plot_by_loss(solenoidal, arrays, lambda k, m: solenoidal_bounds(arrays, k, m)[1], "--")
    solenoidal.set(ylim=(0, 1), ylabel=r"share of $|D - D^*|^2$")
    solenoidal.set_title("Solenoidal: at least (-), at most (- -)")
    _plot_model(model, inflation, arrays)
    figure.legend(*skew.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _plot_by_loss(
    axes: Axes, arrays: Arrays, at: Callable[[int, int], Interval], line: str = "-"
) -> None:
    """Draw a quantity against the noise level for each loss."""
    times = arrays["time"]
    shifts = 0.01 * np.ptp(times) * np.linspace(-1, 1, len(arrays["loss"]))
    for k, loss in enumerate(arrays["loss"].tolist()):
        values = np.array([at(k, m) for m in range(len(times))])
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        colour, marker = COLOURS[loss]
        axes.errorbar(
            times + shifts[k],
            values[:, 0],
            reach,
            color=colour,
            marker=marker,
            label=loss,
            linestyle=line,
        )
    axes.set(xlabel="time $t$")


def _plot_model(axes: Axes, beside: Axes, arrays: Arrays) -> None:
    """Draw the asymmetry of the model with both times of J^T, and their ratio."""
    times = arrays["model_time"]
    for name, colour, label in (
        ("same", "#0072b2", "$J(t)$ and $J(t)^T$"),
        ("shifted", "#d55e00", "$J(t)$ and $J(t-1)^T$"),
    ):
        values = np.array([mean_interval(v) for v in arrays[name]])
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(times, values[:, 0], reach, color=colour, marker="o", label=label)
    axes.set(xlabel="time $t$", title="Model: asymmetry of $J$", ylim=(0, None))
    axes.set_ylabel(r"$|J - J^T|_F \,/\, |J + J^T|_F$")
    axes.legend(fontsize=7)
    ratios = 100 * (arrays["shifted"] / arrays["same"] - 1)
    values = np.array([mean_interval(v) for v in ratios])
    reach = np.abs(values[:, 1:] - values[:, :1]).T
    beside.errorbar(times, values[:, 0], reach, color="#d55e00", marker="o")
    beside.axhline(0, color="#777777", linestyle=":")
    beside.set(xlabel="time $t$", ylabel="more asymmetry, %", title="Added by the shifted time")

"""The figure of `quality`: quality against leading eigenvalues, the regularisers, the toy."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.figure_style import show
from studies.frame.figure_text import plain_ticks, write_subject
from studies.frame.statistics import mean_interval, middle_of
from studies.frame.study import Arrays

NETWORKS = {
    "U-Net 32": ("#0072b2", "o"),
    "U-Net 64": ("#d55e00", "s"),
    "transformer": ("#009e73", "^"),
}
LOSSES = {
    "plain": ("#333333", "o"),
    "towards": ("#0072b2", "v"),
    "away": ("#d55e00", "^"),
    "penalty": ("#009e73", "s"),
    "symmetric": ("#cc79a7", "D"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw a panel for each noise level, above; leading eigenvectors of each kind of network; the
    spectra under regularisers and the toy, below.
    """
    count = len(arrays["time"])
    figure = Figure(figsize=(2.4 * max(3, count), 7.2))
    words = "bars: 95 % intervals over digits (toy: over trainings)"
    write_subject(
        figure, arrays, f"{words}; centre: eigenvectors and eigenvalues of $(J + J^T)/2$, digit 0"
    )
    parts = figure.subfigures(3, 1, squeeze=False, height_ratios=(1, 0.45, 1.05))
    above, middle, below = parts[:, 0]
    _draw_vectors(middle, arrays)
    for t, axes in enumerate(above.subplots(1, count, sharex=True, squeeze=False)[0]):
        _plot_quality(axes, arrays, t)
    above.axes[0].set_ylabel("largest |eigenvalue| of $J$")
    above.legend(*above.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    left, middle, right = below.subplots(1, 3)
    _plot_losses(left, arrays, "leading", "largest |eigenvalue| of $J$")
    _plot_losses(middle, arrays, "asymmetry", r"$|J - J^T|_F \,/\, |J + J^T|_F$")
    _plot_toy(right, arrays)
    below.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(LOSSES),
        title="loss (Frechet distance)",
    )
    return figure


def _plot_quality(axes: Axes, arrays: Arrays, t: int) -> None:
    """Draw the leading eigenvalue against the Frechet distance of the plain denoisers."""
    for network, (colour, marker) in NETWORKS.items():
        chosen = (arrays["network"] == network) & (arrays["loss"] == "plain")
        values = np.array([mean_interval(v) for v in arrays["leading"][chosen, t]])
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        x = arrays["frechet"][chosen]
        axes.errorbar(
            x, values[:, 0], reach, color=colour, marker=marker, linewidth=0.8, label=network
        )
        for place, n in zip(
            zip(x, values[:, 0], strict=True), arrays["updates"][chosen], strict=True
        ):
            axes.annotate(
                str(n), place, (3, 3), textcoords="offset points", fontsize=6, color=colour
            )
    axes.axvline(float(arrays["real_frechet"]), color="#777777", linestyle=":", label="real digits")
    axes.set(xscale="log", xlabel="Frechet distance", title=f"$t$ = {arrays['time'][t]}")
    plain_ticks(axes.xaxis)


def _draw_vectors(figure: Any, arrays: Arrays) -> None:
    """Show the leading eigenvectors of the longest plain training of each kind of network."""
    side = round(arrays["vector"].shape[-1] ** 0.5)
    time = arrays["time"][middle_of(arrays["time"])]
    for part, network in zip(figure.subfigures(1, len(NETWORKS)), NETWORKS, strict=True):
        plain = (arrays["network"] == network) & (arrays["loss"] == "plain")
        m = np.flatnonzero(plain)[-1]
        part.suptitle(f"{network}, {arrays['updates'][m]} updates, $t$ = {time}", fontsize=8)
        panels = part.subplots(1, arrays["vector"].shape[1])
        for axes, v, value in zip(
            panels, arrays["vector"][m], arrays["drawn_value"][m], strict=True
        ):
            image = v.reshape(1, side, side)
            show(axes, image, f"{value:.2f}", float(np.abs(image).max()))


def _plot_losses(axes: Axes, arrays: Arrays, name: str, label: str) -> None:
    """Draw a quantity against the noise level for each loss, of the same network and length."""
    (last,) = np.flatnonzero(arrays["loss"] == "symmetric")
    same = (arrays["network"] == arrays["network"][last]) & (
        arrays["updates"] == arrays["updates"][last]
    )
    shifts = np.linspace(-12, 12, len(LOSSES))
    for shift, (loss, (colour, marker)) in zip(shifts, LOSSES.items(), strict=True):
        (m,) = np.flatnonzero(same & (arrays["loss"] == loss))
        values = np.array([mean_interval(v) for v in arrays[name][m]])
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        told = f"{loss} ({arrays['frechet'][m]:.3g})"
        at = arrays["time"] + shift
        axes.errorbar(
            at, values[:, 0], reach, color=colour, marker=marker, linewidth=0.8, label=told
        )
    axes.set(xlabel="time $t$", ylabel=label, xticks=arrays["time"])
    axes.set_title(f"{arrays['network'][last]}, {arrays['updates'][last]} updates")


def _plot_toy(axes: Axes, arrays: Arrays) -> None:
    """Draw the perceptrons' leading eigenvalue over the exact one against their length."""
    for t, colour in zip(
        range(len(arrays["time"])), ("#0072b2", "#d55e00", "#009e73") * 9, strict=False
    ):
        ratios = arrays["toy_leading"][:, :, t].mean(2) / arrays["toy_exact"][t].mean()
        values = np.array([mean_interval(v) for v in ratios.T])
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(
            arrays["length"],
            values[:, 0],
            reach,
            color=colour,
            marker="o",
            linewidth=0.8,
            label=f"$t$ = {arrays['time'][t]}",
        )
    axes.axhline(1, color="#777777", linestyle=":")
    axes.set(xscale="log", xlabel="updates", title="Eight Gaussians, a perceptron")
    axes.set_ylabel("largest |eigenvalue| / exact")
    plain_ticks(axes.xaxis)
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])
    axes.legend(fontsize=7, loc="upper center", ncols=3, columnspacing=0.8, handlelength=1.2)

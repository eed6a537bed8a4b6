"""The figure of `convergence`: the error along sampling, and what J predicts of a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.dataset import SUBJECT, T, Variable
from studies.frame.figure_text import plain_ticks, round_time_ticks, write_subject
from studies.frame.study import Arrays
from studies.sampling.contraction import RANKS

SHADES = ("#0072b2", "#009e73", "#d55e00", "#000000", "#cc79a7", "#56b4e9")
"""Colours of the rules, which are no more."""
SCATTERS = {
    "Linear model": {"linear": ("o", r"$|(I - \lambda P J^2 P)\, e| \,/\, |e|$")},
    "Largest eigenvalue of $J$": {
        "real": ("o", r"$|1 - \lambda |\mu|^2|$"),
        "complex": ("x", r"$|1 - \lambda \mu^2|$"),
    },
    "... and with the mask": {
        "mask": ("o", r"$|1 - \lambda \nu|$"),
        "radius_mask": ("+", r"radius of $I - \lambda P J^2 P$"),
    },
}
TRAJECTORIES = {
    "residual": ("RMSE, known half", "Error along sampling\n", (1e-4, 10.0)),
    "size": ("RMS of $x_t$", "Size of $x_t$ under the rules\n", (0.5, 50.0)),
}
LIMIT = 2.5
"""Of the axes of predicted and measured factors; larger predictions are arrows at the edge."""
MEASURED = {
    "measured": "|e after| / |e before| of one step",
    "linear": "the same as I - lambda P J^2 P predicts it",
    "symmetric": "the same with the symmetric part for J",
    "without_mask": "the same with 1 for P",
    "real": "|1 - lambda |mu|^2|, mu the largest eigenvalue of J",
    "complex": "|1 - lambda mu^2|",
    "mask": "|1 - lambda nu|, nu the largest eigenvalue of P J^2 P",
    "radius": "largest |1 - lambda mu^2| of all eigenvalues of J",
    "radius_mask": "largest |1 - lambda nu| of all eigenvalues of P J^2 P",
    "reached": "part of |e|^2 in eigenspaces of P J^2 P with |lambda nu| > 0.1",
    "mu": "largest |eigenvalue| of J",
    "ratio": "|nu / mu^2|",
    "arnoldi": "largest |eigenvalue| of J by Arnoldi steps",
    "move": "largest change of a number of x_t in the step",
}
SHARES = "rule point jacobian rank"
VARIABLES = {
    **SUBJECT,
    "rule": Variable("rule", "rule of the step size"),
    "time": Variable("time", f"sampling times, from noise to image: {T}"),
    "at": Variable("point", "indices of the times at which J is measured"),
    "space": Variable("", "pixels or latent"),
    "sizes": Variable("count", "numbers in a sample, and how many are known"),
    "scale": Variable("time", "sqrt(alpha_t^2 + sigma_t^2), the size of x_t"),
    "residual": Variable("rule sample time step", "RMSE of the known pixels, after each step"),
    "size": Variable("rule sample time step", "RMS of x_t, after each step"),
    "agrees": Variable("rule sample", "whether the judge sees the digit; NaN: images of no digits"),
    "share": Variable(SHARES, "part of |e|^2 in leading eigenspaces of J"),
    "share_mask": Variable(SHARES, "part of |e|^2 in leading eigenspaces of P J^2 P"),
    **{name: Variable("rule point jacobian", said) for name, said in MEASURED.items()},
}


def plot(arrays: Arrays) -> Figure:
    """Draw error and size of x_t along the trajectories, where e lies, and three predictions
    against what was measured.
    """
    figure = Figure(figsize=(7.2, 6.0))
    write_subject(figure, arrays, "left half known; median and 10-90 % (bands)")
    top, bottom = figure.subplots(2, 3)
    for axes, (key, (label, title, limits)) in zip(top, TRAJECTORIES.items(), strict=False):
        _plot_trajectories(axes, arrays, key, limits)
        axes.set(
            ylabel=label,
            title=title + f"{arrays[key].shape[1]} samples",
        )
    top[1].plot(arrays["scale"], ":", color="#555555", linewidth=0.8)
    top[1].text(0.98, 0.02, "dotted: expected", ha="right", transform=top[1].transAxes, fontsize=8)
    top[1].set_ylim(bottom=0.5)
    _plot_shares(top[2], arrays)
    for axes, (title, names) in zip(bottom, SCATTERS.items(), strict=True):
        real = np.allclose(arrays["real"], arrays["complex"], rtol=1e-3, equal_nan=True)
        shown = {key: drawn for key, drawn in names.items() if key != "complex" or not real}
        _plot_predictions(axes, arrays, shown)
        axes.set_title(title)
    _say_how_right_arnoldi_is(bottom[1], arrays)
    bottom[0].set_ylabel("measured $|e|$ after / before")
    top[0].plot([], [], "x", color="#333333", markeredgewidth=0.8, label="a sample that diverged")
    figure.legend(
        *top[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(arrays["rule"]) + 1, 5),
    )
    return figure


def _plot_predictions(axes: Axes, arrays: Arrays, names: dict[str, tuple[str, str]]) -> None:
    """Draw what was measured against what was predicted, a colour for each rule, a marker for each
    prediction.
    """
    hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 0.8}
    beyond = any((arrays[key] > LIMIT).any() for key in names)
    for key, (marker, label) in names.items():
        for r, colour in enumerate(SHADES[: len(arrays["rule"])]):
            x, y = arrays[key][r].reshape(-1), arrays["measured"][r].reshape(-1)
            size = 4 if marker in "os" else 3
            axes.plot(x, y, marker, color=colour, markersize=size, **hollow)
            for outside in y[x > LIMIT]:
                axes.plot(LIMIT, outside, ">", color=colour, markersize=3, clip_on=False)
        if np.isfinite(arrays[key]).any():
            axes.plot([], [], marker, color="#333333", markersize=4, label=label, **hollow)
    if beyond:
        axes.plot([], [], ">", color="#333333", markersize=3, label="beyond the frame")
    axes.plot([0, LIMIT], [0, LIMIT], color="#999999", linewidth=0.6, zorder=0)
    axes.axhline(1, color="#999999", linewidth=0.6, linestyle=":", zorder=0)
    axes.set(
        xlabel=r"predicted $|e|$ after / before", xlim=(0, LIMIT), ylim=(0, LIMIT), aspect="equal"
    )
    axes.legend(loc="upper left", handletextpad=0.2)


def _say_how_right_arnoldi_is(axes: Axes, arrays: Arrays) -> None:
    """Write by how much Arnoldi's mu misses that of the dense J, where there is one."""
    if not np.isfinite(arrays["share"]).any():
        return
    off = 100 * abs(arrays["arnoldi"] / arrays["mu"] - 1)
    words = (
        f"by 10 Arnoldi steps: off by {np.nanmedian(off):.2g} %\n"
        f"(median), {np.nanmax(off):.2g} % at most"
    )
    axes.set_title(f"{axes.get_title()}\n{words}", fontsize=9)


def _plot_trajectories(axes: Axes, arrays: Arrays, key: str, limits: tuple[float, float]) -> None:
    """Draw median and 10 to 90 % against the state; a digit that diverged counts as infinite, and a
    cross marks its end.
    """
    _, count, times, states = arrays[key].shape
    x = (np.arange(times)[:, None] + np.arange(states) / states).reshape(-1)
    shades = SHADES[: len(arrays["rule"])]
    for values, rule, colour in zip(arrays[key], arrays["rule"], shades, strict=True):
        curves = values.reshape(count, -1)
        low, middle, high = np.quantile(
            np.where(np.isfinite(curves), np.minimum(curves, limits[1]), limits[1]),
            (0.1, 0.5, 0.9),
            axis=0,
            method="nearest",
        )
        axes.plot(
            x,
            middle,
            color=colour,
            linewidth=1,
            label=rule.replace("lambda mu^2", r"$\lambda \mu^2$"),
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ends = np.isfinite(curves).sum(1) - 1
        for i in np.flatnonzero(ends < len(x) - 1):
            axes.plot(
                x[ends[i]],
                min(curves[i, ends[i]], limits[1]),
                "x",
                color=colour,
                markeredgewidth=0.8,
                clip_on=False,
            )
    within = arrays[key][np.isfinite(arrays[key])]
    low, high = within.min() / 1.5, within.max() * 1.5
    axes.set(yscale="log", ylim=(max(limits[0], low), min(limits[1], high)))
    plain_ticks(axes.yaxis)
    round_time_ticks(axes, arrays["time"])


def _plot_shares(axes: Axes, arrays: Arrays) -> None:
    """Draw the share of e in leading eigenspaces at the dynamic rule's points: first, middle and
    last time.
    """
    if not np.isfinite(arrays["share"]).any():
        axes.set_axis_off()
        axes.text(
            0.5,
            0.5,
            "J is too large\nfor its eigenspaces",
            ha="center",
            va="center",
            transform=axes.transAxes,
        )
        return
    points = sorted({0, len(arrays["at"]) // 2, len(arrays["at"]) - 1})
    for p, shade in zip(points, ("#000000", "#7a7a7a", "#bdbdbd"), strict=False):
        for key, line, size in (
            ("share", "-", arrays["sizes"][0]),
            ("share_mask", "--", arrays["sizes"][1]),
        ):
            axes.plot(
                np.minimum(RANKS, size),
                np.nanmean(arrays[key][-1, p], axis=0),
                line,
                color=shade,
                label=f"$t$ = {arrays['time'][arrays['at'][p]]:g}" if key == "share" else None,
            )
    axes.set(
        xscale="log",
        xlabel="leading eigenvectors\nof $J$ (lines), $P J^2 P$ (dashed)",
        ylabel=r"share of $|e|^2$ in their span",
        ylim=(0, 1),
        title="Where the error lies\nunder the dynamic rule",
    )
    axes.legend(loc="upper left", handlelength=1.2, labelspacing=0.3, borderaxespad=0)

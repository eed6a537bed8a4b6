"""The figure of `spectrum`: the complex plane, Ritz values and their convergence, and the decay."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.figure_style import COLOURS, LABELS
from studies.frame.figure_text import write_subject
from studies.frame.study import Arrays

LEVELS = (1e-3, 1e-2, 1e-1)
"""Of the pseudospectra, relative to the largest |eigenvalue|."""
FOLLOWED = 4
"""Leading eigenvalues whose convergence is drawn."""
GRAYS = ("#222222", "#777777", "#bbbbbb")
VARIABLES = {
    **SUBJECT,
    "time": Variable("", TIME.description),
    "size": Variable("", "n, J is n x n"),
    "eigenvalues": Variable("k", "eigenvalues of J; where n is large, Ritz values"),
    "symmetric": Variable("k", "eigenvalues of the symmetric part"),
    "skew": Variable("k", "eigenvalues of the skew part, divided by i"),
    "singular": Variable("k", "singular values of J"),
    "range": Variable("angle", "boundary of the numerical range"),
    "box": Variable("side", "Bendixson's box: left, right, height"),
    "ritz": Variable("step which", "Ritz values after each Arnoldi step; NaN beyond it"),
    "bounds": Variable("step which", "their residuals"),
    "inner_range": Variable(
        "angle", "boundary of the numerical range of the last Hessenberg matrix"
    ),
    "inner_box": Variable("side", "Bendixson's box of that matrix"),
    "grid_x": Variable("grid_x", "real parts of the grid of the pseudospectrum"),
    "grid_y": Variable("grid_y", "imaginary parts of the grid"),
    "smallest": Variable("grid_y grid_x", "smallest singular value of z I - H"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw the complex plane, Ritz values and their convergence, and the decay."""
    figure = Figure(figsize=(9.0, 6.0))
    (plane, zoom, decay), (ritz, errors, rest) = figure.subplots(2, 3)
    write_subject(figure, arrays, f"$t$ = {arrays['time']}")
    _plot_plane(plane, arrays)
    _plot_near_zero(zoom, arrays)
    _plot_ritz(ritz, arrays)
    _plot_errors(errors, arrays)
    _plot_decay(decay, arrays)
    for axes in (decay, ritz, errors):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.26), ncols=1 + (axes is errors))
    rest.set_axis_off()
    rest.legend(*plane.get_legend_handles_labels(), loc="center left", title="Upper left:")
    return figure


def _plot_plane(axes: Axes, arrays: Arrays) -> None:
    """Draw the spectrum in the complex plane, and the sets around it."""
    values, largest = arrays["eigenvalues"], abs(arrays["eigenvalues"]).max()
    axes.contour(
        arrays["grid_x"],
        arrays["grid_y"],
        arrays["smallest"] / largest,
        levels=LEVELS,
        colors=GRAYS[::-1],
        linewidths=0.7,
    )
    for level, gray in zip(LEVELS[::-1], GRAYS, strict=True):
        label = rf"pseudospectrum, $\varepsilon$ = {level:g} $\max|\mu|$"
        axes.plot([], [], color=gray, linewidth=0.7, label=label)
    _plot_ranges(axes, arrays)
    high = max(arrays["grid_y"][-1], 1.1 * arrays["box"][2])  # the grid is symmetric
    kind = "eigenvalues" if is_dense(arrays) else "Ritz values"
    axes.plot(
        values.real,
        values.imag,
        ".",
        color=COLOURS["J"],
        markersize=2.5,
        label=f"{len(values)} {kind}",
    )
    axes.set(
        xlabel="real part",
        ylabel="imaginary part",
        title="Spectrum of $J$",
        ylim=(-high, high),
    )
    axes.locator_params(axis="y", nbins=4)


def _plot_ranges(axes: Axes, arrays: Arrays) -> None:
    """Draw Bendixson's box and the numerical range."""
    left, right, height = arrays["box"]
    axes.plot(
        [left, right, right, left, left],
        [-height, -height, height, height, -height],
        "--",
        color=COLOURS["skew"],
        linewidth=0.8,
        label="Bendixson's box",
    )
    closed = np.append(arrays["range"], arrays["range"][0])
    axes.plot(
        closed.real,
        closed.imag,
        color=COLOURS["symmetric"],
        linewidth=1,
        label=f"numerical range, {len(arrays['range'])} points",
    )


def _plot_near_zero(axes: Axes, arrays: Arrays) -> None:
    """Draw the eigenvalues around zero."""
    values, largest = arrays["eigenvalues"], abs(arrays["eigenvalues"]).max()
    near = values[abs(values) < 0.03 * largest]
    axes.plot(near.real, near.imag, ".", color=COLOURS["J"], markersize=2)
    axes.locator_params(axis="x", nbins=4)
    axes.set(xlabel="real part", title=f"The {len(near)} below 3 % of the largest")


def _plot_ritz(axes: Axes, arrays: Arrays) -> None:
    """Draw the real parts of each step's Ritz values, in colour once their residual is small."""
    m, k = np.nonzero(np.isfinite(arrays["bounds"]))
    largest = abs(arrays["eigenvalues"]).max()
    done = arrays["bounds"][m, k] < 1e-6 * largest
    heights = arrays["ritz"][m, k].real
    axes.plot(
        m[~done] + 1,
        heights[~done],
        ".",
        color="#bbbbbb",
        markersize=2.5,
        label="not yet converged",
    )
    if done.any():
        label = r"residual below $10^{-6} \max|\mu|$"
        axes.plot(m[done] + 1, heights[done], ".", color=COLOURS["J"], markersize=2.5, label=label)
    axes.set(
        xlabel="Arnoldi steps",
        ylabel="real part of Ritz value",
        title="Ritz values as they converge",
    )


def _plot_errors(axes: Axes, arrays: Arrays) -> None:
    """Draw error and residual of the leading eigenvalues against the Arnoldi steps."""
    steps = np.arange(1, len(arrays["ritz"]) + 1)
    shades = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
    for value, colour in zip(leading(arrays, FOLLOWED), shades, strict=True):
        error, bound = convergence(arrays, value)
        axes.semilogy(
            steps,
            np.maximum(error, 1e-16),
            color=colour,
            label=f"{value.real:.3g}" + (f" + {value.imag:.2g}i" if value.imag else ""),
        )
        axes.semilogy(steps, bound, ":", color=colour)
    axes.plot(
        [],
        [],
        "-",
        color="#333333",
        label="error" if is_dense(arrays) else "distance from the last",
    )
    axes.plot([], [], ":", color="#333333", label="residual, from $H$ alone")
    axes.set(
        xlabel="Arnoldi steps",
        ylabel="error of the eigenvalue",
        title="Leading eigenvalues as they converge",
    )


def is_dense(arrays: Arrays) -> bool:
    """Return whether the whole J was taken, and not its Krylov space only."""
    return len(arrays["eigenvalues"]) == int(arrays["size"])


def leading(arrays: Arrays, count: int) -> Any:
    """Return the eigenvalues of largest modulus, one of each conjugate pair."""
    values = arrays["eigenvalues"][arrays["eigenvalues"].imag >= 0]
    return values[np.argsort(-abs(values))][:count]


def convergence(arrays: Arrays, value: complex) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of the nearest Ritz value of each step, and its residual, which is not
    below the rounding.
    """
    distance = np.abs(arrays["ritz"] - value)
    nearest = np.nanargmin(distance, axis=1)
    rows = np.arange(len(nearest))
    rounding = (
        np.finfo(np.float64).eps * np.sqrt(len(arrays["eigenvalues"])) * arrays["singular"][0]
    )
    return distance[rows, nearest], np.maximum(arrays["bounds"][rows, nearest], rounding)


def _plot_decay(decay: Axes, arrays: Arrays) -> None:
    """Draw eigenvalues and singular values in falling order."""
    values = np.sort(abs(arrays["eigenvalues"]))[::-1]
    negative = -arrays["symmetric"][arrays["symmetric"] < 0]
    index = np.arange(1, len(values) + 1)
    of, where = ("$J$", "") if is_dense(arrays) else ("$H$", " on the Krylov space")
    decay.loglog(index, arrays["singular"], color="#cc79a7", label=f"singular values of {of}")
    decay.loglog(index, values, color=COLOURS["J"], label=f"|eigenvalues| of {of}")
    decay.loglog(
        index,
        np.sort(abs(arrays["skew"]))[::-1],
        color=COLOURS["skew"],
        label=f"|eigenvalues| of {LABELS['skew']}",
    )
    decay.loglog(
        index[: len(negative)],
        negative,
        color=COLOURS["symmetric"],
        label=f"negative ones of {LABELS['symmetric']}",
    )
    decay.set(
        xlabel="index", ylabel="size", title="Decay" + where, ylim=(1e-6 * values[0], 2 * values[0])
    )

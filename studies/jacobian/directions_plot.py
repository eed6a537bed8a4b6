"""The figure of `directions`: one digit, its directions and what they do; below, the survey."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.dataset import IMAGE, SUBJECT, Variable
from studies.frame.figure_style import COLOURS, LABELS, show, spread
from studies.frame.figure_text import write_subject
from studies.frame.study import Arrays

KINDS = ("inexact", "gradient", "exact")
# the order of the arrays; from EXACT on, the exact direction at each rcond
INEXACT, GRADIENT, EXACT = SHOWN = range(3)
NAMES = [LABELS[kind] for kind in KINDS]
PAIRS = {(INEXACT, EXACT): "#cc79a7", (INEXACT, GRADIENT): "#333333", (EXACT, GRADIENT): "#e69f00"}
VARIABLES = {
    **SUBJECT,
    "cells": Variable("cell what", "digit or image, and noise level, of each comparison"),
    "name": Variable("", "the first image"),
    "pixel": Variable(
        "axis", "row and column of the pixel that the wish inverts; none for a digit"
    ),
    "change": Variable("", "largest change of a number of x_t in a step"),
    "rcond": Variable("rcond", "singular values up to rcond times the largest count as zero"),
    "sweep": Variable("sweep", "rconds of the curves"),
    "x_t": Variable(f"cell {IMAGE}", "noisy image"),
    "denoised": Variable(f"cell {IMAGE}", "D(x_t)"),
    "error": Variable(f"cell {IMAGE}", "e, the change wanted of D(x_t)"),
    "steps": Variable(f"cell direction {IMAGE}", "step: J e, J^T e, and J^+ e at each rcond"),
    "after": Variable(f"cell direction {IMAGE}", "D(x_t + step)"),
    "label": Variable("cell seen", "digit that the judge sees: before, and after each step"),
    "confidence": Variable("cell seen", "its confidence"),
    "cosine": Variable("cell direction other", "cosine between directions"),
    "alignment": Variable("cell direction", "cosine between J delta and e"),
    "near_step": Variable("cell direction", "share of the step's square near the pixel"),
    "near_change": Variable("cell direction", "share of the change's square near the pixel"),
    "achieved": Variable("cell direction", "<change of D, e> / |e|^2"),
    "residual": Variable("cell direction", "|e - change of D| / |e|"),
    "rank": Variable("cell rcond", "singular values that are kept"),
    "sweep_norm": Variable("cell sweep", "|J^+ e| / |e|"),
    "sweep_residual": Variable("cell sweep", "|e - J J^+ e| / |e|"),
    "sweep_cosine": Variable("cell compared sweep", "cosine of J^+ e with J e and with J^T e"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw the shown digit, its directions and what they do; below, the survey."""
    figure = Figure(figsize=(7.2, 7.8))
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.35, 1])
    count = len(np.unique(arrays["cells"][:, 0]))
    rcond = float(arrays["rcond"][0])
    write_subject(figure, arrays)
    _plot_images(parts[0], arrays)
    parts[1].suptitle(
        f"{count} digit{'s' * (count > 1)}: mean, smallest to largest; $J^+e$ with rcond {rcond:g}:"
        "\nsingular values of $J$ below rcond times the largest count as 0",
        fontsize=9,
    )
    left, middle, right = parts[1].subplots(1, 3)
    _plot_survey(left, middle, arrays)
    _plot_rconds(right, arrays)
    for axes in (left, middle, right):
        axes.axhline(0, color="#999999", linewidth=0.5)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24))
    return figure


def _plot_survey(left: Axes, right: Axes, arrays: Arrays) -> None:
    """Draw the cosines between the directions, and what a step along each achieves, against the
    time.
    """
    cells = arrays["cells"]
    times = np.unique(cells[:, 1])
    at = [cells[:, 1] == t for t in times]
    for k, ((a, b), colour) in enumerate(PAIRS.items()):
        groups = [arrays["cosine"][m, a, b] for m in at]
        _ranges(left, times, groups, f"{NAMES[a]}, {NAMES[b]}", colour, k - 1)
    left.set(ylabel="cosine", title="Cosine between directions")
    for k in SHOWN:
        groups = [arrays["achieved"][m, k] for m in at]
        _ranges(right, times, groups, NAMES[k], COLOURS[KINDS[k]], k - 1)
    right.set(
        ylabel=r"share of $e$: $\langle e, \Delta D \rangle \,/\, |e|^2$",
        title=f"A step of largest entry {float(arrays['change']):g}",
    )


def _ranges(axes: Axes, times: Any, groups: list[Any], label: str, colour: str, place: int) -> None:
    """Draw mean and range of each group, beside those of other places, -1, 0 and 1."""
    x = times + place * 0.04 * (np.ptp(times) or times[0])
    mean, low, high = (np.array([of(g) for g in groups]) for of in (np.mean, np.min, np.max))
    bars = np.maximum([mean - low, high - mean], 0)
    axes.errorbar(x, mean, bars, fmt="o-", color=colour, label=label, elinewidth=1, linewidth=0.6)
    axes.set(xlabel="time $t$", xticks=times)


def _plot_rconds(axes: Axes, arrays: Arrays) -> None:
    """Draw the exact direction's cosine with the others, and its residual, against rcond."""
    cells, sweep = arrays["cells"], arrays["sweep"]
    shown = cells[:, 1] == cells[0, 1]
    for k in (INEXACT, GRADIENT):
        groups = list(arrays["sweep_cosine"][shown, k].T)
        spread(axes, sweep, groups, f"cosine with {NAMES[k]}", COLOURS[KINDS[k]])
    groups = list(arrays["sweep_residual"][shown].T)
    spread(axes, sweep, groups, r"$|e - J J^{+} e| \,/\, |e|$", COLOURS["exact"])
    axes.axvline(float(arrays["rcond"][0]), color="#999999", linewidth=0.5)
    axes.set(
        xscale="log",
        xlabel="rcond",
        title=f"$J^{{+}}e$ by rcond, $t$ = {cells[0, 1]:g}",
    )


def _plot_images(figure: Any, arrays: Arrays) -> None:
    t = arrays["cells"][0, 1]
    count = len(arrays["rcond"])
    order = [INEXACT, *range(EXACT, EXACT + count), GRADIENT]
    axes = figure.subplots(3, 1 + len(order))
    after, steps = arrays["after"][0], arrays["steps"][0]
    changes = after - arrays["denoised"][0]
    show(axes[0, 0], arrays["x_t"][0] / 3, f"noisy $x_t$, $t$ = {t:g}")
    axes[0, 0].set_xlabel("black: $-3$, white: 3", fontsize=8)
    show(axes[1, 0], arrays["denoised"][0], f"$D(x_t)$, {arrays['name']}")
    show(
        axes[2, 0],
        arrays["error"][0],
        "$e$, wanted change",
        float(np.abs(arrays["error"][0]).max()),
    )
    for column, k in enumerate(order, start=1):
        name = f"{NAMES[min(k, EXACT)]}" + (
            f", rcond {arrays['rcond'][k - EXACT]:g}" if k >= EXACT else ""
        )
        drawn = (
            show(axes[0, column], steps[k], name, float(arrays["change"])),
            show(
                axes[1, column], after[k], f"{100 * arrays['achieved'][0, k]:.0f} % of $e$ achieved"
            ),
            show(axes[2, column], changes[k], "", float(np.abs(changes).max())),
        )
        if len(arrays["pixel"]):
            for panel in axes[:, column]:
                panel.plot(
                    *arrays["pixel"][::-1],
                    "s",
                    markersize=3.5,
                    markerfacecolor="none",
                    markeredgecolor="#e69f00",
                    markeredgewidth=0.6,
                )
    labels = (r"step $\delta$", r"$D(x_t + \delta)$", r"$D(x_t + \delta) - D(x_t)$")
    for panels, image, label in zip(axes, drawn, labels, strict=True):
        figure.colorbar(image, ax=list(panels), shrink=0.8, pad=0.01, aspect=14).set_label(label)

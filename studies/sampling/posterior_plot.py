"""The figure of `posterior`: samples of one curve, and every sampler's errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from studies.frame.dataset import SUBJECT, Variable
from studies.frame.figure_style import COLOURS
from studies.frame.figure_text import plain_ticks, write_subject
from studies.frame.study import Arrays
from studies.sampling.random_curves import OBSERVATIONS, ORACLES, SCORES, SHARES, N

PATHS = 8
"""Samples that are shown."""
ETAS = (0.0, 1.0)
SHADES = {"Gaussian": "#0072b2", "mixture": "#d55e00"}
KNOWN = {"half": "the left half", "noisy means": "means over 4 points, with noise"}
AXES = {
    "mean": r"$|m - m^*| \,/\, \sqrt{\mathrm{tr}\, C^*}$",
    "covariance": r"$|C - C^*|_F \,/\, |C^*|_F$",
    "weights": "total variation of the\nmixture's weights",
    "coverage": "share in the regions of\n50 % (\u25cb) and 90 % (\u25a1)",
}
SHOWN = ("MMPS", "fair(10)", "likeliest", "J e, dynamic", "J^+ e, step 1")
VARIABLES = {
    **SUBJECT,
    "runs": Variable("entry what", "prior, observation, sampler and eta"),
    "measure": Variable("measure", "errors of mean, covariance and weights; ratio; coverage"),
    "score": Variable("entry curve measure", "of the samples, beside the exact posterior"),
    "floor": Variable("entry curve set measure", "the same of sets of as many exact samples"),
    "residual": Variable("entry curve", "mean residual of the observation, over samples"),
    "worst": Variable("entry curve", "largest residual of any sample after the steps of any time"),
    "passes": Variable("entry curve pass", "forward passes, J v and J^T u that a sample cost"),
    "count": Variable("entry", "samples of a curve"),
    "curves": Variable("", "observed curves"),
    "paths": Variable("entry draw point", "samples of the first curve"),
    "true_mean": Variable("prior point", "the exact posterior's mean, half observed"),
    "true_std": Variable("prior point", "its standard deviation"),
    "true_paths": Variable("prior draw point", "its samples"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw samples of the first curve, its left half known, without fresh noise; below, the errors
    of all.
    """
    figure = Figure(figsize=(7.2, 10.4))
    write_subject(
        figure,
        arrays,
        f"random curves of {N} points, {int(arrays['curves'])} observed, their denoiser known",
        "fair($k$): our fair samples, $k$ products at each time; likeliest: $J e$ with a step that"
        " brakes, temperature 0.5; free: no constraint; $e$: the error itself as direction;"
        " minimiser: the step that minimises the residual; step 1: the whole step; GMRES($k$): $k$"
        " Krylov steps",
    )
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.9])
    panels = parts[0].subplots(len(ORACLES), 1 + len(SHOWN), sharex=True, sharey="row")
    runs = [tuple(run) for run in arrays["runs"].tolist()]
    for k, oracle in enumerate(ORACLES):
        band = arrays["true_mean"][k], arrays["true_std"][k]
        _draw_curves(panels[k, 0], arrays["true_paths"][k], band, "#333333")
        for axes, way in zip(panels[k, 1:], SHOWN, strict=True):
            _draw_curves(
                axes, arrays["paths"][runs.index((oracle, "half", way, "0.0"))], band, _colour(way)
            )
        panels[k, 0].set_ylabel(f"{oracle} prior\n$x_0$")
        panels[k, 0].set_ylim(
            float((band[0] - 4 * band[1]).min()), float((band[0] + 4 * band[1]).max())
        )
    for axes, title in zip(panels[0], ("exact posterior", *map(_label, SHOWN)), strict=True):
        axes.set_title(title)
    panels[0, 0].set_xticks([0, N // 2, N])
    parts[0].supxlabel(
        rf"point; known left of the line; {PATHS} samples, $\eta$ = 0; gray: mean $\pm$ 2 standard"
        r" deviations "
        "of the posterior",
        fontsize=9,
    )
    _plot_errors(parts[1], arrays, runs)
    return figure


def _plot_errors(figure: Any, arrays: Arrays, runs: list[tuple[str, ...]]) -> None:
    """Draw a panel for each observation and score, a row for each sampler."""
    panels = figure.subplots(len(OBSERVATIONS), len(AXES), sharex="col", sharey=True)
    ways = _ways(runs)
    for line, observation in zip(panels, OBSERVATIONS, strict=True):
        for axes, name in zip(line, AXES, strict=True):
            _draw_errors(axes, arrays, runs, name, observation)
            axes.set_xscale("linear" if name in ("weights", "coverage") else "log")
            axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        line[1].set_title(f"known: {KNOWN[observation]}")
        line[0].set_yticks(range(len(ways)), [_label(way) for way in ways])
    for axes, (name, label) in zip(panels[-1], AXES.items(), strict=True):
        axes.set_xlabel(label)
        if name in ("mean", "covariance"):
            plain_ticks(axes.xaxis)
        if name == "covariance":  # a narrow panel: fewer
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    panels[0, 0].invert_yaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


def _ways(runs: list[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(run[2] for run in runs))


def _draw_curves(axes: Axes, paths: Any, band: tuple[Any, Any], colour: str) -> None:
    x = np.arange(N)
    axes.fill_between(x, band[0] - 2 * band[1], band[0] + 2 * band[1], color="#dddddd", linewidth=0)
    axes.axvline(N / 2 - 0.5, color="#999999", linewidth=0.5)
    axes.plot(x, paths.T, color=colour, linewidth=0.7)


def _draw_errors(
    axes: Axes, arrays: Arrays, runs: list[tuple[str, ...]], name: str, observation: str
) -> None:
    """Draw one score of every run on an observation; that of exact samples as a tick, of regions
    as a line.
    """
    columns = [k for k, score in enumerate(SCORES) if score.startswith(name)]
    oracles = ORACLES if name != "weights" else ("mixture",)
    cases = list(itertools.product(oracles, ETAS))
    for k, (oracle, eta) in enumerate(cases):
        y = np.arange(len(_ways(runs))) + 0.18 * (k - (len(cases) - 1) / 2)
        case = oracle, observation, eta
        chosen = [r for r, run in enumerate(runs) if (*run[:2], float(run[3])) == case]
        for column, mark in zip(columns, "os", strict=False):
            axes.plot(
                arrays["score"][chosen, :, column].mean(1),
                y,
                mark,
                color=SHADES[oracle],
                markersize=3.5 if mark == "o" else 3,
                markerfacecolor=None if eta else "none",
                markeredgewidth=0.8,
                label=rf"{oracle}, $\eta$ = {eta:g}" if mark == "o" else None,
            )
        if name != "coverage":
            axes.plot(
                arrays["floor"][chosen, ..., columns[0]].mean((1, 2)),
                y,
                "|",
                color="#999999",
                markersize=4,
                label="exact samples" if k == len(cases) - 1 else None,
            )
    for share in SHARES if name == "coverage" else ():
        axes.axvline(share, color="#999999", linewidth=0.6)


def _label(way: str) -> str:
    """Return the name of a way as mathematics."""
    for plain, drawn in {
        "E[x_0 | x_t, y]": r"$E[x_0 \,|\, x_t, y]$",
        "J^T e": "$J^T e$",
        "J^+ e": "$J^+ e$",
        "J e": "$J e$",
        "e,": "$e$,",
    }.items():
        if way.startswith(plain):
            return way.replace(plain, drawn, 1).replace("rcond 0.1, step 1", "rcond 0.1")
    return way


def _colour(way: str) -> str:
    kinds = {"J e": "inexact", "J^+": "exact", "J^T": "gradient", "e, ": "identity"}
    others = {"MMP": "#8c564b", "fai": COLOURS["krylov"], "lik": "#56b4e9"}
    return COLOURS.get(kinds.get(way[:3], ""), others.get(way[:3], "#cc79a7"))

"""The figure of `shrinkage`: eigenvectors, factors, and how two denoisers come to agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.claims.shrinkage_table import KINDS, psnr
from studies.frame.figure_style import show
from studies.frame.figure_text import write_subject
from studies.frame.statistics import mean_interval
from studies.frame.study import Arrays

COLOURS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
STYLE = {"network": "o-", "linear": "x:"}


def plot(arrays: Arrays) -> Figure:
    """Draw eigenvectors of a digit at the middle noise level; factors, agreement and overlap."""
    figure = Figure(figsize=(7.2, 4.6))
    k = len(arrays["time"]) // 2
    write_subject(
        figure,
        arrays,
        f"above: eigenvectors of the symmetric part of $J$ at $t$ = {arrays['time'][k]}; centre and"
        f" right: pairs trained on disjoint digits ({arrays['training']})",
    )
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 2.4))
    vectors = arrays["vector"][k, 0]
    side = round(vectors.shape[-1] ** 0.5)
    panels: Any = parts[0].subplots(1, len(vectors))
    for axes, v, number in zip(panels, vectors, arrays["drawn"].tolist(), strict=True):
        image = v.reshape(1, side, side)
        factor = arrays["factor"][k, 0, number - 1]
        show(axes, image, f"$k$ = {number}\nfactor {factor:.2f}", float(np.abs(image).max()))
    left, centre, right = parts[1].subplots(1, 3)
    draw_factors(left, arrays)
    draw_pairs(centre, arrays)
    draw_overlap(right, arrays)
    parts[1].legend(
        *centre.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7
    )
    return figure


def draw_factors(axes: Any, arrays: Arrays) -> None:
    """Draw the positive factors, falling: mean over digits, and the range."""
    n = arrays["factor"].shape[-1]
    for k, (t, colour) in enumerate(zip(arrays["time"].tolist(), COLOURS, strict=False)):
        factor, at = arrays["factor"][k], np.arange(1, n + 1)
        rank = arrays["rank"][k].mean()
        axes.loglog(at, factor.mean(0).clip(1e-4), color=colour, label=f"$t$ = {t}")
        axes.fill_between(
            at, factor.min(0).clip(1e-4), factor.max(0).clip(1e-4), color=colour, alpha=0.15, lw=0
        )
        axes.axvline(rank, color=colour, linestyle=":", linewidth=0.8)
    axes.set(
        xlabel="$k$",
        ylabel=r"factor, eigenvalue of $\alpha_t J$",
        ylim=(1e-3, None),
        title="Factors (dotted: effective rank)",
    )
    axes.legend(fontsize=7)


def draw_pairs(axes: Any, arrays: Arrays) -> None:
    """Draw the PSNR between the two denoisers of a pair against the size of their sets."""
    for kind in KINDS:
        for k, (t, colour) in enumerate(zip(arrays["time"].tolist(), COLOURS, strict=False)):
            values = psnr(arrays[f"{kind}_difference"][:, k])
            draw_against_size(axes, arrays, values, STYLE[kind], colour, f"{kind}, $t$ = {t}")
    axes.set(ylabel="PSNR between the two, dB", title="Agreement of outputs")


def draw_overlap(axes: Any, arrays: Arrays) -> None:
    """Draw the overlap of leading eigenvectors against the size of the sets."""
    for kind in KINDS:
        for k, (t, colour) in enumerate(zip(arrays["time"].tolist(), COLOURS, strict=False)):
            values = arrays[f"{kind}_overlap"][:, k]
            draw_against_size(axes, arrays, values, STYLE[kind], colour, f"{kind}, $t$ = {t}")
    axes.set(ylabel="overlap", ylim=(0, 1), title="Overlap of 10 eigenvectors")


def draw_against_size(
    axes: Any, arrays: Arrays, values: Any, style: str, colour: str, label: str
) -> None:
    """Draw means of (sizes, digits) with 95 % intervals."""
    mean, low, high = np.transpose([mean_interval(v) for v in values])
    axes.errorbar(
        arrays["size"],
        mean,
        (mean - low, high - mean),
        fmt=style,
        color=colour,
        label=label,
        capsize=2,
        linewidth=1,
    )
    axes.set(xscale="log", xlabel="training digits of each")

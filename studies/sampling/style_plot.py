"""The figure of `style`: noise in each style, the loss along sampling, and the traits of digits."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.dataset import ALONG, IMAGE, SUBJECT, Variable
from studies.frame.figure_style import COLOURS
from studies.frame.figure_text import write_subject
from studies.frame.panels import grid, plot_along
from studies.frame.study import Arrays

SHOWN = 4
TRAITS = {"thickness": "thickness, pixels", "slant": "slant, tangent"}
SEEN = {
    "named": "digit that the judge sees; -1: diverged",
    "thickness": "mean brightness, from 0 to 1",
    "slant": "tangent of the slant",
}
VARIABLES = {
    **SUBJECT,
    **ALONG,
    "given": Variable("given", "digit or image whose style is taken"),
    "digit": Variable("given", "its number", coordinate=True),
    "labels": Variable("given", "its class"),
    "before": Variable("noise given", "loss of style of the unconstrained sample"),
    "after": Variable("noise given", "loss of style of the styled sample"),
    "style": Variable(f"given {IMAGE}", "images whose style is taken"),
    "free": Variable(f"noise {IMAGE}", "unconstrained samples"),
    "styled": Variable(f"noise given {IMAGE}", "styled samples"),
    **{
        f"{name}_{what}": Variable(dims, f"{said}, of {name}")
        for name, dims in (("style", "given"), ("free", "noise"), ("styled", "noise given"))
        for what, said in SEEN.items()
    },
}


def plot(arrays: Arrays) -> Figure:
    """Draw noise by style; below, the loss along sampling, and of digits thickness and slant
    against the style's.
    """
    count, digits = min(SHOWN, len(arrays["free"])), "labels" in arrays
    tall, low = (0.62 * count + 0.82, 2.38) if digits else (0.2 + 13 / (1 + count), 2.2)
    figure = Figure(figsize=(7.2, tall + low))
    write_subject(figure, arrays)
    parts: Any = figure.subfigures(2, 1, height_ratios=(tall, low))
    _plot_images(parts[0], arrays, count)
    left, *others = parts[1].subplots(1, 1 + len(TRAITS) * digits, squeeze=False)[0]
    plot_along(left, arrays["residual"], arrays["time"], COLOURS["inexact"])
    left.axhline(
        np.median(arrays["before"]),
        color="#999999",
        linewidth=0.8,
        linestyle="--",
        label="unconstrained, median",
    )
    left.set(
        ylabel="style loss",
        title=f"Style loss: median,\nband 10-90 % of {len(arrays['residual'])} samples",
    )
    left.legend(loc="lower left")
    for axes, (trait, label) in zip(others, TRAITS.items(), strict=False):
        _plot_trait(axes, arrays, trait)
        axes.set(
            xlabel=f"{label.split(',')[0]} of the style", ylabel=label, title=trait.capitalize()
        )
    if digits:
        parts[1].legend(*others[0].get_legend_handles_labels(), loc="outside lower right", ncols=3)
    return figure


def _plot_images(figure: Any, arrays: Arrays, count: int) -> None:
    """Draw of digits each noise in each style; of other images each noise freely and styled."""
    styles, free, styled = arrays["style"], arrays["free"], arrays["styled"]
    if "labels" in arrays:
        rows = [(f"noise {k}", [free[k], *styled[k]]) for k in range(count)]
        names = (name.replace(" ", "\n") for name in arrays["given"].tolist())
        grid(figure, [("style of", [None, *styles]), *rows], ["free", *names])
    else:
        rows = [
            ("free", [styles[0], *free[:count]]),
            ("styled", [None, *styled[:count, 0]]),
        ]
        grid(figure, rows, ["style of", *(f"noise {k}" for k in range(count))])


def _plot_trait(axes: Axes, arrays: Arrays, trait: str) -> None:
    """Draw a trait of the samples, and of those drawn freely from the same noise, against that of
    the style.
    """
    wanted, free, styled = (arrays[f"{name}_{trait}"] for name in ("style", "free", "styled"))
    axes.plot(wanted, wanted, "-", color="#999999", linewidth=0.6, label="as the style")
    for k, value in enumerate(free):
        label = "unconstrained, each noise" if not k else None
        axes.axhline(value, color="#b0b0b0", linewidth=0.6, linestyle="--", label=label)
    axes.plot(
        np.broadcast_to(wanted, styled.shape).reshape(-1),
        styled.reshape(-1),
        "o",
        color=COLOURS["inexact"],
        markersize=3,
        markerfacecolor="none",
        markeredgewidth=0.8,
        label="in the style",
    )

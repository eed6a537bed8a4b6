"""The figure of `eigenvectors`: each component, the denoised image moved along it, and the
posterior's density along it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from studies.frame.figure_style import show
from studies.frame.figure_text import write_subject
from studies.frame.study import Arrays

MOVES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Standard deviations by which the denoised image is moved."""


def deviations(arrays: Arrays) -> np.ndarray:
    """Return the posterior's standard deviation along each component, in the unit of x_0: pixels,
    [-1, 1], or latents.
    """
    return np.asarray(arrays["sigma"] * np.sqrt(np.maximum(arrays["values"], 0) / arrays["alpha"]))


def plot(arrays: Arrays) -> Figure:
    """Draw the digit, and each component beside the denoised image moved along it."""
    count, latent = len(arrays["values"]), str(arrays["space"]) == "latent"
    figure = Figure(figsize=(7.2, 0.92 * max(count, 3) + 0.8))
    write_subject(
        figure,
        arrays,
        f"$t$ = {arrays['time']}; components $v_k$, their standard deviations $s_k$",
    )
    parts: Any = figure.subfigures(1, 2, width_ratios=(1.2, 6))
    left, right = parts
    denoised = arrays["moved"][0, MOVES.index(0)]
    shown = (
        ("clean", arrays["clean"]),
        ("$x_t\\,/\\,3$", arrays["x_t"] / 3),
        ("$D(x_t)$", denoised),
    )
    for axes, (name, image) in zip(left.subplots(3, 1), shown, strict=True):
        show(axes, image, name)
    shifts = [shift for shift in MOVES if shift]
    panels: Any = right.subplots(count, 2 + len(shifts), squeeze=False)
    limit = float(np.abs(arrays["components"]).max()) or 1.0
    for k, (row, s) in enumerate(zip(panels, deviations(arrays), strict=True)):
        drawn = show(row[0], arrays["components"][k], "", limit)
        label = rf"$\mu_{{{k + 1}}}$ = {arrays['values'][k]:.2f}" "\n" rf"$s_{{{k + 1}}}$ = {s:.1f}"
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axes, shift in zip(row[1:-1], shifts, strict=True):
            show(axes, arrays["moved"][k, MOVES.index(shift)])
        draw_density(row[-1], arrays, k)
    name_panels(right, panels, drawn, latent)
    return figure


def name_panels(figure: Any, panels: Any, drawn: AxesImage, latent: bool) -> None:
    """Write above each column of panels what it shows, and below the scale of the components."""
    panels[0, 0].set_title("component $v_k$" + (",\ndecoded" if latent else ""))
    for axes, shift in zip(panels[0, 1:-1], filter(None, MOVES), strict=True):
        axes.set_title(f"$D(x_t)$\n${shift:+.0f}\\,s_k\\,v_k$")
    panels[0, -1].set_title("density\nalong $v_k$")
    panels[-1, -1].set(xlabel="$s_k$", xticks=(-2, 0, 2), xticklabels=("-2", "0", "2"))
    bar = figure.colorbar(
        drawn,
        ax=list(panels.flat),
        location="bottom",
        shrink=0.2,
        aspect=12,
        pad=0.03,
        anchor=(0, 1),
    )
    bar.set_label("entry of the component")


def draw_density(axes: Axes, arrays: Arrays, k: int) -> None:
    """Draw the density along a component, in its standard deviations, before the Gaussian of two
    moments.
    """
    z = arrays.get("z", np.linspace(-4, 4, 201))
    axes.fill_between(z, np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), color="#dddddd", linewidth=0)
    if "density" in arrays:
        axes.plot(z, arrays["density"][k], color="#0072b2", linewidth=1)
        if not np.isfinite(arrays["density"][k]).all():
            axes.text(0, 0.02, "no density\nhas its moments", ha="center", va="bottom", fontsize=6)
    axes.set(xticks=(-2, 0, 2), xticklabels=(), yticks=(), xlim=(-3.5, 3.5), ylim=(0, None))
    axes.spines["left"].set_visible(False)

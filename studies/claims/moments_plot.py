"""The figure of `moments`: densities along the first component, and what they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.claims.moments_table import distance, gaussian_density, within_stated
from studies.frame.figure_style import show
from studies.frame.figure_text import write_subject
from studies.frame.statistics import mean_interval, over_digits
from studies.frame.study import Arrays

SHOWN = 4
"""Digits whose densities are drawn."""
COLOUR = {"model": "#0072b2", "ten Gaussians": "#d55e00", "three Gaussians": "#009e73"}
MOVED = 1.5
"""Standard deviations by which the denoised digit is moved beside its density."""


def plot(arrays: Arrays) -> Figure:
    """Draw the least Gaussian densities of the middle noise level; below, skewness and kurtosis,
    the gain, and stated beside true errors.
    """
    figure = Figure(figsize=(7.2, 6.0))
    middle = len(arrays["time"]) // 2
    write_subject(
        figure,
        arrays,
        f"above: the least Gaussian of {arrays['density'].shape[2]} at $t$ ="
        f" {arrays['time'][middle]}, with the digit moved by {MOVED:g} deviations either way",
    )
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    draw_densities(parts[0], arrays, middle)
    left, centre, right = parts[1].subplots(1, 3)
    draw_shape(left, arrays)
    draw_gain(centre, arrays)
    draw_errors(right, arrays)
    kept = {
        label: handle
        for axes in (left, centre, right)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    parts[1].legend(kept.values(), kept.keys(), loc="outside lower center", ncols=3, fontsize=7)
    return figure


def draw_densities(figure: Any, arrays: Arrays, k: int) -> None:
    """Draw the densities of the model that are farthest from Gaussian, at one noise level."""
    z, gauss = arrays["z"], gaussian_density(arrays["z"])
    far = np.nan_to_num(distance(arrays["density"][0, k], gauss, z), nan=-1)
    chosen = np.argsort(-far)[:SHOWN]
    panels: Any = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    for axes, i in zip(panels, chosen, strict=True):
        axes.plot(z, gauss, color="#888888", linewidth=0.9, label="Gaussian, two moments")
        density = arrays["density"][0, k, i]
        axes.plot(z, density, color=COLOUR["model"], label="largest entropy, four moments")
        axes.axvline(arrays["clean"][0, k, i], color="#333333", linestyle=":", label="clean digit")
        axes.set(
            xlabel="$(v^T x_0 - v^T D)\\,/\\,s$",
            title=f"{arrays['sample'][i]}\nskewness {arrays['skewness'][0, k, i]:.2f}, excess"
            f"\nkurtosis {arrays['kurtosis'][0, k, i]:.2f}",
            xlim=(-4, 4),
            ylim=(0, 0.85),
        )
        s = np.sqrt(arrays["moments"][0, k, i, 1])
        for place, shift in ((0.02, -MOVED), (0.7, MOVED)):
            inset = axes.inset_axes((place, 0.68, 0.28, 0.3))
            D, v = arrays["denoised"][0, k, i], arrays["component"][0, k, i]
            show(inset, D + shift * s * v)
    panels[0].set_ylabel("density")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def draw_shape(axes: Axes, arrays: Arrays) -> None:
    """Draw |skewness| and excess kurtosis by noise level, with intervals."""
    for s, source in enumerate(arrays["source"].tolist()):
        for name, style in (("skewness", "o-"), ("kurtosis", "s--")):
            values = arrays[name][s]
            values = np.abs(values) if name == "skewness" else values
            label = ("|skewness|" if name == "skewness" else "excess kurtosis") + f", {source}"
            draw_interval(axes, arrays, values, style, COLOUR[source], label)
    axes.axhline(0, color="#888888", linewidth=0.6)
    axes.set(xlabel="time $t$", ylabel="standardised moment", title="Mean over digits")


def draw_gain(axes: Axes, arrays: Arrays) -> None:
    """Draw the gain in log-likelihood over the Gaussian by noise level, with intervals."""
    for s, source in enumerate(arrays["source"].tolist()):
        label = "gain of the model, at clean digits" if s == 0 else f"gain of {source}, expected"
        draw_interval(axes, arrays, arrays["gain"][s], "o-", COLOUR[source], label)
    axes.axhline(0, color="#888888", linewidth=0.6)
    axes.set(
        xlabel="time $t$",
        ylabel="gain over the Gaussian, nats",
        title="Density of four moments\nagainst two",
    )


def draw_interval(
    axes: Axes, arrays: Arrays, values: Any, style: str, colour: str, label: str
) -> None:
    """Draw means of (times, samples) with their 95 % intervals over digits, NaNs left out."""
    means = [
        mean_interval(over_digits(v[known], arrays["digit"][known]))
        if (known := np.isfinite(v)).any()
        else [np.nan] * 3
        for v in values
    ]
    mean, low, high = np.transpose(means)
    ends = (mean - low, high - mean)
    axes.errorbar(arrays["time"], mean, ends, fmt=style, color=colour, label=label, capsize=2)


def draw_errors(axes: Axes, arrays: Arrays) -> None:
    """Draw the true error of the fourth moment against the stated one, relative."""
    for prefix, source in (("oracle_", "three Gaussians"), ("", "ten Gaussians")):
        exact, found, stated = (
            arrays[f"{prefix}{name}"] if prefix else arrays[name][1]
            for name in ("exact_moments", "moments", "errors")
        )
        exact, found, stated = exact[..., 3], found[..., 3], stated[..., 3]
        true, stated = np.abs(found - exact) / exact, stated / exact
        axes.loglog(
            stated.ravel(),
            true.ravel().clip(1e-17),
            "o",
            color=COLOUR[source],
            label=f"error, {source}",
        )
    ends = np.array(axes.get_xlim())
    axes.loglog(ends, ends, color="#888888", linewidth=0.8, label="true = stated error")
    inside = within_stated(arrays, "oracle_")
    axes.set(
        xlabel="stated relative error",
        ylabel="true relative error",
        title=f"Fourth moment: {inside.sum()} of {inside.size}\nsamples within stated errors",
    )

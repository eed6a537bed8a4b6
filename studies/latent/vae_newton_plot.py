"""The figure of `vae-newton`: images by each form; the premises; the residual along sampling;
memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.dataset import IMAGE, SUBJECT, TIME, T, Variable
from studies.frame.figure_text import write_subject
from studies.frame.panels import grid, plot_along
from studies.frame.study import Arrays
from studies.latent.vae_premises import FORMS, STEPS, TASKS

COLOURS = {
    "backprop": "#009e73",
    "tangent": "#0072b2",
    "secant": "#d55e00",
    "latent mask": "#cc79a7",
}
GRAY = "#555555"
CUT_OFF = "$J_D^{+} e$, cut off"
STYLES = {"$J_D^T e$": "--", "$J_D^{+} e$": ":", CUT_OFF: "-"}
TENTHS = (0, 0.5, 1)
SHOWN = 5
TITLES = ("direction", "a step", "sampling, 10-90 %")
VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "rows": Variable("line what", "task and method"),
    "batch": Variable("", "digits that are sampled together where memory is measured"),
    "sampling_times": Variable("sampling_time", f"sampling times: {T}"),
    "roundtrip": Variable("time digit vector", "|J_E J_D v - v| / |v|: random, to digits, secant"),
    "cosines": Variable(
        "time digit task form reference", "cosine of the latent change with others"
    ),
    "by_step": Variable(
        "time digit task move length", "|error after| / |error before|, by step size"
    ),
    "singular_values": Variable("time digit k", "singular values of the decoder's Jacobian J_D"),
    "loop": Variable("time digit task what_of", "of J_E P J_D: |eigenvalue|, norm, share negative"),
    "images": Variable(f"line sample {IMAGE}", "samples"),
    "missing": Variable("line sample", "RMSE of what is observed"),
    "residual": Variable("line sample sampling_time step", "the same after each step"),
    "psnr": Variable("line sample", "PSNR to the digit", "dB"),
    "agreement": Variable("line sample", "whether the judge sees the digit"),
    "psnr_projected": Variable("line sample", "PSNR of the projected sample", "dB"),
    "passes": Variable("line pass", "passes: denoiser, decoder, decoder with a graph, encoder"),
    "seconds": Variable("line", "processor time", "s"),
    "resident": Variable("line moment", "memory of a process before sampling, and its peak", "MB"),
    "truth": Variable(f"sample {IMAGE}", "digits"),
    "small": Variable("sample channel small_row small_column", "the shrunk digits"),
    "known": Variable(f"sample {IMAGE}", "the half that is known; NaN elsewhere"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw images of some digits by task, and a column of panels for each task."""
    figure = Figure(figsize=(8.6, 7.8))
    count = len(arrays["truth"])
    write_subject(figure, arrays, f"{count} digits sampled; lines: medians over the digits")
    parts: Any = figure.subfigures(1, 2, width_ratios=(3.3, 5.3))
    _plot_images(parts[0], arrays)
    panels = parts[1].subplots(4, 2)
    for column, task in enumerate(TASKS):
        _plot_cosines(panels[0, column], arrays, column)
        _plot_steps(panels[1, column], arrays, column)
        _plot_sampling(panels[2, column], arrays, task)
        for axes, title in zip(panels[:3, column], TITLES, strict=True):
            axes.set_title(f"{task}: {title}", fontsize=8)
    _plot_roundtrip(panels[3, 0], arrays)
    _plot_memory(panels[3, 1], arrays)
    forms = [panels[1, 0].plot([], [], color=COLOURS[form])[0] for form in FORMS]
    forms += panels[1, 0].plot([], [], color=GRAY)
    parts[1].legend(forms, [*FORMS, CUT_OFF], loc="outside upper center", ncols=4)
    return figure


def _plot_images(figure: Any, arrays: Arrays) -> None:
    """Draw the truth, and below it for each task what is observed and the samples."""
    groups = {"autoencoder": [("truth", arrays["truth"]), ("decoded", arrays["images"][0])]}
    for task, observed in zip(TASKS, ("small", "known"), strict=True):
        groups[task] = [("observed", arrays[observed])] + [
            (method, arrays["images"][k])
            for k, (of, method) in enumerate(arrays["rows"].tolist())
            if of == task and method not in ("autoencoder", "unconstrained")
        ]
    heights = [len(rows) + 0.4 for rows in groups.values()]
    for part, (title, rows) in zip(
        figure.subfigures(len(groups), 1, height_ratios=heights), groups.items(), strict=True
    ):
        grid(part, [(name, list(images[:SHOWN])) for name, images in rows])
        part.suptitle(title, fontsize=9)


def _plot_cosines(axes: Axes, arrays: Arrays, task: int) -> None:
    """Draw the median cosine with each reference against the noise level."""
    found = np.median(arrays["cosines"][:, :, task], axis=1)
    for f, form in enumerate(FORMS):
        for r, style in enumerate(STYLES.values()):
            if form != "backprop" or r:
                axes.plot(arrays["time"], found[:, f, r], style, color=COLOURS[form])
    for name, style in STYLES.items():
        axes.plot([], [], style, color=GRAY, label=name)
    axes.set(
        xlabel="time $t$", ylabel="cosine with", ylim=(min(0, found.min()), 1.3), yticks=TENTHS
    )
    axes.legend(loc="upper center", ncols=3, borderpad=0, columnspacing=0.6, handlelength=1.2)


def _plot_steps(axes: Axes, arrays: Arrays, task: int) -> None:
    """Draw the median residual of D(z + s d), relative to that at s = 0, against s."""
    found = np.median(arrays["by_step"][:, :, task], axis=(0, 1))
    for values, form in zip(found, [*FORMS, CUT_OFF], strict=True):
        axes.plot(STEPS, values, color=COLOURS.get(form, GRAY))
    axes.set(
        xlabel="step $s$",
        ylabel="residual of $D(z + s d)$",
        ylim=(0, max(1.1, min(2.0, found.max()))),
    )


def _plot_sampling(axes: Axes, arrays: Arrays, task: str) -> None:
    """Draw the residual along sampling: median, and 10 to 90 % of the digits."""
    for k, (of, method) in enumerate(arrays["rows"].tolist()):
        if of == task and method in FORMS:
            plot_along(axes, arrays["residual"][k], arrays["sampling_times"], COLOURS[method])
    axes.set_ylabel("RMSE, observed")


def _plot_roundtrip(axes: Axes, arrays: Arrays) -> None:
    """Draw how much of v the round trip misses: median, and range over the digits."""
    for k, label in enumerate(("random $v$", "$v$ to other digits", "the same, secant")):
        found, colour = (
            arrays["roundtrip"][:, :, k],
            (GRAY, COLOURS["tangent"], COLOURS["secant"])[k],
        )
        axes.plot(arrays["time"], np.median(found, 1), "o-", color=colour, label=label)
        axes.fill_between(
            arrays["time"], found.min(1), found.max(1), color=colour, alpha=0.12, linewidth=0
        )
    axes.set(
        xlabel="time $t$",
        ylabel="$|J_E J_D v - v|\\,/\\,|v|$",
        ylim=(0, 1.7 * arrays["roundtrip"].max()),
        title="round trip, range of digits",
    )
    axes.legend(loc="upper left", borderpad=0)


def _plot_memory(axes: Axes, arrays: Arrays) -> None:
    """Draw the peak of each method, of one task: the other's is the same but for the pixels'
    constraint.
    """
    rows = arrays["rows"].tolist()
    shown = [k for k, (of, _) in enumerate(rows) if of == rows[-1][0]]
    peaks = np.diff(arrays["resident"])[shown, 0]
    names = [rows[k][1] for k in shown]
    axes.barh(range(len(shown)), peaks, color=[COLOURS.get(name, GRAY) for name in names])
    axes.set(
        yticks=range(len(shown)),
        yticklabels=names,
        ylim=(len(shown) - 0.5, -0.5),
        xlabel=f"MB above rest, batch {int(arrays['batch'])}",
        title="memory",
    )

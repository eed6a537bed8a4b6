"""The figure of `symmetry`: the asymmetry against the noise level, and where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.frame.dataset import IMAGE, SAMPLES, SUBJECT, TIME, Variable
from studies.frame.figure_style import COLOURS, show, tile_rows
from studies.frame.figure_text import write_subject
from studies.frame.study import Arrays

IMAGES = ("denoised", "column", "row", "skew", "symmetric")
TITLES = (
    "$D(x_t)$",
    "column of $J$:\ninexact Newton",
    "row of $J$:\ngradient descent",
    "difference",
    "norm of the rows\nof the skew part",
    "and of the\nsymmetric part",
)
VARIABLES = {
    **SUBJECT,
    **SAMPLES,
    "time": TIME,
    "value": Variable("time sample", "|J - J^T|_F / |J + J^T|_F, estimated from products"),
    "interval": Variable("time sample bound", "its 95 % interval: low and high"),
    "products": Variable("time sample", "products J v and J^T u that it took"),
    "truth": Variable("time", "the same of the first sample's dense J"),
    "shown": Variable("shown", "noise levels that are drawn, as time"),
    "shown_truth": Variable("shown", "|J - J^T|_F / |J + J^T|_F of the dense J there"),
    "entry": Variable("axis", "the entry whose column and row are drawn: channel, row, column"),
    "denoised": Variable(f"shown {IMAGE}", "D(x_t) of the first sample, decoded"),
    "column": Variable("shown c h w", "column of J at the entry"),
    "row": Variable("shown c h w", "row of J at the entry"),
    "skew": Variable("shown c h w", "norms of the rows of the skew part"),
    "symmetric": Variable("shown c h w", "norms of the rows of the symmetric part"),
}


def plot(arrays: Arrays) -> Figure:
    """Draw the asymmetry against the noise level; below, column, row and the place of the skew part
    at the shown ones.
    """
    count = len(arrays["shown"])
    figure = Figure(figsize=(7.2, 2.6 + 1.25 * count))
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.2, 1.25 * count])
    top, bottom = parts
    write_subject(figure, arrays)
    _plot_survey(top.subplots(), arrays)
    panels: Any = bottom.subplots(count, len(TITLES), squeeze=False)
    for k, row in enumerate(panels):
        _plot_shown(bottom, row, {key: arrays[key][k] for key in IMAGES}, arrays["entry"])
        row[0].set_ylabel(f"$t$ = {arrays['shown'][k]}")
    channels = len(arrays["column"][0])
    for panel, title in zip(panels[0], TITLES, strict=True):
        panel.set_title(title, fontsize=8)
    if channels > 3:
        label = f"tiles: channels 1 to {channels}, row by row"
        panels[-1, 2].set_xlabel(label, fontsize=8)
    return figure


def _plot_shown(figure: Any, row: Any, images: Arrays, entry: NDArray[np.int_]) -> None:
    """Draw the first sample at one noise level: column and row of an entry, and norms of rows of
    both parts on one scale.
    """
    limit = float(np.abs([images["column"], images["row"]]).max())
    show(row[0], images["denoised"])
    for panel, image in zip(
        row[1:4],
        (images["column"], images["row"], images["column"] - images["row"]),
        strict=True,
    ):
        drawn = show(panel, image, "", limit)
    places = _places(entry, images["column"].shape, images["denoised"].shape)
    for panel, edge, place in zip(
        row[:4], ("#e69f00", "k", "k", "k"), (places[0], *[places[1]] * 3), strict=True
    ):
        panel.plot(
            *place,
            "s",
            markersize=4,
            markerfacecolor="none",
            markeredgecolor=edge,
            markeredgewidth=0.6,
        )
    figure.colorbar(drawn, ax=row[3], pad=0.02, aspect=12, shrink=0.75)
    # of all channels of a pixel
    norms = [np.linalg.norm(images[name], axis=0) for name in ("skew", "symmetric")]
    for panel, norm in zip(row[4:], norms, strict=True):
        drawn = panel.imshow(norm, cmap="magma", vmin=0, vmax=max(map(np.max, norms)))
        panel.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=row[5], pad=0.02, aspect=12, shrink=0.75)


def _places(
    entry: NDArray[np.int_], shape: tuple[int, ...], image: tuple[int, ...]
) -> tuple[tuple[float, float], ...]:
    """Return where (x, y) an entry of a sample lies in the decoded image, and in the sample as
    `show` draws it.
    """
    (channel, row, column), (channels, height, width), factor = (
        entry.tolist(),
        shape,
        image[1] / shape[1],
    )
    across = channels // tile_rows(channels)
    tile = divmod(channel, across) if channels > 3 else (0, 0)
    return (
        (factor * (column + 0.5) - 0.5, factor * (row + 0.5) - 0.5),
        (tile[1] * width + column, tile[0] * height + row),
    )


def _plot_survey(axes: Any, arrays: Arrays) -> None:
    names, times = arrays["sample"].tolist(), arrays["time"]
    apart = (
        min(np.diff(np.sort(times)).min(), np.ptp(times) / 8) if len(times) > 1 else times[0] / 8
    )
    spacing = 0.12 * apart * (np.arange(len(names)) - (len(names) - 1) / 2)
    shades = ("#0072b2", "#cc79a7", "#009e73", "#e69f00", "#56b4e9")
    for i, name in enumerate(names):
        value, (low, high) = arrays["value"][:, i], arrays["interval"][:, i].T
        axes.errorbar(
            times + spacing[i],
            value,
            yerr=[value - low, high - value],
            fmt="o",
            color=shades[i % len(shades)],
            elinewidth=1,
            capsize=2,
            label=name,
        )
    if np.isfinite(arrays["truth"]).all():
        axes.plot(
            times + spacing[0],
            arrays["truth"],
            "_",
            color=COLOURS["skew"],
            markersize=12,
            markeredgewidth=1.3,
            label=f"{names[0]}, dense",
        )
    products = f"{int(arrays['products'].mean())} products each, not {arrays['column'][0].size}"
    axes.set(
        xlabel="time $t$",
        ylabel=r"$|J - J^T|_F \,/\, |J + J^T|_F$",
        ylim=(0, None),
        xticks=times,
        title=f"Asymmetry of $J$ with 95 % intervals: {products}; samples side by side at each $t$",
    )
    axes.legend(ncols=3)
    axes.margins(x=0.1)

"""The figure of `symmetry`: the asymmetry against the noise level, and where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from studies.frame.figure_style import COLOURS, show, tile_rows
from studies.frame.study import Arrays

TITLES = (
    "$D(x_t)$",
    "column of $J$:\ninexact Newton",
    "row of $J$:\ngradient descent",
    "difference",
    "norm of the rows\nof the skew part",
    "and of the\nsymmetric part",
)


def plot(arrays: Arrays) -> Figure:
    """Draw the asymmetry against the noise level; below, column, row and the place of the skew part
    at the shown ones.
    """
    count = len(arrays["shown"])
    figure = Figure(figsize=(7.2, 2.4 + 1.25 * count))
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.2, 1.25 * count])
    top, bottom = parts
    _plot_survey(top.subplots(), arrays)
    panels: Any = bottom.subplots(count, len(TITLES), squeeze=False)
    for k, row in enumerate(panels):
        images = {name: arrays[name][k] for name in ("column", "row", "skew", "symmetric")}
        limit = float(np.abs([images["column"], images["row"]]).max())
        show(row[0], arrays["denoised"][k])
        row[0].set_ylabel(f"$t$ = {arrays['shown'][k]}")
        for panel, image in zip(
            row[1:4],
            (images["column"], images["row"], images["column"] - images["row"]),
            strict=True,
        ):
            drawn = show(panel, image, "", limit)
        places = _places(arrays["entry"], images["column"].shape, arrays["denoised"][k].shape)
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
        bottom.colorbar(drawn, ax=row[3], pad=0.02, aspect=12)
        for panel, name in zip(row[4:], ("skew", "symmetric"), strict=True):
            energy = np.linalg.norm(images[name], axis=0)  # of all channels of a pixel
            bottom.colorbar(
                panel.imshow(energy, cmap="magma", vmin=0), ax=panel, pad=0.02, aspect=12
            )
            panel.set(xticks=[], yticks=[])
    for panel, title in zip(panels[0], TITLES, strict=True):
        panel.set_title(title, fontsize=7)
    return figure


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
    names, times = arrays["names"].tolist(), arrays["times"]
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
        title=f"Asymmetry of $J$ with 95 % intervals: {products}",
    )
    axes.legend(ncols=2)

"""One style for every figure: fonts, sizes, and a colour for each method."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "mathtext.fontset": "dejavusans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "image.cmap": "gray",
    "savefig.dpi": 150,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
}
COLOURS = {
    "inexact": "#0072b2",
    "exact": "#d55e00",
    "gradient": "#009e73",
    "central": "#0072b2",
    "forward": "#cc79a7",
    "J": "#0072b2",
    "symmetric": "#009e73",
    "skew": "#d55e00",
    "krylov": "#cc79a7",
    "identity": "#555555",
}
LABELS = {
    "inexact": r"$J e$",
    "exact": r"$J^{+} e$",
    "gradient": r"$J^{T} e$",
    "krylov": "Krylov",
    "identity": "$e$",
    "J": "$J$",
    "symmetric": r"$(J + J^T)\,/\,2$",
    "skew": r"$(J - J^T)\,/\,2$",
}


def show(axes: Axes, image: NDArray[Any], title: str = "", limit: float | None = None) -> AxesImage:
    """Show a (C, H, W) image without ticks: gray or colours in [-1, 1], or with a `limit` diverging
    in [-limit, limit].

    One channel is an image, three are colours, whose mean is shown if signed; more are a latent's,
    side by side.
    """
    signed = limit is not None
    bound = limit if limit is not None else 1.0
    if len(image) == 3:
        image = image.mean(0, keepdims=True) if signed else (image.clip(-1, 1) + 1) / 2
    flat = image.transpose(1, 2, 0) if len(image) == 3 else tile(image)
    drawn = axes.imshow(flat, cmap="RdBu_r" if signed else "gray", vmin=-bound, vmax=bound)
    if len(image) > 3:
        for line, size, whole in zip(
            (axes.axhline, axes.axvline), image.shape[1:], flat.shape, strict=True
        ):
            for edge in range(size, whole, size):
                line(edge - 0.5, color="#777777", linewidth=0.4)
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.4)
    return drawn


def tile(image: NDArray[Any]) -> NDArray[Any]:
    """Lay the channels of a (C, H, W) image side by side, in rows as equal as may be: (rows H, C /
    rows W).
    """
    channels, height, width = image.shape
    rows = tile_rows(channels)
    return image.reshape(rows, -1, height, width).swapaxes(1, 2).reshape(rows * height, -1)


def tile_rows(channels: int) -> int:
    """Return in how many rows `tile` lays channels: the largest divisor that is at most the
    root.
    """
    return max(k for k in range(1, int(channels**0.5) + 1) if channels % k == 0)


def spread(
    axes: Axes,
    x: NDArray[Any],
    groups: list[NDArray[Any]],
    label: str,
    colour: str,
    style: str = "-",
) -> None:
    """Draw the mean of each group against x, and the range from its smallest to its largest
    value.
    """
    axes.plot(x, [np.mean(g) for g in groups], style, color=colour, label=label)
    axes.fill_between(
        x,
        [np.min(g) for g in groups],
        [np.max(g) for g in groups],
        color=colour,
        alpha=0.12,
        linewidth=0,
    )

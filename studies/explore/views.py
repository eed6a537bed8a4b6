"""Pictures, tables and sentences of the explorer's page, as HTML; its colours are the figures'.

Gray pictures show -1 as black and 1 as white. Signed ones are red above zero and blue below, as far
as the scale under them says.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studies.frame.figure_style import COLOURS, tile

Array: TypeAlias = NDArray[Any]
NAMES = {"inexact": "J e", "gradient": "Jᵀ e", "exact": "J⁺ e", "krylov": "GMRES"}
"""Directions as a page writes them."""
WIDTH = 215
"""Of a picture at most, with the space beside it, in pixels of the page."""
SIGNED: Array = np.rint(255 * mpl.colormaps["RdBu_r"](np.linspace(0, 1, 256))).astype(np.uint8)


def pixels(image: Array, limit: float | None = None) -> Array:
    """Return an image (C, H, W) as colours, uint8 (rows, columns, 4): gray or RGB in [-1, 1], or
    with a `limit` diverging in [-limit, limit].

    As in the figures, three channels are colours, whose mean is shown if signed; a latent's lie
    side by side.
    """
    if len(image) == 3 and limit is None:
        rgb = np.rint((image.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
        return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    flat = tile(image.mean(0, keepdims=True) if len(image) == 3 else image)
    bound = 1.0 if limit is None else limit or 1.0
    index = np.rint((np.nan_to_num(flat / bound).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return SIGNED[index] if limit is not None else SIGNED_GRAY[index]


SIGNED_GRAY: Array = np.stack([np.arange(256)] * 3 + [np.full(256, 255)], axis=1).astype(np.uint8)


def picture(
    image: Array,
    title: str,
    note: str = "",
    limit: float | None = None,
    kind: str = "",
    marked: tuple[int, int] | None = None,
) -> str:
    """Return an image (C, H, W) with its title, its scale and a note.

    Parameters
    ----------
    limit : float, optional
        Of the symmetric scale of a signed image.
    kind : str
        A direction: its colour marks the title.
    marked : (int, int), optional
        Row and column of the pixel with a frame, as drawn.
    """
    shown = pixels(image, limit)
    held = BytesIO()
    Image.fromarray(shown).save(held, "PNG")
    data = base64.b64encode(held.getvalue()).decode()
    height, width = shown.shape[:2]
    frame = "" if marked is None else _frame(marked, height, width)
    return (
        f'<figure class="picture">{_caption(title, kind)}'
        f'<div class="image"><img alt="{escape(title)}: {width} by {height} pixels"'
        f' src="data:image/png;base64,{data}">{frame}</div>{scale(limit, note)}</figure>'
    )


def waiting(title: str, note: str, kind: str = "") -> str:
    """Return the place of a picture that is not there."""
    return (
        f'<figure class="picture">{_caption(title, kind)}'
        f'<div class="image empty"><span>{escape(note)}</span></div>{scale(0.0, "")}</figure>'
    )


def scale(limit: float | None, note: str) -> str:
    """Return the line under a picture: the ends of its colours, and a note."""
    bar = "" if limit == 0 else f'<i class="bar {"gray" if limit is None else "signed"}"></i>'
    ends = ("−1", "1") if limit is None else (f"−{limit:.2g}", f"+{limit:.2g}")
    low, high = ("", "") if limit == 0 else ends
    return (
        f'<div class="scale"><span>{low}</span>{bar}<span>{high}</span></div>'
        f'<div class="note">{escape(note).replace(chr(10), "<br>")}</div>'
    )


def pictures(*figures: str) -> str:
    """Return pictures in a row, which wraps; few ones do not grow beyond their size."""
    width = f"max-width: {WIDTH * len(figures)}px"
    return f'<div class="pictures" style="{width}">{"".join(figures)}</div>'


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return a table; the first cell of a row is its head, with a colour if it is a direction's
    name.
    """
    kinds = {name: kind for kind, name in NAMES.items()}
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{_dot(kinds.get(first, ""))}{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def sentence(text: str, kind: str = "hint") -> str:
    """Return a sentence; of kind "hint", "busy" or "error"."""
    role = ' role="alert"' if kind == "error" else ' role="status"'
    return f'<p class="{kind}"{role}>{escape(text)}</p>' if text else ""


def limit_of(*images: Array) -> float:
    """Return the limit of a symmetric scale for images: their largest entry in modulus."""
    return max(float(abs(image).max()) for image in images)


def number(value: complex, digits: int = 4) -> str:
    """Return a number with a true minus sign."""
    if isinstance(value, complex) and value.imag:
        sign = "+" if value.imag > 0 else "-"
        return f"{number(value.real, digits)} {sign} {abs(value.imag):.{digits}g}i".replace(
            "-", "−"
        )
    return f"{np.real(value):.{digits}g}".replace("-", "−")


def _caption(title: str, kind: str) -> str:
    return f"<figcaption>{_dot(kind)}{escape(title)}</figcaption>"


def _dot(kind: str) -> str:
    return f'<i class="dot" style="background:{COLOURS[kind]}"></i>' if kind in COLOURS else ""


def _frame(marked: tuple[int, int], height: int, width: int) -> str:
    top, left = 100 * marked[0] / height, 100 * marked[1] / width
    return (
        f'<i class="mark" style="top:{top:.4g}%;left:{left:.4g}%;height:{100 / height:.4g}%;'
        f'width:{100 / width:.4g}%"></i>'
    )

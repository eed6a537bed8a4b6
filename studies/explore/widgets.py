"""The page's widgets: their style, and the blocks of HTML between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bokeh.models import Div, Slider

from studies.frame.figure_style import COLOURS

HERE = Path(__file__).parent
WIDGETS, BLOCKS = ((HERE / f"{name}.css").read_text() for name in ("widgets", "blocks"))
"""Bokeh draws each widget apart from the page's own style, which is given to each."""


def html_block(name: str, text: str = "") -> Any:
    """Return a block of HTML that the page fills in."""
    return Div(
        name=name,
        text=text,
        sizing_mode="stretch_width",
        margin=0,
        disable_math=True,
        stylesheets=[BLOCKS],
    )


def styled(*widgets: Any) -> list[Any]:
    """Return widgets in the page's style, as wide as their place."""
    for widget in widgets:
        widget.stylesheets, widget.margin, widget.sizing_mode = [WIDGETS], 0, "stretch_width"
        if isinstance(widget, Slider):
            widget.bar_color = COLOURS["inexact"]
    return list(widgets)


def on_value(widget: Any, name: str, act: Callable[[Any], None]) -> None:
    """Call `act(value)` when a property of a widget changes."""
    widget.on_change(name, lambda attr, old, new: act(new))

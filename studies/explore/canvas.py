"""A picture that takes clicks, or paint, on its pixels: a figure of Bokeh.

Paint is laid in the browser, pixel by pixel; after each stroke the page gets the code of every
pixel: 0 where there is none, and else the number of the paint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, CustomJS, Div, Range1d, Spinner
from bokeh.plotting import figure
from numpy.typing import NDArray

from studies.explore.widgets import on_value

Array: TypeAlias = NDArray[Any]
PAINT = """
if (!source.data.image.length) return;  // no picture yet
const shown = source.data.image[0], ink = source.data.ink[0], base = source.data.base[0];
const [H, W] = [source.data.height[0], source.data.width[0]];
const [x, y] = [cb_obj.x, cb_obj.y];
const start = cb_obj.event_name == "pan" && source._last || [x, y];
const count = Math.max(1, Math.ceil(2 * Math.hypot(x - start[0], y - start[1])));
const code = paints.active, r = brush.value / 2;
for (let k = 0; k <= count; k++) {
  const cx = start[0] + (x - start[0]) * k / count, cy = start[1] + (y - start[1]) * k / count;
  for (let row = Math.floor(cy - r); row <= cy + r; row++) {
    for (let column = Math.floor(cx - r); column <= cx + r; column++) {
      if (row < 0 || row >= H || column < 0 || column >= W) continue;
      const inside = Math.hypot(row + 0.5 - cy, column + 0.5 - cx) <= r;
      if (!inside && (row != Math.floor(cy) || column != Math.floor(cx))) continue;
      const i = row * W + column;
      ink[i] = code;
      shown[i] = code ? colours[code - 1] : base[i];
    }
  }
}
source._last = [x, y];
source.change.emit();
if (cb_obj.event_name != "pan" && cb_obj.event_name != "panstart") {
  source._last = null;
  strokes.text = Array.from(ink).join("");
}
"""


class Canvas:
    """A picture of H x W pixels.

    Parameters
    ----------
    name : str
        Of its root in the page.
    title : str
        What it shows, for readers of the screen.
    """

    def __init__(self, name: str, title: str) -> None:
        self.source = ColumnDataSource(data={"image": [], "width": [], "height": []})
        self.mark = ColumnDataSource(data={"x": [], "y": []})
        self.figure = figure(
            name=name,
            tools="",
            toolbar_location=None,
            sizing_mode="stretch_width",
            aspect_ratio=1,
            x_range=Range1d(0, 1),
            y_range=Range1d(0, 1),
            min_border=0,
            outline_line_color="#888888",
        )
        self.figure.axis.visible = False
        self.figure.grid.visible = False
        self.figure.image_rgba("image", x=0, y=0, dw="width", dh="height", source=self.source)
        self.figure.rect(
            "x", "y", 1, 1, source=self.mark, fill_alpha=0, line_color="#e60000", line_width=2
        )
        self.figure.html_attributes = {"aria-label": title, "role": "img"}
        self.strokes = Div(name=f"{name}-strokes", visible=False)
        self.roots: list[Any] = [self.figure, self.strokes]

    def show(self, colours: Array, painted: Array | None = None, ink: Array | None = None) -> None:
        """Show colours, uint8 (H, W, 4); and `painted`, in such colours, on top where the codes
        `ink`, (H, W), are not 0.
        """
        height, width = colours.shape[:2]
        self.figure.x_range.end, self.figure.y_range.end = width, height
        self.figure.aspect_ratio = width / height
        codes = np.zeros((height, width), np.uint8) if ink is None else ink
        top = colours if painted is None else np.where(codes[:, :, None] > 0, painted, colours)
        self.strokes.text = ""  # the same stroke again is a change again
        self.source.data = {
            "image": [packed(top)],
            "base": [packed(colours)],
            "ink": [np.ascontiguousarray(np.flipud(codes)).astype(np.uint8)],
            "width": [width],
            "height": [height],
        }

    def frame(self, row: int, column: int) -> None:
        """Frame a pixel."""
        height = self.figure.y_range.end
        self.mark.data = {"x": [column + 0.5], "y": [height - row - 0.5]}

    def on_click(self, clicked: Callable[[int, int], None]) -> None:
        """Call `clicked(row, column)` for a click on a pixel."""

        def tap(event: Any) -> None:
            height, width = int(self.figure.y_range.end), int(self.figure.x_range.end)
            row, column = height - 1 - int(np.floor(event.y)), int(np.floor(event.x))
            if 0 <= row < height and 0 <= column < width:
                clicked(row, column)

        self.figure.on_event(Tap, tap)

    def on_paint(
        self,
        paints: Any,
        brush: Spinner,
        colours: Sequence[Sequence[int]],
        painted: Callable[[Array], None],
    ) -> None:
        """Let strokes paint, and call `painted(codes)`, (H, W) of uint8, after each.

        Parameters
        ----------
        paints : RadioButtonGroup
            Its active button is the code: 0 wipes, k paints in `colours[k - 1]`.
        brush : Spinner
            The brush's diameter, in pixels.
        colours : sequence of (r, g, b, a)
        """
        strokes = self.strokes
        packed_colours = [int(packed(np.array([[c]], np.uint8))[0, 0]) for c in colours]
        code = CustomJS(
            args={
                "source": self.source,
                "paints": paints,
                "brush": brush,
                "strokes": strokes,
                "colours": packed_colours,
            },
            code=PAINT,
        )
        for event in ("tap", "panstart", "pan", "panend"):
            self.figure.js_on_event(event, code)

        def sent(new: str) -> None:
            height, width = int(self.figure.y_range.end), int(self.figure.x_range.end)
            if len(new) == height * width and set(new) <= set("0123456789"):
                codes = np.frombuffer(new.encode(), np.uint8) - ord("0")
                painted(np.flipud(codes.reshape(height, width)))

        on_value(strokes, "text", sent)


def packed(colours: Array) -> Array:
    """Return colours, uint8 (H, W, 4), as uint32 (H, W) from the bottom up, as Bokeh takes them."""
    upright = np.ascontiguousarray(np.flipud(colours).astype(np.uint8))
    return upright.view(np.uint32)[:, :, 0]

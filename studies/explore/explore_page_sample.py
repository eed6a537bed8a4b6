"""The page's part on constrained samples: a mask to paint, samples step by step, their residual."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from bokeh.models import Button, ColumnDataSource, FixedTicker, RadioButtonGroup, Select, Spinner
from bokeh.plotting import figure
from torch import Tensor

from jacobian_lab import InputError, State
from studies.explore.background import Job
from studies.explore.canvas import Canvas
from studies.explore.constrained_steps import COUNT, PRESETS, Drawing, constrained_states
from studies.explore.explore_page_spectrum import plain
from studies.explore.explore_page_wish import untile
from studies.explore.point import Array, Point, flat
from studies.explore.session import Session
from studies.explore.views import picture, pictures, pixels, scale, sentence, waiting
from studies.explore.widgets import html_block, on_value, styled
from studies.frame.figure_style import COLOURS, tile

HIDDEN = 1
"""The code of the paint that hides."""
COLOUR = (142, 170, 200, 255)
"""Of what is hidden: no gray of an image."""
PACE = 0.2
"""Seconds between two states that are shown: a slow browser must not fall behind."""
DIRECTIONS = (
    ("inexact", "J e, inexact Newton"),
    ("gradient", "Jᵀ e, gradient descent"),
    ("krylov", "GMRES"),
    ("identity", "e"),
)


class SamplePart:
    """A canvas with the clean image, of which what is not painted over is known to the sampler."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.codes: Array | None = None
        self.canvas = Canvas("mask", "clean image: paint over what the sampler shall not know")
        self.preset = Select(
            name="mask-preset", title="Known", value="left half", options=[*PRESETS, "painted"]
        )
        self.paint = RadioButtonGroup(name="mask-paint", labels=["Reveal", "Hide"], active=HIDDEN)
        self.brush = Spinner(name="mask-brush", title="Brush, pixels", low=1, high=16, value=5)
        self.direction = Select(
            name="sample-direction", title="Direction", value="inexact", options=list(DIRECTIONS)
        )
        self.steps = Spinner(
            name="sample-steps", title="Newton steps a time", low=1, high=20, value=5
        )
        self.times = Spinner(name="sample-times", title="Times", low=2, high=100, value=20)
        self.go = Button(name="sample-go", label="Draw samples", button_type="primary")
        self.stop = Button(name="sample-stop", label="Stop", disabled=True)
        self.curves = [ColumnDataSource(data={"x": [], "y": []}) for _ in range(COUNT)]
        self.curve = residual_curve(self.curves)
        self.below, self.pictures = html_block("mask-scale"), html_block("sample-pictures")
        self.told = html_block("sample-told")
        self.canvas.on_paint(self.paint, self.brush, [COLOUR], self.painted)
        on_value(self.preset, "value", self.take)
        self.go.on_click(self.start)
        self.stop.on_click(self.halt)
        self.roots: list[Any] = [*self.canvas.roots, self.below, self.pictures, self.told]
        self.roots += [self.curve, *styled(self.preset, self.paint, self.brush, self.direction)]
        self.roots += styled(self.steps, self.times, self.go, self.stop)
        self.empty()

    def show(self, point: Point) -> None:
        """Show another image, with the mask that there is if it fits."""
        self.halt()
        self.empty()
        shown = pixels(flat(point.clean).reshape(point.shape))
        if self.codes is None or self.codes.shape != shown.shape[:2]:
            self.codes = preset_codes("left half", point.shape)
        self.redraw(point)

    def take(self, preset: str) -> None:
        """Take a mask that is ready."""
        point = self.session.point
        if preset in PRESETS and point is not None:
            self.codes = preset_codes(preset, point.shape)
            self.redraw(point)

    def painted(self, codes: Array) -> None:
        """Take the paint after a stroke."""
        self.codes = codes
        self.preset.value = "painted"
        self.count()

    def redraw(self, point: Point) -> None:
        """Draw the clean image and the mask on it."""
        shown = pixels(flat(point.clean).reshape(point.shape))
        top = np.broadcast_to(np.array(COLOUR, np.uint8), shown.shape)
        self.canvas.show(shown, top, self.codes)
        self.count()

    def count(self) -> None:
        """Say how much is known."""
        known = int((self.codes == 0).sum()) if self.codes is not None else 0
        size = self.codes.size if self.codes is not None else 0
        self.below.text = scale(None, f"{known:,} of {size:,} pixels known; blue: hidden")

    def start(self) -> None:
        """Draw samples; a run that is on its way stops."""
        point = self.session.point
        if point is None or self.codes is None:
            return
        if not (self.codes == 0).any():
            self.session.failed(
                InputError("the mask marks no pixel as known: reveal some of the image")
            )
            return
        mask = mask_of(self.codes, point.shape)
        run = Drawing(
            self.direction.value,
            int(self.steps.value or 5),
            int(self.times.value or 20),
            point.seed,
        )
        for curve in self.curves:
            curve.data = {"x": [], "y": []}
        self.go.label, self.stop.disabled = "Draw again", False
        self.told.text = sentence("Drawing.", "busy")
        self.session.say("")
        self.session.line("sample").start(lambda job: self._draw(job, point, mask, run))

    def _draw(self, job: Job, point: Point, mask: Tensor, run: Drawing) -> None:
        states = constrained_states(point.model, point.clean, mask, run)
        untold: list[State] = []
        told = -np.inf
        for state in states:
            job.check()
            untold.append(state)
            if time.monotonic() > told + PACE:
                job.tell(self._states, untold, state, run)
                untold, told = [], time.monotonic()
        job.tell(self._states, untold, state, run, True)

    def _states(self, new: list[State], state: State, run: Drawing, last: bool = False) -> None:
        """Add the residuals of new states, and show the newest one."""
        assert state.residual is not None
        x = [each.spent.evaluations for each in new]
        for i, curve in enumerate(self.curves):
            y = [max(float(each.residual[i]), 1e-6) for each in new if each.residual is not None]
            curve.stream({"x": x, "y": y})
        images = state.x0.detach().cpu().float().numpy()
        self.pictures.text = pictures(
            *(
                picture(image, f"Sample {i + 1}", f"residual (RMSE) {residual:.4f}")
                for i, (image, residual) in enumerate(
                    zip(images, state.residual.tolist(), strict=True)
                )
            )
        )
        spent = f"{state.spent.evaluations:g} passes for each sample"
        if last:
            self.stop.disabled = True
            self.told.text = sentence(f"Done: {spent}, {run.times} times, seed {run.seed}.")
        else:
            at = f"t = {number_of(state.t)}, Newton step {state.step} of {run.newton_steps}"
            self.told.text = sentence(f"Drawing: {at}, {spent}.", "busy")

    def halt(self) -> None:
        """Stop drawing."""
        if self.session.line("sample").busy:
            self.session.line("sample").stop()
            self.told.text = sentence("Stopped.")
        self.stop.disabled = True

    def empty(self) -> None:
        """Show that no samples are there."""
        for curve in self.curves:
            curve.data = {"x": [], "y": []}
        self.told.text = ""
        self.pictures.text = pictures(
            *(waiting(f"Sample {i + 1}", "press Draw samples") for i in range(COUNT))
        )


def residual_curve(sources: list[ColumnDataSource]) -> Any:
    """Return the figure of the residuals along sampling."""
    made = figure(
        name="sample-curve",
        tools="",
        toolbar_location=None,
        sizing_mode="stretch_width",
        height=300,
        y_axis_type="log",
        x_axis_label="network passes for each sample",
        y_axis_label="residual (RMSE)",
    )
    colours = (COLOURS["inexact"], COLOURS["exact"], COLOURS["gradient"])
    for i, (source, colour) in enumerate(zip(sources, colours, strict=True)):
        made.line(
            "x", "y", source=source, color=colour, line_width=2, legend_label=f"sample {i + 1}"
        )
    made.html_attributes = {"role": "img", "aria-label": "Residual of each sample along sampling"}
    made.yaxis.ticker = FixedTicker(ticks=[a * 10.0**k for k in range(-6, 2) for a in (1, 2, 5)])
    plain(made)
    made.legend.orientation = "horizontal"
    return made


def preset_codes(preset: str, shape: tuple[int, ...]) -> Array:
    """Return the codes of a preset's mask as it is painted on a picture of samples of a shape."""
    known = PRESETS[preset](shape).expand(shape).numpy()
    shown = known[0] if shape[0] == 3 else tile(known)
    return np.where(shown, 0, HIDDEN).astype(np.uint8)


def mask_of(codes: Array, shape: tuple[int, ...]) -> Tensor:
    """Return the mask, True where an entry is known, (C or 1, H, W), of what is painted."""
    known = codes == 0
    return torch.from_numpy(
        np.ascontiguousarray(known[None] if shape[0] == 3 else untile(known, shape))
    )


def number_of(t: float) -> str:
    """Return a time."""
    return f"{t:.3g}" if isinstance(t, float) else str(t)

"""The page's part on a wish: paint what D(x_t) should be, and see the ways towards it."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import Button, RadioButtonGroup, Slider, Spinner

from jacobian_lab.sampling.newton import Kind
from studies.explore.background import Job, stoppable
from studies.explore.canvas import Canvas
from studies.explore.explore_page_pixel import step_note
from studies.explore.point import RCOND, RECORDING, Array, Point, Towards, pseudo_inverse
from studies.explore.session import Session
from studies.explore.views import (
    NAMES,
    limit_of,
    number,
    picture,
    pictures,
    pixels,
    scale,
    sentence,
    table,
    waiting,
)
from studies.explore.widgets import html_block, on_value, styled
from studies.frame.figure_style import tile, tile_rows
from studies.frame.models import DENSE, operator_at

WHITE, BLACK = 1, 2
"""Codes of the paints."""
COLOURS = ((255, 255, 255, 255), (0, 0, 0, 255))
ORDER: tuple[Kind, ...] = ("inexact", "gradient", "exact", "krylov")


class WishPart:
    """A canvas with D, and `J e`, `J^T e`, `J^+ e` and GMRES for what is painted on it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.inverse: Array | None = None
        self.codes: Array | None = None
        self.canvas = Canvas("wish", "D(xₜ): paint the wish")
        self.paint = RadioButtonGroup(
            name="wish-paint", labels=["Wipe", "White", "Black"], active=WHITE
        )
        self.brush = Spinner(name="wish-brush", title="Brush, pixels", low=1, high=16, value=3)
        self.clear = Button(name="wish-clear", label="Clear")
        self.from_pixel = Button(name="wish-pixel", label="Invert the pixel above")
        self.steps = Slider(
            name="wish-steps", title="GMRES steps k", start=1, end=30, step=1, value=10
        )
        self.change = Slider(
            name="wish-change",
            title="Step: max |change| of xₜ",
            start=0.05,
            end=2.0,
            step=0.05,
            value=0.5,
        )
        self.canvas.on_paint(self.paint, self.brush, COLOURS, self.painted)
        self.clear.on_click(self.wipe)
        for slider in (self.steps, self.change):
            on_value(slider, "value", lambda new: self.ask())
        self.below, self.pictures = html_block("wish-scale"), html_block("wish-pictures")
        self.numbers, self.told = html_block("wish-numbers"), html_block("wish-told")
        self.roots: list[Any] = [*self.canvas.roots, self.below, self.pictures, self.numbers]
        self.roots += [self.told, *styled(self.paint, self.brush, self.clear, self.from_pixel)]
        self.roots += styled(self.steps, self.change)
        self.empty()

    def show(self, point: Point) -> None:
        """Show D at another point, with the paint that there is if it fits."""
        self.inverse = None
        shown = pixels(point.d.reshape(point.shape))
        self.below.text = scale(None, "drag to paint what these pixels should be")
        if self.codes is None or self.codes.shape != shown.shape[:2]:
            self.codes = np.zeros(shown.shape[:2], np.uint8)
        self.redraw(shown)
        self.session.line("dense").stop()
        if self.session.tab == "wish":
            self.opened()
        self.ask()

    def opened(self) -> None:
        """Begin with the dense J, which takes a while, when the part is looked at."""
        point = self.session.point
        if point is None or self.inverse is not None or self.session.line("dense").busy:
            return
        if not point.model.is_dense:
            self.told.text = sentence(
                f"J⁺ e needs the dense J, and n = {point.model.size:,} is too large for it here:"
                f" at most {DENSE:,}. GMRES needs products only."
            )
            return
        self.session.line("dense").start(lambda job: self._compute_dense(job, point))

    def _compute_dense(self, job: Job, point: Point) -> None:
        model, n = point.model, point.model.size

        def progress(done: int) -> None:
            said = f"Computing the dense J for J⁺ e: {done} of {n} columns."
            job.tell(self._say, sentence(said, "busy"))

        progress(0)
        with RECORDING:  # an operator of its own, so that no click waits for a product
            J = operator_at(model.denoiser, point.clean, point.number, point.t, point.seed)
        own, dense = stoppable(J, job, progress), np.empty((n, n))
        for start in range(0, n, CHUNK):
            units = np.eye(n, min(CHUNK, n - start), -start, dtype=own.dtype)
            dense[:, start : start + CHUNK] = own @ units
        job.tell(self._say, sentence("Decomposing the dense J for J⁺ e.", "busy"))
        job.tell(self._have_inverse, point, pseudo_inverse(dense))

    def _have_inverse(self, point: Point, inverse: Array) -> None:
        if point is self.session.point:
            self.inverse = inverse
            self.told.text = ""
            self.ask()

    def _say(self, text: str) -> None:
        self.told.text = text

    def painted(self, codes: Array) -> None:
        """Take the paint after a stroke."""
        self.codes = codes
        self.ask()

    def wipe(self) -> None:
        """Take all paint away."""
        if self.codes is not None:
            self.paint_codes(np.zeros_like(self.codes))

    def paint_pixel(self, row: int, column: int) -> None:
        """Paint one pixel so that it changes: a dark one white, a bright one black."""
        point = self.session.point
        if point is not None and self.codes is not None:
            codes = np.zeros_like(self.codes)
            bright = drawn(point.d.reshape(point.shape))[row, column] > 0
            codes[row, column] = BLACK if bright else WHITE
            self.paint_codes(codes)

    def paint_codes(self, codes: Array) -> None:
        """Show other paint in place of what there is."""
        self.codes = codes
        point = self.session.point
        if point is not None:
            self.redraw(pixels(point.d.reshape(point.shape)))
        self.ask()

    def redraw(self, shown: Array) -> None:
        """Draw D, and the paint on it."""
        assert self.codes is not None
        top = np.where((self.codes == BLACK)[:, :, None], COLOURS[1], COLOURS[0])
        self.canvas.show(shown, top.astype(np.uint8), self.codes)

    def ask(self) -> None:
        """Answer for the paint that there is."""
        point = self.session.point
        if point is None or self.codes is None or not self.codes.any():
            self.session.line("wish").stop()
            self.empty()
            return
        e = wish_of(point, self.codes)
        steps, change = int(self.steps.value), float(self.change.value)

        inverse = self.inverse

        def work(job: Job) -> None:
            self._tell(job, point, e, point.wish(e, steps, inverse), change)

        self.session.line("wish").start(work)

    def _tell(self, job: Job, point: Point, e: Array, found: list[Towards], change: float) -> None:
        moved = point.moved([way.delta for way in found], change)
        after = {way.kind: step for way, step in zip(found, moved, strict=True)}
        ways = {way.kind: way for way in found}
        parts = [wish_picture(point, e)]
        parts += [way_picture(point, kind, ways.get(kind)) for kind in ORDER]
        parts += [reached_picture(point, e)]
        for kind in ORDER:
            step = after.get(kind)
            title = f"D(xₜ + λ {NAMES[kind]})"
            parts += [
                waiting(title, "not yet" if kind not in ways else "no step", kind)
                if step is None
                else picture(
                    step.after.reshape(point.shape),
                    title,
                    step_note(step),
                    None,
                    kind,
                )
            ]
        job.tell(self._shown, pictures(*parts), way_table(found, point))

    def _shown(self, told: str, numbers: str) -> None:
        self.pictures.text, self.numbers.text = told, numbers
        self.session.say("")

    def empty(self) -> None:
        """Show that nothing is wished for."""
        self.pictures.text = pictures(
            waiting("Wish e", "paint on D(xₜ)"),
            *(waiting(NAMES[kind], "waits for a wish", kind) for kind in ORDER),
        )
        self.numbers.text = ""


CHUNK = 32
"""Columns of the dense J in one pass: a click waits for one at most where cores are few."""


def wish_of(point: Point, codes: Array) -> Array:
    """Return the wish e, (n,): from D to the paint where there is some, and 0 elsewhere."""
    shape = point.shape
    wanted = np.select([codes == WHITE, codes == BLACK], [1.0, -1.0], 0.0)
    d = point.d.reshape(shape)
    if shape[0] == 3:
        e = np.where(codes[None] > 0, wanted[None] - d, 0)
    else:
        e = untile(np.where(codes > 0, wanted - tile(d), 0), shape)
    return np.asarray(e.reshape(-1), dtype=point.J.dtype)


def untile(flat: Array, shape: tuple[int, ...]) -> Array:
    """Return (C, H, W) from channels that lie side by side, as `tile` lays them."""
    channels, height, width = shape
    rows = tile_rows(channels)
    return np.asarray(
        flat.reshape(rows, height, channels // rows, width).swapaxes(1, 2).reshape(shape)
    )


def drawn(image: Array) -> Array:
    """Return the numbers under the pixels of an image's picture."""
    return np.asarray(image.mean(0) if len(image) == 3 else tile(image))


def wish_picture(point: Point, e: Array) -> str:
    """Return the picture of the wish."""
    return picture(e.reshape(point.shape), "Wish e", "change wanted of D(xₜ)", limit_of(e))


def reached_picture(point: Point, e: Array) -> str:
    """Return the picture of D with the wish."""
    return picture((point.d + e).reshape(point.shape), "D + e", "what is wanted")


def way_picture(point: Point, kind: Kind, way: Towards | None) -> str:
    """Return the picture of a direction, or of its absence."""
    if way is None:
        return waiting(NAMES[kind], "waits for the dense J", kind)
    size = limit_of(way.delta)
    note = f"residual {number(way.residual, 3)},\n{number(way.best_residual, 3)} at the best λ"
    return picture(way.delta.reshape(point.shape), NAMES[kind], note, size, kind)


def way_table(found: list[Towards], point: Point) -> str:
    """Return the figures of the directions, and how J's products were computed."""
    ways = sorted(found, key=lambda way: ORDER.index(way.kind))
    head = ("Direction δ", "|e − J δ| / |e|", "best λ", "|e − λ J δ| / |e|", "cosine of J δ and e")
    rows = [
        (
            NAMES[way.kind],
            number(way.residual),
            number(way.best_step, 3),
            number(way.best_residual),
            number(way.cosine),
        )
        for way in ways
    ]
    note = (
        f"Products: {point.J.path}, relative error at most {point.J.product_error:.1e}. J⁺ takes"
        f" singular values below {RCOND:g} of the largest as zero."
    )
    return table(rows, head) + sentence(note)

"""The page's part on one pixel: its column and row of J, and a step along each."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bokeh.models import RadioButtonGroup, Slider, Spinner

from studies.explore.background import Job
from studies.explore.canvas import Canvas
from studies.explore.point import AtEntry, Moved, Point
from studies.explore.session import Session
from studies.explore.views import (
    NAMES,
    limit_of,
    number,
    picture,
    pictures,
    pixels,
    scale,
    table,
    waiting,
)
from studies.explore.widgets import html_block, on_value, styled
from studies.frame.figure_style import tile

COLOURS_OF_PIXELS = ("red", "green", "blue")


class PixelPart:
    """Column, row, difference, and a step along each; `canvas` is D, which takes the click."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.canvas = Canvas("denoised", "D(xₜ): click a pixel for its column and row of J")
        self.canvas.on_click(self.clicked)
        self.below = html_block("denoised-scale")
        self.pictures, self.numbers = html_block("pixel-pictures"), html_block("pixel-numbers")
        self.row = Spinner(name="pixel-row", title="Row", low=0, high=31, value=16, mode="int")
        self.column = Spinner(
            name="pixel-column", title="Column", low=0, high=31, value=16, mode="int"
        )
        self.channel = RadioButtonGroup(
            name="pixel-channel", labels=list(COLOURS_OF_PIXELS), active=0, visible=False
        )
        self.change = Slider(
            name="pixel-change",
            title="Step: max |change| of xₜ",
            start=0.05,
            end=2.0,
            step=0.05,
            value=0.5,
            show_value=True,
        )
        for widget in (self.row, self.column):
            on_value(widget, "value", lambda new: self.ask())
        on_value(self.channel, "active", lambda new: self.ask())
        on_value(self.change, "value", lambda new: self.ask())
        self._moves = False
        self.roots: list[Any] = [*self.canvas.roots, self.below, self.pictures, self.numbers]
        self.roots += styled(self.row, self.column, self.channel, self.change)

    def show(self, point: Point) -> None:
        """Show D at another point, and the same pixel."""
        d = point.d.reshape(point.shape)
        shown = pixels(d)
        self.canvas.show(shown)
        self.below.text = scale(None, "click a pixel, or set its row and column below")
        self.channel.visible = len(d) == 3
        height, width = shown.shape[:2]
        self._moves = True
        self.row.high, self.column.high = height - 1, width - 1
        self.row.value = min(self.row.value or 0, height - 1)
        self.column.value = min(self.column.value or 0, width - 1)
        self._moves = False
        self.ask()

    def clicked(self, row: int, column: int) -> None:
        """Take the pixel that was clicked; one answer, though row and column change."""
        self._moves = True
        self.row.value, self.column.value = row, column
        self._moves = False
        self.ask()

    def place(self) -> tuple[int, int]:
        """Return row and column of the pixel, inside the picture whatever was typed."""
        row, column = (
            int(min(max(field.value or 0, 0), field.high)) for field in (self.row, self.column)
        )
        return row, column

    def ask(self) -> None:
        """Answer for the pixel and the step that are chosen."""
        point = self.session.point
        if self._moves or point is None or self.row.value is None or self.column.value is None:
            return
        row, column = self.place()
        index = index_of(point.shape, row, column, self.channel.active or 0)
        self.canvas.frame(row, column)
        change, asked = float(self.change.value), time.perf_counter()

        def work(job: Job) -> None:
            entry = point.entry(index)
            moved = point.moved([entry.column, entry.row], change)
            told = answer(point, entry, moved, (row, column))
            job.tell(self._tell, told, point, entry, asked)

        self.session.line("pixel").start(work)

    def _tell(self, told: str, point: Point, entry: AtEntry, asked: float) -> None:
        took = 1000 * (time.perf_counter() - asked)
        self.pictures.text = told
        self.numbers.text = pixel_table(point, entry, took)
        self.session.say("")


def index_of(shape: tuple[int, ...], row: int, column: int, channel: int) -> int:
    """Return the entry of the flattened sample under a pixel of its picture."""
    entries = np.arange(np.prod(shape)).reshape(shape)
    shown = entries[channel] if shape[0] == 3 else tile(entries)
    return int(shown[row, column])


def place_of_entry(shape: tuple[int, ...], index: int) -> str:
    """Return where an entry is, in words."""
    channel, row, column = (int(i) for i in np.unravel_index(index, shape))
    where = f"row {row}, column {column}"
    if shape[0] == 1:
        return where
    return f"{where}, {COLOURS_OF_PIXELS[channel] if shape[0] == 3 else f'channel {channel}'}"


def answer(point: Point, entry: AtEntry, moved: list[Moved | None], marked: tuple[int, int]) -> str:
    """Return the five pictures of a pixel, the signed ones on one scale."""
    shape, limit = point.shape, limit_of(entry.column, entry.row)
    signed = [
        picture(values.reshape(shape), title, note, limit, kind, marked)
        for title, note, values, kind in (
            ("Column J e", "what pixel p of xₜ moves", entry.column, "inexact"),
            ("Row Jᵀ e", "what D at p depends on", entry.row, "gradient"),
            ("Column − row", "zero if J were symmetric", entry.difference, ""),
        )
    ]
    for step, kind, name in zip(moved, ("inexact", "gradient"), ("column", "row"), strict=True):
        title = f"D(xₜ + λ {NAMES[kind]})"
        signed.append(
            waiting(title, f"the {name} is zero: no step", kind)
            if step is None
            else picture(
                step.after.reshape(shape),
                title,
                step_note(step),
                None,
                kind,
                marked,
            )
        )
    return pictures(*signed)


def step_note(step: Moved) -> str:
    """Say how long a step is, and what it does."""
    return f"λ = {number(step.step, 3)}\nmax |change| = {number(step.largest, 3)}"


def pixel_table(point: Point, entry: AtEntry, took: float) -> str:
    """Return the numbers of a pixel, with the error of the products that they come from."""
    J = point.J
    size = {name: float(np.linalg.norm(v)) for name, v in vars(entry).items() if name != "index"}
    error = J.product_error
    return table(
        [
            ("Pixel p", place_of_entry(point.shape, entry.index)),
            ("J[p, p]", f"{number(entry.diagonal, 6)} ± {error * size['column']:.1g}"),
            ("|column|", f"{number(size['column'], 6)} ± {error * size['column']:.1g}"),
            ("|row|", f"{number(size['row'], 6)} ± {error * size['row']:.1g}"),
            ("Cosine of column and row", number(entry.cosine, 5)),
            ("|column − row| / |column + row|", number(entry.asymmetry, 5)),
            ("Products", f"{J.path}, relative error at most {error:.1e}"),
            ("Answered in", f"{took:.0f} ms"),
        ]
    )

"""The page's part on the spectrum: Ritz values as they converge, and a step along eigenvectors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, RadioButtonGroup, Slider
from bokeh.plotting import figure

from jacobian_lab import Eigenpairs
from studies.explore.background import Job, stoppable
from studies.explore.point import RECORDING, Array, Point
from studies.explore.session import Session
from studies.explore.spectra import (
    LEADING,
    STEPS,
    Ritz,
    leading_eigenpairs,
    real_vector,
    ritz_values,
)
from studies.explore.views import (
    limit_of,
    number,
    picture,
    pictures,
    sentence,
    table,
    waiting,
)
from studies.explore.widgets import html_block, on_value, styled
from studies.frame.figure_style import COLOURS
from studies.frame.models import operator_at

PACE = 0.03
"""Seconds between two Arnoldi steps at least, so that the eye can follow."""


class SpectrumPart:
    """The complex plane, the table of eigenvalues, and a slider along each eigenvector."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.found: Eigenpairs | None = None
        self.history: list[Ritz] = []
        self.ritz = ColumnDataSource(data={"re": [], "im": [], "size": []})
        self.certain = ColumnDataSource(data={"re": [], "im": []})
        self.plane = plane(self.ritz, self.certain)
        self.step = Slider(
            name="spectrum-step", title="Arnoldi step", start=1, end=STEPS, value=STEPS, step=1
        )
        self.which = RadioButtonGroup(
            name="spectrum-which", labels=[str(i + 1) for i in range(LEADING)], active=0
        )
        self.along = Slider(
            name="spectrum-along",
            title="Step s: max |change| of xₜ",
            start=-3.0,
            end=3.0,
            step=0.1,
            value=1.0,
        )
        self.table, self.pictures = html_block("spectrum-table"), html_block("spectrum-pictures")
        self.told = html_block("spectrum-told")
        on_value(self.step, "value", lambda new: self.look_back(int(new)))
        on_value(self.which, "active", lambda new: self.ask())
        on_value(self.along, "value", lambda new: self.ask())
        self.roots: list[Any] = [self.plane, self.table, self.pictures, self.told]
        self.roots += styled(self.step, self.which, self.along)
        self.empty()

    def show(self, point: Point) -> None:  # noqa: ARG002  as all parts
        """Forget the spectrum of the last point."""
        self.session.line("spectrum").stop()
        self.session.line("along").stop()
        self.empty()
        if self.session.tab == "spectrum":
            self.opened()

    def opened(self) -> None:
        """Begin when the part is looked at."""
        point = self.session.point
        line = self.session.line("spectrum")
        if point is not None and self.found is None and not line.busy:
            line.start(lambda job: self._compute(job, point))

    def empty(self) -> None:
        """Show that there is no spectrum yet."""
        self.found, self.history = None, []
        self.ritz.data = {"re": [], "im": [], "size": []}
        self.certain.data = {"re": [], "im": []}
        self.table.text, self.told.text = "", ""
        titles = ("Eigenvector v", "xₜ + s v", "D(xₜ + s v)", "Change of D")
        self.pictures.text = pictures(*(waiting(title, "not yet") for title in titles))

    def _compute(self, job: Job, point: Point) -> None:
        model = point.model
        with RECORDING:  # an operator of its own, so that no click waits for a product
            J = operator_at(model.denoiser, point.clean, point.number, point.t, point.seed)
        own = stoppable(J, job)
        for ritz in ritz_values(own):
            job.tell(self._step, ritz)
            time.sleep(PACE)
        job.tell(self._say, sentence("Making sure of the leading eigenpairs.", "busy"))
        found = leading_eigenpairs(own)
        job.tell(self._have, point, found)

    def _say(self, text: str) -> None:
        self.told.text = text

    def _step(self, ritz: Ritz) -> None:
        self.history.append(ritz)
        self._draw(ritz)
        said = f"Arnoldi step {ritz.step} of at most {STEPS}: {ritz.step} Ritz values."
        self.told.text = sentence(said, "busy")

    def _draw(self, ritz: Ritz) -> None:
        size = abs(ritz.values).max()
        close = ritz.residuals <= 1e-3 * size
        self.ritz.data = {
            "re": ritz.values.real,
            "im": ritz.values.imag,
            "size": np.where(close, 8, 5),
        }

    def look_back(self, step: int) -> None:
        """Show the Ritz values after an earlier step."""
        if 0 < step <= len(self.history):
            self._draw(self.history[step - 1])

    def _have(self, point: Point, found: Eigenpairs) -> None:
        if point is not self.session.point:
            return
        self.found = found
        self.certain.data = {"re": found.values.real, "im": found.values.imag}
        self.which.labels = [str(i + 1) for i in range(len(found.values))]
        self.which.active = min(self.which.active or 0, len(found.values) - 1)
        self.table.text = eigenvalue_table(found)
        self.told.text = sentence(
            f"{'Converged' if found.converged else 'Not converged'}:"
            f" {found.message.removeprefix('converged ')}"
            f" ({found.products} products; {found.path}, relative error at most"
            f" {found.product_error:.1e})."
        )
        self.ask()

    def ask(self) -> None:
        """Take a step along the eigenvector that is chosen."""
        point, found = self.session.point, self.found
        if point is None or found is None:
            return
        index, s = self.which.active or 0, float(self.along.value)
        v = real_vector(found, index)

        def work(job: Job) -> None:
            after = point.denoised([s * v])[0]
            job.tell(self._moved, along(point, v, s, after, found, index))

        self.session.line("along").start(work)

    def _moved(self, text: str) -> None:
        self.pictures.text = text


def plane(ritz: ColumnDataSource, certain: ColumnDataSource) -> Any:
    """Return the figure of the complex plane."""
    made = figure(
        name="spectrum-plane",
        tools="",
        toolbar_location=None,
        sizing_mode="stretch_width",
        height=340,
        x_axis_label="Re λ",
        y_axis_label="Im λ",
    )
    made.scatter(
        "re",
        "im",
        size="size",
        source=ritz,
        marker="circle",
        fill_color=COLOURS["identity"],
        fill_alpha=0.55,
        line_color=None,
        legend_label="Ritz values of J (small: residual above 0.1 %)",
    )
    made.scatter(
        "re",
        "im",
        size=13,
        source=certain,
        marker="circle",
        fill_color=None,
        line_color=COLOURS["exact"],
        line_width=2,
        legend_label="leading eigenvalues with stated errors",
    )
    made.html_attributes = {"role": "img", "aria-label": "Ritz values in the complex plane"}
    return plain(made)


def plain(made: Any) -> Any:
    """Give a figure the style of the project's figures."""
    made.grid.grid_line_color = "#eeeeee"
    made.outline_line_color = None
    made.axis.minor_tick_line_color = None
    made.axis.axis_label_text_font_style = "normal"
    made.axis.axis_line_color = made.axis.major_tick_line_color = "#888888"
    made.add_layout(made.legend[0], "above")  # where it hides no point
    made.legend.border_line_color = None
    made.legend.label_text_font_size = "12px"
    made.legend.padding = made.legend.margin = 4
    made.axis.axis_label_text_font_size = made.axis.major_label_text_font_size = "12px"
    return made


def eigenvalue_table(found: Eigenpairs) -> str:
    """Return the eigenvalues with their errors."""
    return table(
        [
            (str(i + 1), number(complex(value), 5), f"{error:.1e}", f"{residual:.1e}")
            for i, (value, error, residual) in enumerate(
                zip(found.values, found.errors, found.residuals, strict=True)
            )
        ],
        ("", "eigenvalue λ", "stated error", "|J v − λ v|"),
    )


def along(point: Point, v: Array, s: float, after: Array, found: Eigenpairs, index: int) -> str:
    """Return the pictures of a step `s v` of x_t."""
    shape, change = point.shape, after - point.d
    value = complex(found.values[index])
    turns = bool(value.imag)
    size = limit_of(change)
    return pictures(
        picture(
            v.reshape(shape),
            f"Eigenvector v{index + 1}",
            "real part, largest entry 1" if turns else "largest entry 1",
            1.0,
        ),
        picture(
            (point.x_t + s * v).reshape(shape) / scale_of(point),
            "xₜ + s v",
            f"s = {number(s, 2)}\n{noisy_note(point)}",
        ),
        picture(after.reshape(shape), "D(xₜ + s v)", f"max |change| = {number(size, 3)}"),
        picture(
            change.reshape(shape),
            "Change of D",
            f"to first order s {'Re(λ v)' if turns else 'λ v'},\nλ = {number(value, 3)}",
            size,
        ),
    )


def scale_of(point: Point) -> float:
    """Return by how much noisy pictures are divided, so that [-1, 1] holds most of their pixels."""
    return float(np.hypot(point.J.alpha_t, point.J.sigma_t))


def noisy_note(point: Point) -> str:
    """Say how a noisy picture is scaled."""
    factor = scale_of(point)
    return "gray from −1 to 1" if abs(factor - 1) < 1e-3 else f"shown divided by {factor:.2g}"

"""The explorer's page: what is looked at, and the parts that look.

Bokeh, whose server alone was kept of Gradio and Panel/Bokeh: an answer to a click took 0.14 s
against Gradio's 0.17 s, paint is laid on an image's own pixels in the browser, where Gradio sends
whole pictures of its editor, and six requests against 169, all to its own server, open the page.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bokeh.core.templates import get_env
from bokeh.document import Document
from bokeh.models import Button, Div, Select, Slider, Spinner, TextInput

from jacobian_lab import InputError
from studies.explore.background import Job
from studies.explore.choice import (
    DIGITS,
    MOST_BYTES,
    Look,
    Range,
    Upload,
    carried,
    opened,
    taken,
    times_of,
    too_large,
)
from studies.explore.explore_page_pixel import PixelPart
from studies.explore.explore_page_sample import SamplePart
from studies.explore.explore_page_spectrum import SpectrumPart, noisy_note, scale_of
from studies.explore.explore_page_wish import WishPart
from studies.explore.point import Point, flat
from studies.explore.session import Session
from studies.explore.views import number, picture, sentence, table, waiting
from studies.explore.widgets import HERE, html_block, on_value, styled

PICTURES = ("Clean x₀", "Noisy xₜ")
TABS = {
    "pixel": "One pixel",
    "wish": "A wish",
    "spectrum": "Eigenvectors",
    "sample": "Samples",
}
BUSY = (
    "The explorer serves {most} pages at once, and all are open: close one and load this page again"
    " after half a minute."
)


class Page:
    """One visit: the controls, the point that they choose, and the parts.

    Parameters
    ----------
    choice : Look
        What is looked at first.
    models : sequence of str
        The names that are offered.
    device : str
    deliver : callable
        Runs a function on the event loop.
    """

    def __init__(
        self, choice: Look, models: list[str], device: str, deliver: Callable[..., Any]
    ) -> None:
        self.choice = self.asked = choice  # what is shown, and what its controls say
        self.device = device
        self.alert = html_block("alert")
        self.session = Session(deliver, self._say)
        self.clean, self.noisy = html_block("clean"), html_block("noisy")
        self.facts = html_block("facts", sentence("Opening the model.", "busy"))
        self.titles(None)
        self._controls(models)
        self.pixel, self.wish = PixelPart(self.session), WishPart(self.session)
        self.spectrum, self.sample = SpectrumPart(self.session), SamplePart(self.session)
        self.wish.from_pixel.on_click(lambda: self.wish.paint_pixel(*self.pixel.place()))
        self.tab = Div(name="tab", visible=False)
        on_value(self.tab, "text", lambda new: self.turn(new))
        self.roots: list[Any] = [self.alert, self.clean, self.noisy, self.facts, self.tab]
        self.roots += [*self.controls, self.upload]
        for part in (self.pixel, self.wish, self.spectrum, self.sample):
            self.roots += part.roots

    def _controls(self, models: list[str]) -> None:
        choice = self.choice
        self.model = Select(name="model", title="Model", value=choice.model, options=models)
        self.digit = Spinner(
            name="digit",
            title=f"Held-out digit, 0 to {DIGITS - 1}",
            low=0,
            high=DIGITS - 1,
            value=choice.digit,
            mode="int",
        )
        self.time = Slider(
            name="time", title="Noise level t", start=0, end=999, step=1, value=choice.t
        )
        self.seed = Spinner(
            name="seed", title="Seed of the noise", low=0, value=choice.seed, mode="int"
        )
        self.back = Button(name="back", label="Back to the digit", visible=False)
        self.upload = TextInput(name="upload", visible=False)
        on_value(self.model, "value", lambda new: self.take_model(new))
        on_value(self.digit, "value", lambda new: self.take_digit(new))
        on_value(self.time, "value", lambda new: self.take(t=new))
        on_value(self.seed, "value", lambda new: self.take(seed=new))
        self.back.on_click(lambda: self.take(upload=None))
        on_value(self.upload, "value", lambda new: self.take_upload(new))
        self.controls = styled(self.model, self.digit, self.time, self.seed, self.back)

    def take(self, **changes: Any) -> None:
        """Look at something else."""
        if any(value is None for name, value in changes.items() if name != "upload"):
            return  # a number that is being typed
        choice = replace(self.asked, **changes)
        if choice != self.asked:  # else the page itself has set a control
            self.look(choice)

    def take_digit(self, digit: int | None) -> None:
        """Look at a digit, in place of an upload."""
        if digit != self.asked.digit:
            self.take(digit=digit, upload=None)

    def take_model(self, name: str) -> None:
        """Look through another model: the time moves with it where its schedule is another."""
        if name in self.model.options:  # a name may be a file to run: only those that are offered
            self.take(model=name)

    def take_upload(self, sent: str) -> None:
        """Look at a file: JSON with its name and its bytes in base64."""
        if not sent:
            return
        self.upload.value = ""  # the same file again is a change again
        try:
            file = json.loads(sent)
            name, size = str(file["name"]), int(file.get("size", 0))
            if size:  # the browser has not sent it
                raise InputError(too_large(name, size))
            upload = Upload(name, base64.b64decode(file["data"], validate=True))
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            self.session.failed(
                error if isinstance(error, InputError) else InputError("the upload broke off")
            )
            return
        self.take(upload=upload)

    def look(self, choice: Look) -> None:
        """Make the point that is chosen; the last one stays in the page until it is there."""
        shown, point = self.choice.model, self.session.point
        before = None if point is None else point.model
        self.asked = choice

        def work(job: Job) -> None:
            try:
                model, fitted = opened(choice.model, self.device), choice
                if before is None:
                    fitted = replace(choice, t=times_of(model).carried(choice.t))
                elif choice.model != shown:
                    fitted = replace(choice, t=carried(choice.t, before, model))
                point = taken(fitted, self.device)
            except Exception as error:
                job.tell(self._failed, error)
                return
            job.tell(self._show, fitted, times_of(model), point)

        self.session.line("point").start(work)

    def _failed(self, error: Exception) -> None:
        """Say what failed; the controls say again what is shown."""
        choice = self.asked = self.choice
        self.model.value, self.digit.value = choice.model, choice.digit
        self.time.value, self.seed.value = choice.t, choice.seed
        self.session.failed(error)

    def _show(self, choice: Look, times: Range, point: Point) -> None:
        self.choice = self.asked = choice
        self.session.point = point
        self.time.update(
            start=times.first, end=times.last, step=times.step, value=times.fit(choice.t)
        )
        self.time.title, self.time.format = f"Noise level {times.name}", times.form
        self.back.visible = choice.upload is not None
        self._say("")
        self.titles(point)
        for part in (self.pixel, self.wish, self.spectrum, self.sample):
            part.show(point)

    def titles(self, point: Point | None) -> None:
        """Fill in the pictures and figures of the point."""
        if point is None:
            self.clean.text, self.noisy.text = (waiting(t, "opening") for t in PICTURES)
            return
        what = "the clean digit" if self.choice.upload is None else self.choice.upload.name
        self.clean.text = picture(flat(point.clean).reshape(point.shape), PICTURES[0], what)
        noisy = point.x_t.reshape(point.shape) / scale_of(point)
        self.noisy.text = picture(noisy, PICTURES[1], noisy_note(point))
        self.facts.text = facts(point)

    def turn(self, tab: str) -> None:
        """Open another part."""
        if tab in TABS:
            self.session.tab = tab
            for name in ("wish", "spectrum"):
                if tab == name:
                    getattr(self, name).opened()

    def _say(self, text: str) -> None:
        self.alert.text = sentence(text, "error")
        if text and self.session.point is None:
            self.facts.text = ""
            self.clean.text, self.noisy.text = (waiting(t, "no image yet") for t in PICTURES)


def facts(point: Point) -> str:
    """Return what J is, and how far its products may be off."""
    J, shape = point.J, "×".join(map(str, point.shape))
    rows = [
        ("J", f"{J.shape[0]:,} × {J.shape[0]:,}"),
        ("Sample", f"{shape}, t = {number(point.t, 3)}"),
        ("αₜ, σₜ", f"{number(J.alpha_t)}, {number(J.sigma_t)}"),
        ("Products by", J.path),
        ("Their error", f"at most {J.product_error:.1e}, relative"),
    ]
    return table(rows)


class Pages:
    """Makes pages for visits, some at once, and lets go of what a visit that ended has held."""

    def __init__(self, choice: Look, models: list[str], device: str, most: int) -> None:
        self.choice, self.models, self.device, self.most = choice, models, device, most
        self.open: set[Page] = set()
        self.template = get_env().from_string((HERE / "page.html").read_text())

    def __call__(self, doc: Document) -> None:
        """Fill in the document of a visit."""
        doc.title = "jacobian-lab explore"
        if len(self.open) >= self.most:
            doc.add_root(html_block("alert", sentence(BUSY.format(most=self.most), "error")))
            return
        page = Page(self.choice, self.models, self.device, doc.add_next_tick_callback)
        self.open.add(page)
        for root in page.roots:
            doc.add_root(root)
        doc.template = self.template
        doc.template_variables.update(
            css=(HERE / "page.css").read_text(), tabs=TABS, most_bytes=MOST_BYTES
        )
        doc.on_session_destroyed(lambda context: self.ended(page))
        doc.add_next_tick_callback(lambda: page.look(page.choice))

    def close(self) -> None:
        """Let all pages go."""
        for page in [*self.open]:
            self.ended(page)

    def ended(self, page: Page) -> None:
        """Let a page go."""
        page.session.close()
        self.open.discard(page)

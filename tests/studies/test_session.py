"""One visit."""

import gc
import queue
import threading
import weakref
from contextlib import suppress

import pytest

import mnist
from jacobian_lab import InputError
from studies.explore.point import Point
from studies.explore.session import Session
from studies.frame.models import open_model


def test_a_slip_is_told_as_it_is_and_a_defect_with_where_its_details_are(capsys):
    told = []
    session = Session(lambda show: show(), told.append)
    session.failed(InputError("say this"))
    assert (told, capsys.readouterr().err) == (["say this"], "")
    session.failed(ValueError("hidden"))
    assert "This failed (ValueError: hidden)" in told[1]
    assert "Traceback" not in told[1]
    assert "hidden" in capsys.readouterr().err


def test_a_session_that_ends_stops_its_work_and_frees_its_operator(model):
    waiting = []
    session = Session(waiting.append, lambda text: None)
    session.point = Point(open_model(model, "cpu"), mnist.digits("held-out")[0][0], 500, 0)
    operator = weakref.ref(session.point.J)
    seen = []
    session.deliver(lambda: seen.append(1))
    session.close()
    for show in waiting:
        show()
    session.deliver(lambda: seen.append(2))
    gc.collect()
    assert operator() is None
    assert not seen
    assert session.line("pixel") is session.line("pixel")


def test_a_page_that_ends_frees_its_operator_and_runs_only_models_that_are_offered(model):
    pytest.importorskip("bokeh")
    from studies.explore.choice import Look
    from studies.explore.explore_page import Page, Pages

    shows = queue.Queue()
    pages = Pages(Look(model), [model], "cpu", 1)
    page = Page(pages.choice, [model], "cpu", shows.put)
    pages.open.add(page)
    page.look(page.choice)
    while "Answered in" not in page.pixel.numbers.text:
        shows.get(timeout=20)()
    assert page.alert.text == ""
    page.model.value = "evil.py:make"
    assert not page.session.line("point").busy
    page.digit.value = 5000
    shows.get(timeout=20)()
    assert "the digit must lie from 0 to 4999: got 5000" in page.alert.text
    assert page.digit.value == 0  # what is shown
    assert not page.session.line("point").busy
    operator = weakref.ref(page.session.point.J)
    pages.close()
    assert not pages.open
    while threading.active_count() > 1 and any(
        thread.name.endswith("(_work)") for thread in threading.enumerate()
    ):
        threading.Event().wait(0.01)
    gc.collect()
    assert operator() is None


def test_quick_changes_add_up_and_each_makes_one_point(model, flow, monkeypatch):
    pytest.importorskip("bokeh")
    from studies.explore import explore_page
    from studies.explore.choice import Look, Upload, taken

    shows, looks = queue.Queue(), []
    monkeypatch.setattr(
        explore_page, "taken", lambda look, device: looks.append(look) or taken(look, device)
    )
    page = explore_page.Page(Look(model), [model, flow], "cpu", shows.put)

    def point():
        while page.session.line("point").busy or not shows.empty():
            with suppress(queue.Empty):
                shows.get(timeout=0.02)()
        return page.session.point

    page.look(page.choice)
    point()
    page.digit.value = 3
    page.seed.value = 7
    found = point()
    assert (found.number, found.seed) == (3, 7)
    looks.clear()
    page.model.value = flow
    found = point()
    assert [look.model for look in looks] == [flow]
    assert page.time.value == found.t == pytest.approx(0.775, abs=0.01)  # as strong as t = 500
    page.take(upload=Upload("x.png", b"no image"))
    assert point() is found
    assert "x.png is not an image" in page.alert.text
    assert (page.asked, page.digit.value) == (page.choice, 3)
    page.session.close()


def test_a_visit_too_many_is_told_so_until_another_ends(model):
    document = pytest.importorskip("bokeh.document")
    from studies.explore.choice import Look
    from studies.explore.explore_page import Pages

    pages = Pages(Look(model), [model], "cpu", 1)
    first, second, third = (document.Document() for _ in range(3))
    pages(first)
    pages(second)
    (told,) = second.roots
    assert "The explorer serves 1 pages at once" in told.text
    for ended in [*first.session_destroyed_callbacks]:
        ended(None)
    pages(third)
    assert len(third.roots) == len(first.roots) > 40

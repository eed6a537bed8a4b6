"""Pictures that take clicks and paint."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("bokeh")

from bokeh.models import RadioButtonGroup, Spinner

from studies.explore.canvas import Canvas, packed


def test_a_click_is_told_as_row_and_column_from_the_top():
    canvas, seen = Canvas("c", "c"), []
    canvas.show(np.zeros((4, 6, 4), np.uint8))
    canvas.on_click(lambda *at: seen.append(at))
    (tap,) = canvas.figure._event_callbacks["tap"]
    for x, y in ((0.5, 3.5), (5.9, 0.1), (6.2, 1), (1, -0.1)):
        tap(SimpleNamespace(x=x, y=y))
    assert seen == [(0, 0), (3, 5)]


def test_paint_arrives_upright_and_what_is_no_paint_is_not_looked_at():
    canvas, seen = Canvas("c", "c"), []
    canvas.show(np.zeros((2, 3, 4), np.uint8))
    canvas.on_paint(RadioButtonGroup(), Spinner(value=1), [(0, 0, 0, 255)], seen.append)
    for sent in ("00", "00000x", "100000", ""):
        canvas.strokes.text = sent
    (codes,) = seen
    assert codes.tolist() == [[0, 0, 0], [1, 0, 0]]  # Bokeh counts rows from below


def test_paint_is_drawn_over_the_picture_and_stays_apart_from_it():
    canvas, gray = Canvas("c", "c"), np.full((2, 2, 4), 128, np.uint8)
    codes = np.array([[1, 0], [0, 0]], np.uint8)
    canvas.show(gray, np.full_like(gray, 255), codes)
    data = canvas.source.data
    assert np.array_equal(data["base"][0], packed(gray))
    assert (data["image"][0] != data["base"][0]).tolist() == [[False, False], [True, False]]
    assert canvas.strokes.text == ""


def test_colours_are_packed_as_bokeh_takes_them():
    assert packed(np.array([[[1, 2, 3, 255]]], np.uint8)).tolist() == [[0xFF030201]]

"""Pictures, tables and numbers as HTML."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from studies.explore.views import number, picture, pixels, scale, sentence, table
from studies.frame.figure_style import COLOURS


def test_gray_goes_from_black_at_minus_one_to_white_at_one():
    found = pixels(np.array([[[-1.0, 0.0, 1.0, 5.0]]]))
    assert found.tolist() == [[[g, g, g, 255] for g in (0, 128, 255, 255)]]


def test_signed_colours_are_red_above_zero_and_blue_below_on_a_symmetric_scale():
    ((low, zero, high),) = pixels(np.array([[[-2.0, 0.0, 2.0]]]), 2.0).astype(int)
    assert high[0] > high[2] + 50
    assert low[2] > low[0] + 50
    assert min(zero[:3]) > 240
    assert np.array_equal(pixels(np.zeros((1, 2, 2)), 0.0)[0, 0], zero)


def test_three_channels_are_colours_and_a_latent_s_lie_side_by_side():
    red = np.stack([np.ones((2, 2)), -np.ones((2, 2)), -np.ones((2, 2))])
    assert pixels(red)[0, 0].tolist() == [255, 0, 0, 255]
    assert pixels(red, 1.0).shape == (2, 2, 4)  # their mean
    assert pixels(np.zeros((4, 8, 8))).shape == (16, 16, 4)


def test_a_picture_holds_the_pixels_its_title_scale_and_frame():
    image = np.linspace(-1, 1, 12).reshape(1, 3, 4)
    html = picture(image, "A < B", "first\nsecond", 0.5, "inexact", (1, 2))
    data = re.search(r"base64,([^\"]+)", html)[1]
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(shown, pixels(image, 0.5))
    assert "A &lt; B: 4 by 3 pixels" in html
    assert COLOURS["inexact"] in html
    assert "first<br>second" in html
    assert "−0.5" in html
    assert "top:33.33%;left:50%" in html
    assert ">1</span>" in scale(None, "")


def test_what_others_wrote_is_escaped():
    assert "<script>" not in sentence("<script>", "error") + table([("<script>", "<script>")])
    assert 'role="alert"' in sentence("no", "error")
    assert sentence("") == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.25"), (-1.23456, "−1.235"), (1e-7, "1e−07"), (2 - 0.5j, "2 − 0.5i"), (3 + 0j, "3")],
)
def test_numbers_have_a_true_minus(value, text):
    assert number(value) == text

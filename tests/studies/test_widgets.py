"""The page's widgets."""

import pytest

pytest.importorskip("bokeh")

from bokeh.models import Slider

from studies.explore.widgets import html_block, on_value, styled


def test_widgets_have_the_page_s_style_and_tell_of_changes():
    slider, seen = Slider(start=0, end=1, value=0), []
    on_value(slider, "value", seen.append)
    assert styled(slider) == [slider]
    slider.value = 1
    assert seen == [1]
    assert slider.sizing_mode == html_block("a").sizing_mode == "stretch_width"
    assert "font" in slider.stylesheets[0]
    assert html_block("a").disable_math  # it would load MathJax for a dollar sign

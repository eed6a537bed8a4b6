import numpy as np
import pytest
from matplotlib.figure import Figure

from studies.frame.figure_style import show, spread, tile, tile_rows


@pytest.mark.parametrize(("channels", "rows"), [(1, 1), (2, 1), (4, 2), (6, 2), (7, 1), (16, 4)])
def test_channels_lie_in_rows_as_equal_as_may_be(channels, rows):
    assert tile_rows(channels) == rows
    image = np.arange(channels)[:, None, None] * np.ones((channels, 2, 3))
    tiled = tile(image)
    assert tiled.shape == (2 * rows, 3 * channels // rows)
    assert tiled[::2, ::3].ravel().tolist() == list(range(channels))  # in reading order


def test_gray_images_have_one_scale_and_signed_ones_are_centred():
    axes = Figure().subplots()
    gray = show(axes, np.full((1, 4, 4), 0.5), "title")
    assert gray.get_clim() == (-1, 1)
    assert axes.get_title() == "title"
    assert not len(axes.get_xticks())
    assert show(axes, np.ones((1, 4, 4)), limit=3.0).get_clim() == (-3, 3)


def test_colours_are_scaled_to_what_matplotlib_takes_and_averaged_if_signed():
    axes = Figure().subplots()
    colours = np.stack([np.full((4, 4), value) for value in (-2.0, 0.0, 1.0)])
    assert show(axes, colours).get_array()[0, 0].tolist() == [0.0, 0.5, 1.0]
    assert np.allclose(show(axes, colours, limit=1.0).get_array(), -1 / 3)


def test_latents_are_tiled_with_a_line_between_channels():
    axes = Figure().subplots()
    assert show(axes, np.zeros((4, 8, 8))).get_array().shape == (16, 16)
    assert len(axes.lines) == 2


def test_a_spread_is_the_mean_in_the_range_of_its_group():
    axes = Figure().subplots()
    groups = [np.array([1.0, 2.0, 6.0]), np.array([4.0])]
    spread(axes, np.array([0, 1]), groups, "name", "red")
    assert axes.lines[0].get_ydata().tolist() == [3.0, 4.0]
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1.0, 6.0)

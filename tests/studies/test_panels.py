"""Panels that several studies draw: each image in its place, and quantiles along sampling."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure

from studies.frame.panels import UNKNOWN, grid, plot_along, tiles

GRAY = np.linspace(-1, 1, 16).reshape(1, 4, 4)


def test_rows_of_images_have_their_labels_titles_and_gaps():
    figure = Figure()
    rows = [("truth", [GRAY, None]), ("sampled", [-GRAY, 0.5 * GRAY])]
    grid(figure, rows, ["digit 3", "digit 4"])
    first, gap, second, third = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["truth", "", "sampled", ""]
    assert [axes.get_title() for axes in figure.axes] == ["digit 3", "digit 4", "", ""]
    for axes, image in ((first, GRAY), (second, -GRAY), (third, 0.5 * GRAY)):
        np.testing.assert_array_equal(axes.images[0].get_array(), image[0])
    assert not gap.images
    assert not any(spine.get_visible() for spine in gap.spines.values())
    with pytest.raises(ValueError, match="zip"):
        grid(Figure(), [("truth", [GRAY, GRAY]), ("sampled", [GRAY])])


@pytest.mark.parametrize(("count", "places"), [(1, 4), (4, 4), (5, 8)])
def test_four_images_lie_in_a_row_and_empty_places_are_blank(count, places):
    figure = Figure()
    tiles(figure, [(f"image {k}", GRAY * k / 5) for k in range(count)])
    assert len(figure.axes) == places
    assert [axes.get_title() for axes in figure.axes[:count]] == [
        f"image {k}" for k in range(count)
    ]
    assert [axes.axison for axes in figure.axes] == [True] * count + [False] * (places - count)
    columns = {round(axes.get_position().x0, 6) for axes in figure.axes}
    assert len(columns) == 4


def test_unknown_pixels_have_a_colour_of_their_own():
    gray, colours = GRAY.copy(), np.repeat(GRAY, 3, 0)
    gray[0, 1, 2] = colours[:, 1, 2] = np.nan
    figure = Figure()
    tiles(figure, [("gray", gray), ("colours", colours)])
    of_gray, of_colours = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert np.ma.getmaskarray(of_gray)[1, 2]
    assert np.ma.getmaskarray(of_gray).sum() == 1
    assert figure.axes[0].get_facecolor() == to_rgba(UNKNOWN)
    np.testing.assert_allclose(of_colours[1, 2], to_rgb(UNKNOWN))
    np.testing.assert_allclose(of_colours[0, 0], 0)
    np.testing.assert_allclose(of_colours[3, 3], 1)


def test_values_along_sampling_are_their_median_and_their_range():
    values = 10.0 ** np.random.default_rng(0).uniform(-2, 0, (101, 3, 2))
    axes = Figure().subplots()
    plot_along(axes, values, np.array([900, 600, 300]), "red")
    (line,) = axes.lines
    # two states at each time, half a time apart
    np.testing.assert_allclose(line.get_xdata(), [0, 0.5, 1, 1.5, 2, 2.5])
    ordered = np.sort(values.reshape(101, 6), 0)
    np.testing.assert_allclose(line.get_ydata(), ordered[50])
    band = axes.collections[0].get_paths()[0].vertices
    for k, x in enumerate(line.get_xdata()):
        heights = band[np.isclose(band[:, 0], x), 1]
        np.testing.assert_allclose([heights.min(), heights.max()], ordered[[10, 90], k])
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "time $t$"

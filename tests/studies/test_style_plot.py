"""The figure of `style`: each noise in each style, and the traits of digits against the style's."""

import numpy as np
import pytest

from studies.sampling.style_plot import SHOWN, TRAITS, plot


def arrays(noises=5, styles=3, digits=True):
    """What `style` would have computed, at random."""
    rng = np.random.default_rng(0)
    shapes = {"style": (styles,), "free": (noises,), "styled": (noises, styles)}
    found = {name: rng.uniform(-1, 1, (*shape, 1, 8, 8)) for name, shape in shapes.items()}
    if digits:
        found["labels"] = np.arange(styles)
        for name, shape in shapes.items():
            found |= {f"{name}_{trait}": rng.uniform(1, 3, shape) for trait in TRAITS}
    return found | {
        "subject": np.array("model mnist"),
        "given": np.array([f"digit {i}" for i in range(styles)]),
        "time": np.array([900, 500, 100]),
        "residual": rng.uniform(0.1, 1, (noises * styles, 3, 2)),
        "before": rng.uniform(1, 2, (noises, styles)),
    }


def images(figure):
    return [axes.images[0].get_array() if axes.images else None for axes in figure.axes]


@pytest.mark.parametrize("noises", [2, 5])
def test_a_row_is_a_noise_drawn_freely_and_in_each_style(noises):
    data = arrays(noises)
    pictures, _ = plot(data).subfigs
    rows = min(noises, SHOWN)
    shown = images(pictures)
    assert len(shown) == (1 + rows) * 4
    assert shown[0] is None
    for i in range(3):
        np.testing.assert_array_equal(shown[1 + i], data["style"][i, 0])
    for k in range(rows):
        row = shown[4 * (1 + k) : 4 * (2 + k)]
        np.testing.assert_array_equal(row[0], data["free"][k, 0])
        np.testing.assert_array_equal(row[1:], data["styled"][k, :, 0])
    titles = [axes.get_title() for axes in pictures.axes[:4]]
    assert titles == ["free", "digit\n0", "digit\n1", "digit\n2"]


def test_traits_of_samples_lie_against_those_of_their_style():
    data = arrays()
    _, panels = plot(data).subfigs
    loss, *traits = panels.axes
    (dashed,) = [line for line in loss.lines if line.get_linestyle() == "--"]
    assert set(dashed.get_ydata()) == {np.median(data["before"])}
    assert [axes.get_title() for axes in traits] == [trait.capitalize() for trait in TRAITS]
    for axes, trait in zip(traits, TRAITS, strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        points = lines["in the style"]
        expected = [
            (data[f"style_{trait}"][i], data[f"styled_{trait}"][k, i])
            for k in range(5)
            for i in range(3)
        ]
        np.testing.assert_allclose(points.get_xydata(), expected)
        free = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        np.testing.assert_array_equal(free, data[f"free_{trait}"])
        assert "unconstrained, each noise" in lines


def test_other_images_have_no_traits():
    data = arrays(noises=3, styles=1, digits=False)
    pictures, panels = plot(data).subfigs
    assert len(panels.axes) == 1
    shown = images(pictures)
    assert [image is None for image in shown] == [False] * 4 + [True] + [False] * 3
    np.testing.assert_array_equal(shown[0], data["style"][0, 0])
    np.testing.assert_array_equal(shown[1:4], data["free"][:, 0])
    np.testing.assert_array_equal(shown[5:], data["styled"][:, 0, 0])

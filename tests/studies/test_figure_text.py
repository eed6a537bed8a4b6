"""What a figure says beside its curves: its model in words, and ticks where they are said to be."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from studies.frame.figure_text import plain_ticks, round_time_ticks, subject, write_subject


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "seed 5"),
        ({"model": "mnist"}, "model mnist, seed 5"),
        (
            {"model": "m", "prompt": "", "negative_prompt": "", "guidance": 1.0, "files": ()},
            "model m, seed 5",
        ),
        ({"model": "m", "prompt": "a seven"}, 'model m, prompt "a seven", seed 5'),
        (
            {"model": "m", "prompt": "a seven", "negative_prompt": "a one", "guidance": 2.5},
            'model m, prompt "a seven", negative prompt "a one", guidance 2.5, seed 5',
        ),
        ({"model": "m", "guidance": 0.0}, "model m, guidance 0, seed 5"),
        ({"digit": 3, "files": ()}, "digit 3, seed 5"),
        ({"digit": 3, "digits": 2, "seeds": 3}, "digits 3 and 4, seeds 5 to 7"),
        ({"digit": 0, "digits": 16, "seeds": 1}, "digits 0 to 15, seed 5"),
        ({"digit": 0, "digits": 16, "files": (Path("a/b.png"),)}, "b.png, seed 5"),
    ],
)
def test_the_model_is_told_with_what_it_was_told_and_the_digits_and_seeds(options, words):
    arrays = subject(SimpleNamespace(seed=5, **options))
    assert {key: str(value) for key, value in arrays.items()} == {"subject": words}
    figure = Figure(figsize=(20, 2))
    write_subject(figure, arrays, "half known", "2 digits")
    assert figure.get_suptitle() == f"{words}; half known; 2 digits"


def test_what_a_figure_is_of_is_no_wider_than_the_figure():
    figure = Figure(figsize=(3, 2))
    write_subject(figure, {"subject": np.array("model " + "word " * 20)}, "half known")
    figure.draw_without_rendering()
    extent = figure._suptitle.get_window_extent()
    assert figure.get_suptitle().count("\n") >= 2
    assert figure.bbox.width > extent.width > 0.6 * figure.bbox.width


@pytest.mark.parametrize(
    "times", [[999, 749, 499, 249], list(np.linspace(1.0, 0.01, 20)), [900, 500, 100]]
)
def test_ticks_at_round_times_lie_where_those_times_are(times):
    axes, times = Figure().subplots(), np.array(times)
    round_time_ticks(axes, times)
    labels = [float(label.get_text()) for label in axes.get_xticklabels()]
    assert len(labels) >= 2
    # sample k lies at k: times fall evenly
    expected = (times[0] - np.array(labels)) / (times[0] - times[-1]) * (len(times) - 1)
    np.testing.assert_allclose(axes.get_xticks(), expected, atol=1e-9)
    step = np.diff(labels)
    np.testing.assert_allclose(step, step[0])
    assert all(times[-1] <= label <= times[0] for label in labels)
    assert all(label == float(f"{label:.2g}") for label in labels)


def test_a_single_time_is_its_own_tick():
    axes = Figure().subplots()
    round_time_ticks(axes, np.array([500]))
    assert {label.get_text() for label in axes.get_xticklabels()} == {"500"}
    assert set(axes.get_xticks()) == {0.0}


def test_ticks_of_a_short_logarithmic_axis_are_plain_numbers():
    figure = Figure()
    short, long = figure.subplots(2)
    for axes, low in ((short, 0.02), (long, 1e-8)):
        axes.set(yscale="log", ylim=(low, 0.6))
        plain_ticks(axes.yaxis)
    figure.draw_without_rendering()
    found = [
        label.get_text()
        for label, at in zip(short.get_yticklabels(), short.get_yticks(), strict=True)
        if 0.019 < at < 0.6
    ]
    assert found == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    assert all("10^" in label.get_text() for label in long.get_yticklabels())
    assert not any(label.get_text() for label in short.get_yticklabels(minor=True))

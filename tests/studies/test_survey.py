import numpy as np
import pytest

from jacobian_lab import InputError
from studies.frame.study import Pieces
from studies.frame.survey import Survey, collect


def test_pieces_are_stacked_along_their_axes_and_computed_once(tmp_path):
    computed = []

    def compute(t, sample):
        computed.append((t, sample))
        return {"value": np.array(10.0 * t + sample), "pair": np.array([t, sample])}

    for _ in range(2):
        found = collect(Pieces(tmp_path), "a survey", compute, t=(3, 1), sample=range(2))
        assert found["value"].tolist() == [[30, 31], [10, 11]]
        assert found["pair"].shape == (2, 2, 2)
    assert computed == [(3, 0), (3, 1), (1, 0), (1, 1)]


def test_points_are_each_digit_with_each_seed_and_know_their_dense_truth(model):
    config = Survey(model=model, digit=5, digits=2, seeds=2, seed=7, times=(300,))
    points = config.points()
    assert points.samples == [(0, 7), (0, 8), (1, 7), (1, 8)]
    assert points.names[1:3] == ["digit 5, seed 8", "digit 6, seed 7"]
    J = points.operator(300, 2)
    again = points.operator(300, 2)
    v = np.ones(1024)
    assert (J @ v == again @ v).all()
    assert not np.allclose(J @ v, points.operator(300, 3) @ v)
    dense = points.dense(300)
    assert dense.dtype == np.float64
    assert np.allclose(points.operator(300, 0) @ v, dense @ v, atol=1e-4 * np.abs(dense @ v).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": 0}, "--digits must lie from 1 to 5000: got 0"),
        ({"digit": 4999, "digits": 2}, "--digits must lie from 1 to 1: got 2"),
        ({"seeds": 0}, "--seeds must be at least 1: got 0"),
        ({"times": (5, 5)}, "--times must each be given once"),
    ],
)
def test_bad_options_are_named(model, options, message):
    with pytest.raises(InputError, match=message):
        Survey(model=model, **options)


def test_a_time_that_the_schedule_lacks_is_refused_before_anything_is_computed(model):
    with pytest.raises(InputError, match="outside this schedule"):
        Survey(model=model, times=(300,)).points(1000)

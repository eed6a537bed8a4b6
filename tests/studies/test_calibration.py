"""Whether samples are fair: what the contest's statistics say of samples of which it is known."""

import numpy as np
import pytest

import mnist
from mnist.observer import load_observer
from mnist.problems import problem
from studies.contest.calibration import calibrate
from studies.frame.statistics import mean_interval, ratio_interval

FIRST, COUNT = 2000, 60


@pytest.fixture(scope="module", params=["box", "half, noise"])
def calibrated(request):
    """The statistics of true digits, of the means, of the next digits, and of a middle way."""
    truth = mnist.digits("held-out")[0][FIRST : FIRST + COUNT]
    wanted, _, _ = problem(request.param, FIRST, COUNT, 0)
    means = load_observer().look(request.param, wanted).images.clamp(-1, 1)
    runs = np.stack([truth, means, truth.roll(1, 0), (truth + means) / 2])
    return calibrate(request.param, runs.astype(np.float16), FIRST, 0, "cpu")


def test_the_true_digits_are_fair_samples(calibrated):
    assert np.abs(calibrated["class_excess"][0]).max() == 0
    assert calibrated["distance"].shape == (4, COUNT)
    np.testing.assert_allclose(calibrated["distance"][0], calibrated["true_distance"][0], rtol=1e-2)


def test_means_have_no_spread_and_half_the_way_to_them_has_a_quarter(calibrated):
    assert calibrated["distance"][1].max() < 1e-3
    np.testing.assert_allclose(
        calibrated["distance"][3], calibrated["true_distance"][3] / 4, rtol=2e-2, atol=1e-3
    )


def test_digits_of_other_observations_spread_and_are_of_an_unlikely_class(calibrated):
    _, low, _ = ratio_interval(calibrated["distance"][2], calibrated["true_distance"][2])
    assert low > 2
    assert mean_interval(calibrated["class_excess"][2])[2] < -0.5

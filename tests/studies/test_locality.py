"""Sensitivity fields and the Wiener filter, against closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz

from jacobian_lab import Denoiser, DiscreteSchedule
from mnist.unet import UNet
from studies.claims.locality import (
    PIXELS,
    best_bumps,
    bumps,
    cosines,
    jackknife,
    stationary,
    untrained,
    width_of,
    wiener,
)
from studies.claims.locality_table import advantage, farthest, findings
from studies.frame.findings import Standing
from studies.frame.statistics import mean_interval

MIDDLE = np.array([(8, 8), (7, 9)])


def test_the_wiener_filter_shrinks_each_eigenvector_of_the_covariance():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    S, a, s = root @ root.T, 0.8, 0.6
    values, vectors = np.linalg.eigh(S)
    expected = (vectors * (a * values / (a**2 * values + s**2))) @ vectors.T
    np.testing.assert_allclose(wiener(S, a, s), expected, atol=1e-12)


def test_a_stationary_covariance_stays_and_another_is_averaged_over_shifts():
    line = toeplitz(0.7 ** np.arange(5))
    S = np.kron(line, line)
    np.testing.assert_allclose(stationary(S, 5), S)
    trend = S + np.diag(np.arange(25.0))
    np.testing.assert_allclose(np.diag(stationary(trend, 5)), 13.0)  # 1 and the mean of 0 to 24
    np.testing.assert_allclose(stationary(trend, 5) - np.diag(np.full(25, 12.0)), S)


@pytest.mark.parametrize("width", [1.0, 2.0])
def test_a_bump_has_its_width_and_is_found_again(width):
    fields = bumps(width, 17, MIDDLE)
    # the square of a Gaussian of width w in the plane has the mean square distance w^2
    assert width_of(fields, 17, MIDDLE) == pytest.approx(width, rel=0.01)
    np.testing.assert_allclose(cosines(fields, 3 * fields), 1)
    wide = bumps(width)
    assert len(wide) == len(PIXELS)
    assert cosines(best_bumps(wide), wide).min() > 0.999


def test_the_jackknife_of_a_mean_is_the_samples_themselves():
    samples = np.random.default_rng(0).standard_normal((12, 3))
    np.testing.assert_allclose(jackknife(lambda mean: mean, samples), samples.T)
    found = jackknife(lambda mean: np.array([mean @ mean]), samples + 5)[0]
    mean, low, high = mean_interval(found)
    whole = (samples + 5).mean(0)
    assert mean == pytest.approx(whole @ whole)
    assert low < 75 < high  # the true means are 5


def test_an_untrained_network_has_other_weights_and_the_first_stays():
    network = UNet(channels=(32, 32, 32)).eval()
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    denoiser = Denoiser(network, DiscreteSchedule.linear(), "v", (1, 16, 16))
    bare, again = untrained(denoiser), untrained(denoiser)
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (bare(x, 500) - denoiser(x, 500)).norm() > 1e-3
    torch.testing.assert_close(bare(x, 500), again(x, 500))
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())


def test_a_claim_is_judged_at_the_noise_level_where_it_fares_worst():
    assert farthest(np.array([0.9, 0.6, 0.8]), 0.7, np.inf) == 1
    assert farthest(np.array([0.9, 1.0, 1.3]), 0.8, 1.25) == 2
    assert farthest(np.array([0.9, 0.95, 1.0]), 0.8, 1.25) == 0
    cosine = np.zeros((2, 2, 4, 3))
    cosine[:, :, 0] = 0.9, 0.8, 0.85
    cosine[0, 0, 2], cosine[1, 0, 1] = 0.95, 0.2
    arrays = {
        "time": np.array([100, 500]),
        "sample": np.array(["a", "b", "c"]),
        "cosine": cosine,
        "width": np.full((2, 2, 3), 2.0) + np.array([0, 0.01, 0.02]),
        "filter_width": np.full((2, 4), 2.0),
        "oracle_error": np.array([1e-13, 1e-12]),
    }
    np.testing.assert_allclose(advantage(arrays)[0], np.array([0.9, 0.8, 0.85]) - 0.95)
    shape, cause, width = findings(arrays)
    assert "t = 100" in cause.quantity
    assert [f.verdict for f in (shape, cause, width)] == [
        Standing.HOLDS,
        Standing.OPEN,  # the interval of three digits holds 0
        Standing.HOLDS,
    ]
    assert shape.passed
    assert not findings(arrays | {"oracle_error": np.array([1e-13, 1e-6])})[0].passed


@pytest.mark.slow
def test_j_of_a_gaussian_prior_is_the_wiener_filter_and_that_of_ten_is_near_it(run):
    data, rows, _ = run("locality", "--model", "oracle", "--digits", "3", "--times", "900")
    assert data["oracle_error"].max() < 1e-10
    assert data["cosine"][0, 0, 0].mean() > 0.9
    assert {row["field"] for row in rows} == {"row", "column", "filter"}

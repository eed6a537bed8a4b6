"""Shrinkage factors and pairs of denoisers, where they are known."""

import pickle
import threading

import numpy as np
import pytest
import torch

from jacobian_lab import DiscreteSchedule, RectifiedFlow, gaussian
from mnist.oracle import RIDGE
from studies.claims import shrinkage
from studies.claims.shrinkage import (
    BATCH,
    Shrinkage,
    linear_denoiser,
    oracle_misses_at,
    pair_agreement,
    shrinks,
    time_of_pairs,
)
from studies.claims.shrinkage_table import of_two_halves, psnr
from studies.claims.small_models import filling
from studies.frame.findings import Standing
from studies.frame.study import Pieces
from studies.frame.survey import collect


def test_factors_rank_and_homogeneity_of_a_gaussian_are_those_in_closed_form():
    found = oracle_misses_at(500)
    assert found["factor_error"] < 1e-12
    assert found["miss"] < 1e-11
    assert found["rank_error"] == 0
    assert found["same"] == pytest.approx(1)


def test_a_constant_part_of_the_denoiser_is_what_homogeneity_misses():
    n, t = 256, 500
    schedule = DiscreteSchedule.linear()
    mean, image = torch.full((n,), -1.0).double(), torch.zeros(1, 16, 16).double()
    prior = gaussian(mean, 0.5 * torch.eye(n).double(), schedule, (1, 16, 16))
    found = shrinks(prior.denoiser(), image, t, 0)
    assert found["miss_from_black"] < 1e-12  # the mean is black: from there D = J x
    assert found["miss"] > 0.1
    a, s = map(float, schedule(t))
    np.testing.assert_allclose(found["factor"], 0.5 * a**2 / (0.5 * a**2 + s**2))
    assert found["rank"] == np.ceil(0.99 * n)


def test_denoisers_of_orthogonal_covariances_share_no_eigenvector():
    variances = torch.full((2, 256), 1e-6).double()
    variances[0, :10], variances[1, 10:20] = 1.0, 1.0
    schedule, image = DiscreteSchedule.linear(), torch.zeros(1, 16, 16).double()
    first, second = (
        gaussian(torch.zeros(256).double(), torch.diag(v), schedule, (1, 16, 16)).denoiser()
        for v in variances
    )
    apart = pair_agreement(first, second, image, 300, 0)
    assert apart["overlap"] < 1e-12
    assert apart["difference"] > 0
    same = pair_agreement(first, first, image, 300, 0)
    assert same["difference"] == 0
    assert same["overlap"] == pytest.approx(1)


def test_the_linear_denoiser_has_the_digits_mean_and_covariance():
    digits = torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    oracle = linear_denoiser(digits).network.oracle
    torch.testing.assert_close(oracle.means[0], digits.double().flatten(1).mean(0))
    variance = float(digits.double().flatten(1).var(0).sum()) + 256 * RIDGE
    assert float(oracle.eigenvalues.sum()) == pytest.approx(variance)


def test_few_digits_fill_a_batch_and_psnr_is_of_the_peak():
    assert len(filling(torch.zeros(10, 1, 16, 16), BATCH)) == 70 >= BATCH
    assert len(filling(torch.zeros(100, 1, 16, 16), BATCH)) == 100
    assert psnr(np.array(4.0)) == 0
    assert psnr(np.array(0.04)) == pytest.approx(20)


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [
        (0.01, 0.2, Standing.HOLDS),
        (0.2, 0.2, Standing.FAILS),
        (0.01, 0.5, Standing.OPEN),  # worse than linear: nothing was learnt that could differ
    ],
)
def test_two_halves_are_one_where_they_differ_by_little_of_their_error(difference, error, verdict):
    spread = np.array([0.98, 1.0, 1.02])
    arrays = {
        "size": np.array([10, 1000]),
        "time": np.array([500]),
        "network_difference": np.stack([np.full((1, 3), 0.4), difference * spread[None]]),
        "network_error": np.full((2, 1, 3), error) * spread,
        "linear_error": np.full((2, 1, 3), 0.3),
        "oracle_same": np.ones(3),
    }
    found = of_two_halves(arrays, "3 digits")
    assert found.verdict is verdict
    assert found.passed
    assert found.value[0] == pytest.approx(difference / 2 / error)


def test_small_denoisers_have_the_noise_of_a_flow():
    assert Shrinkage(model="mnist-flow").times == (0.3, 0.5, 0.7)
    linear = DiscreteSchedule.linear()
    assert [time_of_pairs(linear, t) for t in range(1000)] == [*range(1000)]
    for sigma in (0.1, 0.3, 0.7):
        alpha_t, sigma_t = linear(time_of_pairs(RectifiedFlow(), sigma))
        assert float(sigma_t / alpha_t) == pytest.approx(sigma / (1 - sigma), rel=0.02)


class Elsewhere:
    """An engine that, as a cluster does, cannot travel itself."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, work, needs):
        for name, function in work.items():
            yield name, pickle.loads(pickle.dumps(function))()


def test_its_pieces_travel_to_other_processes(monkeypatch, tmp_path):
    monkeypatch.setattr(
        shrinkage,
        "collect",
        lambda pieces, title, compute, **axes: (
            collect(pieces, title, compute, **axes) if title == "halves" else {}
        ),
    )
    pieces = Pieces(tmp_path)
    pieces.engine = Elsewhere()
    config = Shrinkage(updates=1, tested=2, times=(500,), sizes=(10,))
    assert shrinkage.compute(config, pieces)["network_difference"].shape == (1, 1, 2)


@pytest.mark.slow
def test_the_command_trains_pairs_on_disjoint_digits(run):
    words = ("--updates", "10", "--tested", "2", "--times", "500", "--sizes", "40", "10")
    data, rows, _ = run("shrinkage", *words)
    assert data["size"].tolist() == [10, 40]
    assert (data["network_difference"] > 0).all()
    assert {row["denoiser"] for row in rows} == {"model", "network", "linear"}

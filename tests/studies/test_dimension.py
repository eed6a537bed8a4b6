"""FLIPD and the gap are right where the dimension is known, and the statistics are those of
scipy.
"""

import numpy as np
import pytest
import torch
from scipy.special import i0e, i1e
from scipy.stats import spearmanr

from jacobian_lab import DiscreteSchedule, JacobianOperator
from studies.claims.dimension import (
    LEVELS,
    SHARES,
    background,
    flipd,
    mixture_flipd,
    noise_energy,
    on_manifold,
    png_size,
    symmetric_spectrum,
)
from studies.claims.dimension_table import (
    bootstrap_in_groups,
    count_before_gap,
    findings,
    inside,
    ones_below,
    partial_correlation,
    stated,
)
from studies.claims.manifolds import torus
from studies.claims.ranks import rank_correlation
from studies.frame.findings import Standing

from conftest import make_mixture


def test_flipd_of_a_torus_is_its_closed_form():
    denoiser, x0 = torus(5, 3)
    for t in (50, 300):
        alpha_t, sigma_t = map(float, denoiser.schedule(t))
        kappa = (denoiser.network.radii.numpy() * alpha_t / sigma_t) ** 2
        found = flipd(denoiser, alpha_t * x0, t, 0)
        expected = (2 * kappa * (1 - i1e(kappa) / i0e(kappa))).sum()
        assert found["trace"] + found["misfit"] == pytest.approx(expected, abs=1e-3)


def test_flipd_is_the_derivative_of_the_log_density():
    oracle = make_mixture(torus(1, 0)[0].schedule)
    denoiser, t = oracle.denoiser(), 300
    alpha_t, sigma_t = map(float, oracle.schedule(t))
    y = oracle.sample(1, torch.Generator().manual_seed(0))
    J = JacobianOperator(denoiser, alpha_t * y, t).dense()
    value = alpha_t * np.trace(J) + noise_energy(denoiser, alpha_t * y, t)

    def log_density(log_tau):
        covariances = (oracle.eigenvectors * oracle.eigenvalues[:, None]) @ oracle.eigenvectors.mT
        blurred = covariances + torch.eye(12).double() * np.exp(2 * log_tau)
        normal = torch.distributions.MultivariateNormal(oracle.means, blurred)
        return float(torch.logsumexp(oracle.log_weights + normal.log_prob(y.flatten()), 0))

    at, h = np.log(sigma_t / alpha_t), 1e-4
    slope = (log_density(at + h) - log_density(at - h)) / (2 * h)
    assert value == pytest.approx(12 + slope, rel=1e-6)


@pytest.mark.parametrize("kind", ["subspace", "torus"])
def test_both_methods_are_right_on_a_manifold(kind):
    found = on_manifold(kind, 5, 7)
    arrays = {name: value[None, None, None] for name, value in found.items()}
    arrays["dimension"] = np.array([5])
    value, half = stated(arrays)
    assert half.item() < 0.05
    # two levels without the extrapolation are further off than what is stated says of it
    assert abs(found["known_trace"][1] + found["known_misfit"][1] - 5) > abs(value.item() - 5)
    assert {name: right.item() for name, right in inside(arrays).items()} == {
        "FLIPD": True,
        "gap": True,
    }
    arrays["dimension"] = np.array([6])
    assert not any(right.any() for right in inside(arrays).values())


def test_flipd_of_a_mixture_is_that_of_its_denoiser():
    oracle = make_mixture(DiscreteSchedule.linear())
    x0 = oracle.sample(2, torch.Generator().manual_seed(0))
    exact, alpha_t = mixture_flipd(oracle, x0, 300), float(oracle.schedule(300)[0])
    for x, value in zip(alpha_t * x0, exact, strict=True):
        total = np.trace(JacobianOperator(oracle.denoiser(), x, 300).dense())
        assert alpha_t * total + noise_energy(oracle.denoiser(), x, 300) == pytest.approx(
            float(value)
        )


def test_gap_background_and_png():
    assert count_before_gap(np.array([[1.0, 0.9, 0.1, 0.0], [1.5, 0.4, 0.1, 0.0]])).tolist() == [
        2,
        1,
    ]
    A = np.array([[1.0, 2.0], [0.0, 1.0]])
    alpha_t = float(torus(1, 0)[0].schedule(500)[0])
    values = symmetric_spectrum(torus(1, 0)[0], A, 500)
    np.testing.assert_allclose(values, [2 * alpha_t, 0], atol=1e-12)
    image = -torch.ones(1, 1, 32, 32)
    image[..., 10, 10] = 1
    assert int(background(image).sum()) == 1024 - 25
    noise = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert png_size(image[0]) < 120 < 1000 < png_size(noise)


def test_rank_correlation_and_its_interval():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (3, 40)), rng.integers(0, 9, (3, 40))
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    z = rng.standard_normal((5000, 3))
    x, y = z[:, 0] + z[:, 2], z[:, 1] + z[:, 2]  # alike by what they share alone
    r = np.corrcoef([x, y, z[:, 2]])
    assert r[0, 1] > 0.4
    assert abs(partial_correlation(r[0, 1], r[0, 2], r[1, 2])) < 0.05
    one = np.ones(1)
    assert partial_correlation(0.5 * one, -one, -0.5 * one) == 0
    x = rng.standard_normal(400)
    value, low, high = bootstrap_in_groups(lambda index: x[index].mean(-1), np.zeros(400))
    assert value == pytest.approx(x.mean())
    assert high - low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.1)


def test_ones_are_told_from_the_next_class():
    label = np.tile(np.arange(10), 10)
    trace = np.where(label == 1, -3.0, label)[None] * np.ones((2, 1))
    arrays = {"trace": trace, "misfit": np.zeros((2, 100)), "label": label}
    assert ones_below(arrays) == (3, 3, 3)
    assert ones_below(arrays, 1) == (3, 3, 3)
    arrays["trace"] = np.where(label == 1, 5.0, label)[None]
    assert ones_below(arrays)[0] == -5


@pytest.mark.slow
def test_dimension(run):
    words = ("--digits", "20", "--spectra", "2", "--seeds", "1", "--times", "200")
    data, rows, _ = run("dimension", *words)
    assert data["known_trace"].shape == (2, 4, 1, len(LEVELS))
    assert data["share_trace"].shape == (1, 2, len(SHARES))
    # the noiseless input and the noisy one by products, against the other ways to them
    np.testing.assert_allclose(data["share_trace"][0, :, 0], data["trace"][0, :2], rtol=1e-3)
    apart = np.abs(data["share_trace"][0, :, -1] - data["spectrum"].sum(-1)[0])
    assert (apart < 4 * data["share_trace_error"][0, :, -1]).all()
    assert {row["of"] for row in rows} >= {"torus, d = 10", "digits, t = 200"}
    found = findings(data)
    assert [finding.passed for finding in found] == [True] * 5
    assert found[-1].verdict is Standing.FAILS
    assert found[-1].value[0] == 1

"""The density of largest entropy: its moments, and families of which it is a member."""

import numpy as np
import pytest

from jacobian_lab import ConvergenceWarning, InputError, PosteriorMoments, maximum_entropy


def moments(mean, variance, skewness, kurtosis):
    s = np.sqrt(variance)
    return PosteriorMoments(mean, variance, skewness * s**3, kurtosis * s**4, (0.0,) * 4, 0)


def moments_of(density):
    y, p = density.points, density.values
    total, mean = np.trapezoid(p, y), np.trapezoid(y * p, y)
    central = [np.trapezoid((y - mean) ** k * p, y) for k in (2, 3, 4)]
    return np.array([total, mean, *central])


@pytest.mark.parametrize(
    ("skewness", "kurtosis"), [(0, 3), (0, 1.5), (0.5, 2.5), (-1.0, 4.0), (0, 4), (1.5, 6)]
)
def test_it_has_the_moments_that_were_given(skewness, kurtosis):
    given = moments(2.0, 0.25, skewness, kurtosis)
    found = maximum_entropy(given)
    assert found.converged
    expected = [1, 2, 0.25, given.third, given.fourth]
    np.testing.assert_allclose(moments_of(found), expected, atol=2e-6)


def test_two_moments_give_the_gaussian():
    found = maximum_entropy(moments(-1.0, 4.0, 0, 3))
    gauss = np.exp(-((found.points + 1) ** 2) / 8) / np.sqrt(8 * np.pi)
    np.testing.assert_allclose(found.values, gauss, atol=1e-9)
    assert found.modes == pytest.approx([-1.0], abs=0.01)
    assert found(100.0) == 0
    assert found.log(-1.0) == pytest.approx(-np.log(np.sqrt(8 * np.pi)))


def test_a_quartic_exponential_is_found_again_with_its_two_modes():
    y = np.linspace(-8, 8, 20001)
    p = np.exp(-(y**4) / 4 + 2 * y**2 + 0.1 * y)
    p /= np.trapezoid(p, y)
    mean = np.trapezoid(y * p, y)
    central = [float(np.trapezoid((y - mean) ** k * p, y)) for k in (2, 3, 4)]
    found = maximum_entropy(PosteriorMoments(float(mean), *central, (0.0,) * 4, 0))
    np.testing.assert_allclose(found(y), p, atol=2e-4 * p.max())
    at = np.sort(np.roots([-1, 0, 4, 0.1]).real)[[0, 2]]  # zeros of the exponent's derivative
    assert found.modes == pytest.approx(at, abs=0.01)


def test_impossible_moments_are_refused_and_heavy_tails_warned_of():
    with pytest.raises(InputError, match="no distribution has skewness 2"):
        maximum_entropy(moments(0.0, 1.0, 2.0, 4.9))
    with pytest.warns(ConvergenceWarning, match="misses its moments"):
        maximum_entropy(moments(0.0, 1.0, 0.0, 100.0))  # beyond the interval's 64


@pytest.mark.parametrize("kurtosis", [1.0001, 1.5, 10.0, 30.0])
def test_between_its_points_and_at_its_ends_it_is_the_density_that_has_the_moments(kurtosis):
    """Between narrow peaks' points it was a chord of the logarithm: its integral 0.92."""
    found = maximum_entropy(moments(0.0, 1.0, 0.0, kurtosis))
    y = np.linspace(-8, 8, 320001)
    p = found(y)
    assert np.trapezoid(p, y) == pytest.approx(1, abs=1e-7)
    assert np.trapezoid(y**2 * p, y) == pytest.approx(1, abs=2e-6)
    assert np.trapezoid(y**4 * p, y) == pytest.approx(kurtosis, abs=1e-5)


@pytest.mark.parametrize("kurtosis", [1.000003, 1.00001, 50.0])
def test_what_its_points_do_not_resolve_is_told(kurtosis):
    """Their sums had the moments; the density itself missed them by up to 0.3."""
    with pytest.warns(ConvergenceWarning, match="misses its moments"):
        found = maximum_entropy(moments(0.0, 1.0, 0.0, kurtosis))
    y = np.linspace(-8, 8, 640001)
    fourth = np.trapezoid(y**4 * found(y), y)
    assert abs(fourth - kurtosis) < 10 * found.residual
    assert not found.converged


def test_of_moments_that_did_not_settle_it_is_a_guess_and_says_so():
    unknown = PosteriorMoments(0.0, 1.0, 0.0, 3.0, (0.0, 0.0, 0.0, np.inf), 0)
    with pytest.warns(ConvergenceWarning, match="not known"):
        found = maximum_entropy(unknown)
    assert not found.converged

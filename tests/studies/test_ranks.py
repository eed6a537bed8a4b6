"""Ranks and their intervals, where both are known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from studies.claims.ranks import bootstrap_interval, rank_correlation


def test_the_rank_correlation_is_spearmans_with_ties_as_well():
    rng = np.random.default_rng(0)
    x = rng.integers(5, size=40)
    y = x + rng.integers(4, size=40)
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert rank_correlation([1, 2, 9], [3, 5, 6]) == pytest.approx(1)
    assert np.isnan(rank_correlation([1, 1], [3, 5]))


def test_the_interval_of_a_mean_is_that_of_theory():
    x = np.random.default_rng(1).standard_normal(400)
    value, low, high = bootstrap_interval(lambda k: float(x[k].mean()), 400)
    assert value == pytest.approx(x.mean())
    reach = 1.96 * x.std() / 20
    assert (low, high) == pytest.approx((value - reach, value + reach), abs=0.2 * reach)


def test_two_kinds_of_units_are_resampled_each():
    table = np.arange(12.0).reshape(3, 4)
    value, low, high = bootstrap_interval(lambda i, j: float(table[np.ix_(i, j)].mean()), 3, 4)
    assert value == 5.5
    assert table.min() <= low < value < high <= table.max()

"""Rank correlations and bootstrap intervals of studies of published claims."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.frame.statistics import Interval

DRAWS = 1000
"""Resamples of a bootstrap: the ends of its interval are known to about a tenth of its width."""
Indices = NDArray[np.int64]


def rank_correlation(values: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Return Spearman's rank correlation along the last axis, with mean ranks of ties; NaN where
    one is constant.
    """
    from scipy.stats import rankdata

    x, y = (
        ranks - ranks.mean(-1, keepdims=True)
        for ranks in (rankdata(given, axis=-1) for given in (values, others))
    )
    sizes = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.asarray((x * y).sum(-1) / np.where(sizes > 0, sizes, np.nan))


def bootstrap_interval(statistic: Callable[..., float], *counts: int, seed: int = 0) -> Interval:
    """Return a statistic and its 95 % interval by the percentile bootstrap, (value, low,
    high), from the resamples in which it is a number.

    Parameters
    ----------
    statistic : callable
        From indices of each kind of unit, such as models and digits, to a number.
    *counts : int
        How many units of each kind there are; all kinds are resampled.
    seed : int
    """
    rng = np.random.default_rng(seed)
    value = statistic(*(np.arange(count) for count in counts))
    drawn = [
        statistic(*(rng.integers(count, size=count) for count in counts)) for _ in range(DRAWS)
    ]
    known = [draw for draw in drawn if np.isfinite(draw)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (float("nan"), float("nan"))
    return value, float(low), float(high)

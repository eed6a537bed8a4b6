"""The table and the findings of `risk`: SURE, its variance, and Tweedie's identity."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from studies.frame.answer import Row
from studies.frame.findings import Finding, Standing, verdict_of
from studies.frame.statistics import Interval, mean_interval, ratio_interval
from studies.frame.study import Arrays

Array = NDArray[Any]
CERTAIN = 0.999
"""Confidence, for all levels together, with which a mean on the mixture differs from its value."""
UNBIASED = 0.05
"""Share of the risk below which a bias is none."""
ALIKE = 0.1
"""Share by which a variance may differ from the predicted one."""
RESAMPLES = 1000
"""Of the bootstrap over digits."""
STEIN = "Stein 1981; Soltanayev, Chun 2018, arXiv 1803.01314"


class RiskSamples(NamedTuple):
    """RiskSamples at all noise levels, each (levels, samples), and what follows from them."""

    loss: Array
    residual: Array
    noise: Array
    df: Array
    df_variance: Array
    squared: Array
    tau2: Array
    """(sigma / alpha)^2, (levels, 1)."""
    n: int

    @property
    def excess(self) -> Array:
        """SURE less the squared error."""
        return self.residual - self.n * self.tau2 + 2 * self.tau2 * self.df - self.loss

    @property
    def variance(self) -> Array:
        """What the second-order formula predicts of the square of `excess`, in the mean over the
        noise.
        """
        within = 2 * self.n - 8 * self.df + 4 * self.squared + 4 * self.df_variance
        return self.tau2**2 * within + 4 * self.tau2 * self.loss

    @property
    def controlled(self) -> Array:
        """`excess` without `tau^2 (|eps|^2 - n)`, which has the mean 0: a control variate."""
        return self.excess - self.tau2 * (self.noise - self.n)

    @property
    def controlled_variance(self) -> Array:
        """What the formula predicts of the square of `controlled`."""
        return 4 * self.tau2 * (self.loss + self.tau2 * (self.squared + self.df_variance))

    def at(self, index: Array) -> RiskSamples:
        """Return some of the samples."""
        return self._replace(**{name: getattr(self, name)[:, index] for name in PARTS})


PARTS = ("loss", "residual", "noise", "df", "df_variance", "squared")


def samples(arrays: Arrays, prefix: str = "") -> RiskSamples:
    """Return the samples of digits, or with the prefix "known_" of the mixture."""
    parts = {name: arrays[prefix + name] for name in PARTS}
    tau2, n = arrays[f"{prefix}ratio"][:, None] ** 2, int(arrays[f"{prefix}n"])
    return RiskSamples(**parts, tau2=tau2, n=n)


def bias(s: RiskSamples) -> Interval:
    """Return the mean of SURE less the error, relative to the risk: over all levels, each weighted
    by the inverse of its variance, and without the part of the mean 0.
    """
    risk, variance = (v.mean(1, keepdims=True) for v in (s.loss, s.controlled_variance))
    weight = risk / variance
    return mean_interval((weight * s.controlled).sum(0) / (weight * risk).sum())


def tweedie(s: RiskSamples) -> tuple[int, list[Interval]]:
    """Return at which level tau^2 df over the squared error, a ratio of means, is farthest from 1,
    and the ratios at all levels, with intervals that hold 95 % for all levels together.
    """
    found = [
        ratio_interval(tau2 * df, loss, together=len(s.loss))
        for df, tau2, loss in zip(s.df, s.tau2, s.loss, strict=True)
    ]
    return int(np.argmax([abs(value - 1) for value, *_ in found])), found


def spread_ratio(s: RiskSamples) -> Interval:
    """Return the mean square of SURE less the error over the predicted variance: the mean over the
    levels.
    """
    return mean_interval((s.excess**2 / s.variance.mean(1, keepdims=True)).mean(0))


def relative_deviation(s: RiskSamples) -> Array:
    """Return the root mean square of SURE less the error over the risk, (levels,)."""
    return np.asarray(np.sqrt((s.excess**2).mean(1)) / s.loss.mean(1))


def crossing(s: RiskSamples, times: Array) -> tuple[float, float]:
    """Return the time at which SURE of one image is off by the risk, and df there; NaN if there is
    none, interpolated between the times.
    """
    order = np.argsort(times)
    height, df = np.log(relative_deviation(s))[order], s.df.mean(1)[order]
    above = np.flatnonzero((height[1:] > 0) & (height[:-1] <= 0))
    if not len(above):
        return float("nan"), float("nan")
    k = above[0]
    share = -height[k] / (height[k + 1] - height[k])
    at = times[order]
    return float(at[k] + share * (at[k + 1] - at[k])), float(df[k] + share * (df[k + 1] - df[k]))


def drowned(s: RiskSamples, times: Array) -> tuple[Interval, Interval]:
    """Return the time and df of the crossing with 95 % intervals by the bootstrap over digits."""
    rng, count = np.random.default_rng(0), s.loss.shape[1]
    indices = rng.integers(count, size=(RESAMPLES, count))
    drawn = np.array([crossing(s.at(index), times) for index in indices])
    value = crossing(s, times)
    if not np.isfinite(value).all() or not np.isfinite(drawn).all():
        nan = float("nan")
        return (value[0], nan, nan), (value[1], nan, nan)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    time, df = ((value[k], float(low[k]), float(high[k])) for k in range(2))
    return time, df


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level of the mixture and of the digits."""
    return [
        *_rows("mixture", arrays["level"], samples(arrays, "known_")),
        *_rows("digits", arrays["time"], samples(arrays)),
    ]


def _rows(of: str, times: Array, s: RiskSamples) -> list[Row]:
    rows: list[Row] = []
    for k, t in enumerate(times.tolist()):
        loss, excess, risk = s.loss[k], s.excess[k], float(s.loss[k].mean())
        tau2, variance = float(s.tau2[k, 0]), float(s.variance[k].mean())
        row: Row = {"of": of, "time": t, "sigma_over_alpha": tau2**0.5}
        numbers = {
            "degrees_of_freedom": mean_interval(s.df[k]),
            "risk": mean_interval(loss),
            "SURE": mean_interval(loss + excess),
            "bias_of_SURE_over_risk": ratio_interval(excess, loss),
            "bias_less_its_part_of_mean_0": ratio_interval(s.controlled[k], loss),
            "variance_over_predicted": ratio_interval(excess**2, s.variance[k]),
            "Tweedie_over_risk": ratio_interval(tau2 * s.df[k], loss),
        }
        for name, value in numbers.items():
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), value, strict=True))
        gap = risk - tau2 * float(s.df[k].mean())
        row |= {
            "cost_of_the_gap_over_risk": gap**2 / float(s.residual[k].mean()) / risk,
            "deviation_of_SURE_over_risk": float(relative_deviation(s)[k]),
            "predicted": variance**0.5 / risk,
            "predicted_by_sqrt_2n_over_df": (2 * s.n) ** 0.5 / float(s.df[k].mean()),
            "share_of_2n_tau4_in_variance": 2 * s.n * tau2**2 / variance,
            "share_of_random_signs_in_variance": float(
                4 * tau2**2 * s.df_variance[k].mean() / variance
            ),
        }
        rows.append(row)
    return rows


def on_known(arrays: Arrays) -> dict[str, tuple[str, bool]]:
    """Return the assertions on the mixture, in words, and whether they are true."""
    s, exact = samples(arrays, "known_"), arrays["known_covariance"]
    count, levels = s.loss.shape[1], len(s.loss)
    most = float(norm.isf((1 - CERTAIN) / (2 * levels)))
    found = {}
    pairs = {"sure": (s.excess + s.loss - exact, "SURE"), "tweedie": (s.tau2 * s.df - exact, "df")}
    for name, (apart, what) in pairs.items():
        errors = apart.std(1, ddof=1) / np.sqrt(count)
        z = float(np.abs(apart.mean(1) / errors).max())
        equal = "mean SURE is mean tr Cov" if what == "SURE" else "mean tau^2 df is mean tr Cov"
        found[name] = (
            f"three Gaussians, {count} draws: {equal} at all {levels} levels, within {z:.1f}"
            f" standard errors (at most {most:.1f})",
            z <= most,
        )
    ratios = (s.excess**2).mean(1) / s.variance.mean(1)
    found["variance"] = (
        f"three Gaussians: variance over the predicted one {ratios.min():.2f} to"
        f" {ratios.max():.2f} at {levels} levels",
        bool((np.abs(ratios - 1) <= ALIKE).all()),
    )
    return found


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of the bias of SURE, of Tweedie's identity, of the variance, and of
    where it drowns SURE.
    """
    s, oracle = samples(arrays), on_known(arrays)
    off, spread = bias(s), spread_ratio(s)
    (worst, ratios), every = tweedie(s), (1 - UNBIASED, 1 + UNBIASED)
    verdicts = [verdict_of(ratio, *every) for ratio in ratios]
    far = arrays["time"][worst]
    over = f"over {s.loss.shape[1]} digits and {len(s.loss)} levels"
    return [
        Finding(
            f"SURE of a deep denoiser is unbiased, to {UNBIASED:.0%} of the risk",
            STEIN,
            *oracle["sure"],
            f"mean of SURE less the error over the risk, by inverse variance, {over}",
            off,
            verdict_of(off, -UNBIASED, UNBIASED),
        ),
        Finding(
            f"tau^2 alpha tr J is the risk E |D - x0|^2 at every noise level, to {UNBIASED:.0%}",
            "Tweedie's second order; Efron 2011",
            *oracle["tweedie"],
            f"tau^2 alpha tr J over the risk at t = {far:g}, the farthest from 1, {over}",
            ratios[worst],
            next((v for v in (Standing.FAILS, Standing.OPEN) if v in verdicts), Standing.HOLDS),
        ),
        Finding(
            f"The second-order formula gives the variance of SURE, to {ALIKE:.0%}",
            "Bellec, Zhang 2021, arXiv 1811.04121",
            *oracle["variance"],
            f"measured variance over the predicted one, mean {over}",
            spread,
            verdict_of(spread, 1 - ALIKE, 1 + ALIKE),
        ),
        *_of_drowning(s, arrays["time"], oracle["variance"]),
    ]


def _of_drowning(s: RiskSamples, times: Array, oracle: tuple[str, bool]) -> list[Finding]:
    """Return whether SURE of one image is off by the risk where df is sqrt(2 n); nothing where the
    times do not reach from one side of it to the other.
    """
    (time, *_), df = drowned(s, times)
    if not np.isfinite(df).all():
        return []
    limit = (2 * s.n) ** 0.5
    share: Interval = (df[0] / limit, df[1] / limit, df[2] / limit)
    found = Finding(
        f"SURE of one image drowns where alpha tr J falls below sqrt(2 n) = {limit:.0f}",
        "Stein 1981, by the variance of |eps|^2",
        *oracle,
        f"alpha tr J over sqrt(2 n) where SURE is off by the risk, at t = {time:.3g}",
        share,
        verdict_of(share, 0.8, 1.25),
    )
    return [found]

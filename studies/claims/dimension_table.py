"""The table and the findings of `dimension`: intervals on manifolds, and readings on digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.claims.ranks import rank_correlation
from studies.frame.answer import Row
from studies.frame.findings import Finding, Standing, verdict_of
from studies.frame.statistics import Interval, mean_interval, rate_interval
from studies.frame.study import Arrays

RESAMPLES = 20_000
"""Of the bootstrap over digits."""
CERTAIN = 0.9
"""Share of the manifolds on which a dimension has to lie in its interval, 18 of 20."""
SHARP = 0.5
"""Half-width below which an interval tells one integer from the next."""
RANKS = 0.5
"""Rank correlation from which FLIPD ranks digits as PNG does."""
NEAR = 5.0
"""Dimensions by which two readings may differ in the mean and agree."""
FLIPD = "Kamkari et al. 2024, arXiv 2406.03537"
GAP = "Stanczuk et al. 2024, arXiv 2212.12611"


def stated(arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return FLIPD on manifolds, extrapolated to no noise from two levels, and the half-width of
    its interval, (kind, dimension, drawn).
    """
    first, second = np.moveaxis(arrays["known_trace"] + arrays["known_misfit"], -1, 0)
    low, high = np.moveaxis(arrays["known_ratio"] ** 2, -1, 0)
    correction = (second - first) * low / (high - low)
    return first - correction, np.abs(correction) + arrays["known_trace_reach"].max(-1)


def count_before_gap(values: NDArray[Any]) -> NDArray[Any]:
    """Return how many eigenvalues, falling along the last axis, lie before the largest gap."""
    return np.asarray(np.argmin(np.diff(values), axis=-1) + 1)


def inside(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return, by method, whether the dimension of each manifold lies in the stated interval."""
    true = arrays["dimension"][:, None]
    value, half = stated(arrays)
    return {
        "FLIPD": np.abs(value - true) <= half,
        "gap": count_before_gap(arrays["leading"]) == true,
    }


def readings(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return what is read as a dimension of the digits whose spectrum is known, (time, digit)."""
    return {
        "FLIPD": _flipd(arrays)[:, : arrays["spectrum"].shape[1]],
        "before the largest gap": count_before_gap(arrays["spectrum"]),
        "above 1/2": (arrays["spectrum"] > 0.5).sum(-1),
        "alpha tr J, with noise": arrays["spectrum"].sum(-1),
    }


def bootstrap_in_groups(
    statistic: Callable[[NDArray[Any]], NDArray[Any]], groups: NDArray[Any]
) -> Interval:
    """Return a statistic of indices, (..., N) -> (...), and its 95 % interval by the bootstrap
    within groups.
    """
    rng, where = np.random.default_rng(0), np.arange(len(groups))
    members = [where[groups == group] for group in np.unique(groups)]
    drawn = [rng.choice(m, (RESAMPLES, len(m))) for m in members]
    low, high = np.quantile(statistic(np.concatenate(drawn, axis=1)), [0.025, 0.975])
    return float(statistic(where)), float(low), float(high)


def correlation(arrays: Arrays, time: int | None = None) -> Interval:
    """Return the rank correlation of FLIPD with the size as PNG, at a time or its mean over the
    times.
    """
    values = _flipd(arrays)
    return _correlation(values if time is None else values[[time]], arrays["png"])


def _correlation(values: NDArray[Any], other: NDArray[Any], given: Any = None) -> Interval:
    """Return the mean over rows of the rank correlation with `other`, of what is left of both
    after `given` if there is one.
    """

    def statistic(index: NDArray[Any]) -> NDArray[Any]:
        y = other[index]
        found = np.array([rank_correlation(v[index], y) for v in values])
        if given is not None:
            z = given[index]
            by = np.array([rank_correlation(v[index], z) for v in values])
            found = partial_correlation(found, by, rank_correlation(y, z))
        return np.asarray(found.mean(0))

    return bootstrap_in_groups(statistic, np.zeros(len(other)))


def partial_correlation(xy: NDArray[Any], xz: NDArray[Any], yz: NDArray[Any]) -> NDArray[Any]:
    """Return the correlation of x and y for equal z, from those of the pairs; 0 where z tells all
    of x or y, as it may of few resampled digits.
    """
    left = np.sqrt(np.clip(1 - xz**2, 0, None) * np.clip(1 - yz**2, 0, None))
    return np.asarray(np.where(left > 1e-9, (xy - xz * yz) / np.maximum(left, 1e-9), 0.0))


def ones_below(arrays: Arrays, time: int | None = None) -> Interval:
    """Return how far the mean FLIPD of ones lies below that of the class next to it, at a time or
    in the mean over the times.
    """
    values, label = _flipd(arrays), arrays["label"]
    value = values.mean(0) if time is None else values[time]

    def statistic(index: NDArray[Any]) -> NDArray[Any]:
        means = np.stack(
            [
                np.where(label[index] == c, value[index], 0).sum(-1) / (label[index] == c).sum(-1)
                for c in range(10)
            ]
        )
        return np.asarray(np.delete(means, 1, axis=0).min(0) - means[1])

    return bootstrap_in_groups(statistic, label)


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each quantity of a kind of manifold and dimension, or of digits at a
    time.
    """
    rows = _manifolds(arrays)
    for k, t in enumerate(arrays["time"].tolist()):
        rows += [_row(f"digits, t = {t:g}", *line) for line in _digits(arrays, k)]
    return rows


def _manifolds(arrays: Arrays) -> list[Row]:
    value, half = stated(arrays)
    hits, rows = inside(arrays), list[Row]()
    for k, kind in enumerate(arrays["kind"].tolist()):
        for m, dimension in enumerate(arrays["dimension"].tolist()):
            of = f"{kind}, d = {dimension}"
            rows.append(_row(of, "FLIPD", mean_interval(value[k, m])))
            rows.append(_row(of, "half-width, largest", half[k, m].max()))
            for method, right in hits.items():
                rate = rate_interval(int(right[k, m].sum()), right.shape[-1])
                rows.append(_row(of, f"{method}: share in the stated interval", rate))
    return rows


def _digits(arrays: Arrays, k: int) -> list[tuple[str, Interval | float, bool]]:
    """Return quantity, value and whether it belongs to the answer, at one time."""
    flipd, label = _flipd(arrays)[k], arrays["label"]
    negative, mixture = int((flipd < 0).sum()), arrays["mixture_flipd"][[k]]
    png, black = arrays["png"], arrays["background"]
    found: list[tuple[str, Interval | float, bool]] = [
        ("sigma / alpha", float(arrays["ratio"][k]), True),
        ("FLIPD", mean_interval(flipd), True),
        ("FLIPD, standard error of the trace, mean", arrays["trace_error"][k].mean(), False),
        ("FLIPD, share below 0", rate_interval(negative, len(flipd)), True),
        ("FLIPD of ten Gaussians", mean_interval(arrays["mixture_flipd"][k]), True),
        ("rank correlation of FLIPD and PNG", correlation(arrays, k), True),
        ("... of ten Gaussians' FLIPD and PNG", _correlation(mixture, png), True),
        ("... of FLIPD and background pixels", _correlation(flipd[None], black), True),
        ("... of FLIPD and PNG at equal background", _correlation(flipd[None], png, black), True),
        ("ones below the next class", ones_below(arrays, k), True),
    ]
    for name, values in list(readings(arrays).items())[1:]:
        found.append((name, mean_interval(values[k]), True))
    total, missed = arrays["share_trace"][k], arrays["share_misfit"][k]
    for s, share in enumerate(arrays["share"].tolist()):
        found.append((f"alpha tr J, noise share {share:g}", mean_interval(total[:, s]), True))
    found.append(("FLIPD with the noise", mean_interval((total + missed)[:, -1]), True))
    places = {
        "background": ("background_trace", "background"),
        "background, noise in the other half": ("far_trace", "far"),
        "background, with noise": ("background_noisy", "background"),
    }
    for name, (part, pixels) in places.items():
        count = arrays[pixels][: arrays[part].shape[1]]
        found.append((f"alpha J_ii, {name}", mean_interval(arrays[part][k] / count), True))
    for c in range(10):
        found.append((f"FLIPD, class {c}", mean_interval(flipd[label == c]), False))
    return found


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of FLIPD as a measure of complexity, of ones, of the gap, and of the
    sign of FLIPD.
    """
    right = inside(arrays)
    oracle, passed = _known(arrays, "FLIPD", right["FLIPD"])
    ranks, ones = correlation(arrays), ones_below(arrays)
    beyond = _correlation(_flipd(arrays), arrays["png"], arrays["background"])
    over = f"mean of t = {', '.join(f'{t:g}' for t in arrays['time'].tolist())}"
    return [
        Finding(
            f"FLIPD ranks images as their size as PNG does, rank correlation above {RANKS:g}",
            FLIPD,
            oracle,
            passed,
            f"Spearman's rank correlation over {arrays['png'].size} digits, {over}",
            ranks,
            verdict_of(ranks, low=RANKS),
        ),
        Finding(
            "Some rank correlation with PNG is left among digits of equal background",
            f"{FLIPD}, a control of the claim above",
            oracle,
            passed,
            f"the same for digits of equal background (partial correlation), {over}",
            beyond,
            verdict_of(beyond, low=0),
        ),
        Finding(
            "Ones have the lowest dimension of the ten classes",
            FLIPD,
            oracle,
            passed,
            f"mean FLIPD of the next class less that of ones, dimensions, {over}",
            ones,
            verdict_of(ones, low=0),
        ),
        _finding_of_gap(arrays, (oracle, passed), _known(arrays, "gap", right["gap"]), over),
        _finding_of_sign(arrays),
    ]


def _finding_of_gap(
    arrays: Arrays, flipd: tuple[str, bool], gap: tuple[str, bool], over: str
) -> Finding:
    read = readings(arrays)
    apart = mean_interval((read["before the largest gap"] - read["FLIPD"]).mean(0))
    return Finding(
        f"The largest gap in the spectrum shows FLIPD's dimension, within {NEAR:g}",
        GAP,
        f"{flipd[0]}; {gap[0]}",
        flipd[1] and gap[1],
        f"eigenvalues before the gap less FLIPD, over {len(arrays['far'])} digits, {over}",
        apart,
        verdict_of(apart, -NEAR, NEAR),
    )


def _finding_of_sign(arrays: Arrays) -> Finding:
    least, negative = float(arrays["mixture_flipd"].min()), _flipd(arrays) < 0
    times = ", ".join(f"{t:g}" for t in arrays["time"].tolist())
    below = rate_interval(int(negative.any(0).sum()), negative.shape[1])
    return Finding(
        "FLIPD is a dimension, and not negative",
        FLIPD,
        f"the posterior mean of ten Gaussians on the same digits: FLIPD at least {least:.1f}",
        least >= 0,
        f"share of digits with a negative FLIPD at one of t = {times}",
        below,
        Standing.FAILS if below[0] > 0 else Standing.HOLDS,
    )


def _known(arrays: Arrays, method: str, right: NDArray[Any]) -> tuple[str, bool]:
    """Return the assertion of a method on manifolds, in words, and whether it is true."""
    counts = right.sum(-1)
    found = (
        f"{method} has the dimension of subspaces and tori, 1 to 10 of 1,024, in its interval for"
        f" at least {counts.min()} of {right.shape[-1]} seeds each"
    )
    enough = bool(counts.min() >= CERTAIN * right.shape[-1])
    if method != "FLIPD":
        return found, enough
    half = float(stated(arrays)[1].max())
    return f"{found}; half-width at most {half:.2g}", enough and half < SHARP


def _flipd(arrays: Arrays) -> NDArray[Any]:
    return np.asarray(arrays["trace"] + arrays["misfit"])


def _row(of: str, quantity: str, value: Interval | float, answer: bool = False) -> Row:
    """Return a row of the table; `answer` tells whether it is printed."""
    nan = float("nan")
    mean, low, high = value if isinstance(value, tuple) else (float(value), nan, nan)
    return {
        "of": of,
        "quantity": quantity,
        "value": mean,
        "low": low,
        "high": high,
        "answer": "yes" if answer else "no",
    }

"""The table of `memorisation`, and what it finds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from studies.claims.ranks import bootstrap_interval, rank_correlation
from studies.frame.answer import Answer, Row
from studies.frame.findings import Finding, verdict_of
from studies.frame.statistics import Interval, mean_interval, rate_interval
from studies.frame.study import Arrays

JEON = "Jeon, Kim, No 2024, arXiv 2412.04140"
KIM = "Kim, Lee 2026, arXiv 2605.26756"
VENTURA = "Ventura et al. 2024, arXiv 2410.05898"
FLAT = 0.5
"""Eigenvalues of alpha J above which a direction is flat: more signal than noise."""


def flat_directions(spectrum: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many eigenvalues of alpha J, the last axis, are those of flat directions."""
    return np.asarray((spectrum > FLAT).sum(-1))


def largest_gap(spectrum: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the largest gap between successive eigenvalues, the last axis, from the largest, and
    how many lie above it.
    """
    gaps = spectrum[..., :-1] - spectrum[..., 1:]
    return gaps.max(-1), gaps.argmax(-1) + 1


def areas(arrays: Arrays, difference: bool) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each map of the half-memorised digits, (times,
    points): how surely a pixel of the upper half has the higher score.
    """
    from scipy.stats import rankdata

    score = -arrays["half_diagonal"]
    score = score + arrays["whole_diagonal"] if difference else score
    half = score.shape[-2] // 2
    ranks = rankdata(score.reshape(*score.shape[:2], -1), axis=-1)
    above = ranks[..., : half * score.shape[-1]]
    count, others = above.shape[-1], ranks.shape[-1] - above.shape[-1]
    return np.asarray((above.sum(-1) - count * (count + 1) / 2) / (count * others))


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each size and noise level, then for the maps of half-memorised digits."""
    flat, ideal = (flat_directions(arrays[name]) for name in ("spectrum", "ideal_spectrum"))
    gaps, above = largest_gap(arrays["spectrum"])
    rows: list[Row] = []
    for k, size in enumerate(arrays["size"].tolist()):
        nearer = arrays["of_training"][k]
        shared = _with("nearest_over_second", mean_interval(arrays["ratio"][k]))
        shared |= _with("nearer_to_training", rate_interval(int(nearer.sum()), len(nearer)))
        for m, t in enumerate(arrays["time"].tolist()):
            values = arrays["spectrum"][k, m]
            row: Row = {"model": f"{size} digits", "time": t, **shared}
            row |= _with("flat_directions", mean_interval(flat[k, m]))
            row |= {"flat_directions_of_the_mean_of_all": float(ideal[k, m].mean())}
            row |= _with("trace_of_alpha_J", mean_interval(values.sum(-1)))
            row |= _with("leading", mean_interval(values[:, 0]))
            row |= _with("smallest", mean_interval(values[:, -1]))
            row |= {"largest_gap": float(gaps[k, m].mean())}
            row |= {"directions_above_it": float(np.median(above[k, m]))}
            rows.append(row)
    for name, found in (("difference", areas(arrays, True)), ("diag J", areas(arrays, False))):
        for m, t in enumerate(arrays["time"].tolist()):
            row = {"model": f"upper half memorised, by {name}", "time": t}
            row |= _with("area_under_roc", mean_interval(found[m]))
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in names} for row in rows]


def _with(name: str, value: Interval) -> Row:
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, value), strict=True))


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of sharpness, of where, and of phases."""
    error = float(arrays["masses_error"].max())
    rank, count = int(arrays["masses_rank"].max()), int(arrays["masses"])
    oracle = (
        f"J of the mean of {count} images by products: error {error:.1e}; rank {rank} < {count};"
        f" flat directions at an image, t = {arrays['time'][0]}: {arrays['masses_flat'][0]}"
    )
    passed = error < 1e-9 and rank < count and int(arrays["masses_flat"][0]) == 0
    return [
        _of_sharpness(arrays, oracle, passed),
        _of_samples(arrays, oracle, passed),
        *_of_maps(arrays, oracle, passed),
        *_of_phases(arrays, oracle, passed),
    ]


def _of_sharpness(arrays: Arrays, oracle: str, passed: bool) -> Finding:
    """Return the finding on few and many training digits."""
    few, many = (flat_directions(arrays["spectrum"][k]).mean(0) for k in (0, -1))
    value = bootstrap_interval(
        lambda a, b: float(few[a].mean() / max(many[b].mean(), 1e-12)), len(few), len(many)
    )
    shares = ", ".join(
        f"{size}: {share:.2f}"
        for size, share in zip(arrays["size"], arrays["of_training"].mean(1), strict=True)
    )
    return Finding(
        "Memorised samples are sharper: more large negative eigenvalues of the score's Jacobian,"
        " and fewer flat directions.",
        JEON,
        oracle,
        passed,
        f"flat directions of samples of the denoiser of {arrays['size'][0]} digits over those of"
        f" {arrays['size'][-1]}, mean over noise levels; share nearer to training than to held-out"
        f" digits: {shares}",
        value,
        verdict_of(value, high=1.0),
    )


def _of_samples(arrays: Arrays, oracle: str, passed: bool) -> Finding:
    """Return the finding on single samples of all denoisers."""
    flat = flat_directions(arrays["spectrum"]).mean(1)
    ratio = arrays["ratio"][:, : flat.shape[1]]
    models, samples = flat.shape

    def statistic(m: NDArray[np.int64], *of_each: NDArray[np.int64]) -> float:
        x, y = (
            np.concatenate([v[k][some] for k, some in zip(m, of_each, strict=True)])
            for v in (ratio, flat)
        )
        return float(rank_correlation(x, y))

    # samples of one model are no independent ones
    value = bootstrap_interval(statistic, models, *[samples] * models)
    within = ", ".join(
        f"{size}: {rank_correlation(a, b):.2f}"
        for size, a, b in zip(arrays["size"], ratio, flat, strict=True)
    )
    return Finding(
        "The sharpness of a sample tells whether it is memorised.",
        JEON,
        oracle,
        passed,
        "rank correlation of the distance to the nearest training digit over the second and the"
        f" flat directions, samples of all denoisers; within one (few points): {within}",
        value,
        verdict_of(value, low=0.0),
    )


def _of_maps(arrays: Arrays, oracle: str, passed: bool) -> list[Finding]:
    """Return the findings on where digits are memorised, the truth known."""
    difference, alone = (areas(arrays, both).mean(0) for both in (True, False))
    value, gain = mean_interval(difference), mean_interval(difference - alone)
    truth = "digits whose upper half is one of ten, mean over noise levels"
    return [
        Finding(
            "The variance of pixels collapses where a sample is memorised: the difference of diag J"
            " from a model that did not memorise shows where.",
            KIM,
            oracle,
            passed,
            f"area under the ROC curve of the difference as a map of the memorised half; {truth}",
            value,
            verdict_of(value, 0.5),
        ),
        Finding(
            "The difference shows where better than diag J alone, which also collapses at pixels"
            " that never vary.",
            KIM,
            oracle,
            passed,
            f"area of the difference less that of -diag J, {alone.mean():.3f}; {truth}",
            gain,
            verdict_of(gain, low=0.0),
        ),
    ]


def _of_phases(arrays: Arrays, oracle: str, passed: bool) -> list[Finding]:
    """Return the findings on the noise levels at which directions open and close."""
    flat, times = flat_directions(arrays["spectrum"]), arrays["time"]
    opened = mean_interval(flat[-1, 0] - flat[-1, -1])
    most = int(flat[0].mean(1).argmax())
    closed = mean_interval(flat[0, 0] - flat[0, most])
    of_most = f"denoiser of {arrays['size'][-1]} digits"
    return [
        Finding(
            "As noise falls, more and more directions open: the manifold is covered.",
            VENTURA,
            oracle,
            passed,
            f"flat directions at t = {times[0]} less those at {times[-1]}, {of_most}",
            opened,
            verdict_of(opened, low=0.0),
        ),
        _of_gap(arrays, of_most, oracle, passed),
        Finding(
            "Where a model memorises, the open directions close again at low noise.",
            VENTURA,
            oracle,
            passed,
            f"flat directions at t = {times[0]} less those where they are most, t = {times[most]},"
            f" denoiser of {arrays['size'][0]} digits",
            closed,
            verdict_of(closed, high=0.0),
        ),
    ]


def _of_gap(arrays: Arrays, of_most: str, oracle: str, passed: bool) -> Finding:
    """Return the finding on the gap at the lowest noise level."""
    gaps, above = (found[-1] for found in largest_gap(arrays["spectrum"]))
    told = ", ".join(
        f"t = {t}: {gap:.2f} after {n:.0f}"
        for t, gap, n in zip(arrays["time"], gaps.mean(1), np.median(above, axis=1), strict=True)
    )
    between = above[0] == flat_directions(arrays["spectrum"][-1, 0])
    value = rate_interval(int(between.sum()), len(between))
    return Finding(
        "At low noise a gap of the spectrum tells the manifold's directions from the others.",
        VENTURA,
        oracle,
        passed,
        f"share of samples whose largest gap at t = {arrays['time'][0]} lies between flat and sharp"
        f" directions, {of_most}; largest gap (mean, median place): {told}",
        value,
        verdict_of(value, 0.5),
    )


ANSWER = Answer(
    ("model", "nearest_over_second", "nearer_to_training", "time", "flat_directions"),
    lambda row: row["flat_directions"] != "",
    across="time",
)

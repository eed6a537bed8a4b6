"""The table of `quality`, and what it finds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from studies.claims.ranks import Indices, bootstrap_interval, rank_correlation
from studies.frame.answer import Answer, Row
from studies.frame.findings import Finding, Standing, verdict_of
from studies.frame.statistics import Interval, mean_interval, ratio_interval
from studies.frame.study import Arrays

SOURCE = "Graikos, Jojic, Samaras 2026, arXiv 2609.36210"
SKEW_SOURCE = "Khelifa, Turner, Venkataramanan 2026, arXiv 2606.06179"


class Regularised(NamedTuple):
    """What is claimed of a loss beside the plain one; see `studies.claims.quality`."""

    loss: str
    claim: str
    source: str
    name: str
    """Of the array that is claimed to grow or fall."""
    raises: bool


TOLD = {
    "leading": "largest |eigenvalue|",
    "asymmetry": "asymmetry",
    "error": "squared error of D on held-out digits",
}
REGULARISED = (
    Regularised(
        "towards",
        "Training with inputs moved along the error towards the clean sample raises the leading"
        " eigenvalues (the sign is ours).",
        SOURCE,
        "leading",
        raises=True,
    ),
    Regularised(
        "away",
        "Training with inputs moved along the error away from the clean sample raises the leading"
        " eigenvalues (the sign is ours).",
        SOURCE,
        "leading",
        raises=True,
    ),
    Regularised(
        "penalty",
        "A direct penalty |J v|^2 lowers the leading eigenvalues.",
        f"by construction, beside {SOURCE}",
        "leading",
        raises=False,
    ),
    Regularised(
        "symmetric",
        "A penalty on (J - J^T) v lowers the asymmetry.",
        f"by construction, beside {SKEW_SOURCE}",
        "asymmetry",
        raises=False,
    ),
    Regularised(
        "symmetric",
        "A penalty on (J - J^T) v lowers the error of the denoiser.",
        SKEW_SOURCE,
        "error",
        raises=False,
    ),
)


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each denoiser and noise level, then for each perceptron."""
    rows: list[Row] = []
    for m, t in np.ndindex(arrays["leading"].shape[:2]):
        row: Row = {
            "network": str(arrays["network"][m]),
            "loss": str(arrays["loss"][m]),
            "updates": int(arrays["updates"][m]),
            "time": int(arrays["time"][t]),
            "frechet": float(arrays["frechet"][m]),
            "frechet_of_real_digits": float(arrays["real_frechet"]),
        }
        for name in ("leading", "leading_symmetric", "asymmetry", "error"):
            row |= with_bounds(name, mean_interval(arrays[name][m, t]))
        rows.append(row)
    for k, t in np.ndindex(arrays["toy_leading"].shape[1:3]):
        toy: Row = {"network": "perceptron, eight Gaussians", "loss": "plain"}
        toy |= {"updates": int(arrays["length"][k]), "time": int(arrays["time"][t])}
        toy |= with_bounds("leading", mean_interval(arrays["toy_leading"][:, k, t].mean(0)))
        toy |= with_bounds("leading_exact", mean_interval(arrays["toy_exact"][t]))
        toy |= with_bounds("error", mean_interval(arrays["toy_error"][:, k, t].mean(0)))
        rows.append({name: toy.get(name, "") for name in (*rows[0], *toy)})
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in names} for row in rows]


def with_bounds(name: str, value: Interval) -> Row:
    """Return a value with its interval as columns of a row."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, value), strict=True))


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of quality, of the regularisers, and of the approach from below."""
    exact, products = arrays["toy_exact"], arrays["toy_products"]
    apart = float((np.abs(products - exact) / exact).max())
    known = f"J of eight Gaussians by products, leading eigenvalue: error {apart:.1e} (rounding)"
    errors = arrays["toy_error"].mean((0, 2, 3))
    falls = ", ".join(f"{error:.2g}" for error in errors)
    learns = f"mean |D - truth|^2 of perceptrons by length: {falls}"
    return [
        _of_quality(arrays, known, apart < 1e-9),
        *(_of_regulariser(arrays, claimed, known, apart < 1e-9) for claimed in REGULARISED),
        _of_approach(arrays, learns, bool(errors[-1] < errors[0] / 2)),
    ]


def correlation_of(arrays: Arrays, models: Indices, points: Indices) -> float:
    """Return the rank correlation over models of the negative Frechet distance and the leading
    eigenvalue, the mean over the noise levels.
    """
    leading = arrays["leading"][models][:, :, points].mean(2)
    better = -arrays["frechet"][models]
    return float(np.mean([rank_correlation(better, column) for column in leading.T]))


def _of_quality(arrays: Arrays, oracle: str, passed: bool) -> Finding:
    """Return the finding on plain denoisers; its interval is over digits and models."""
    plain = np.flatnonzero(arrays["loss"] == "plain")
    points = arrays["leading"].shape[2]
    value = bootstrap_interval(
        lambda models, digits: correlation_of(arrays, plain[models], digits), len(plain), points
    )
    _, low, high = bootstrap_interval(lambda k: correlation_of(arrays, plain, k), points)
    return Finding(
        "Better denoisers have larger leading eigenvalues of J.",
        SOURCE,
        oracle,
        passed,
        f"rank correlation of -Frechet distance and largest |eigenvalue|, mean over noise levels,"
        f" {len(plain)} denoisers only; over digits alone [{low:.2f}, {high:.2f}]",
        value,
        verdict_of(value, 0.0),
    )


def model_of(arrays: Arrays, loss: str) -> tuple[int, int]:
    """Return the indices of a regularised denoiser and of the plain one of its network and
    length.
    """
    (m,) = np.flatnonzero(arrays["loss"] == loss)
    same = (arrays["network"] == arrays["network"][m]) & (arrays["updates"] == arrays["updates"][m])
    (plain,) = np.flatnonzero(same & (arrays["loss"] == "plain"))
    return int(m), int(plain)


def _of_regulariser(arrays: Arrays, claimed: Regularised, oracle: str, passed: bool) -> Finding:
    """Return the finding on one regulariser: paired by digit."""
    m, plain = model_of(arrays, claimed.loss)
    pairs = {name: [arrays[name][k].mean(0) for k in (m, plain)] for name in TOLD}
    value = ratio_interval(*pairs[claimed.name])
    beside = [
        f"{TOLD[name]} {with_it.mean():.3g} / {without.mean():.3g}"
        for name, (with_it, without) in pairs.items()
        if name != claimed.name
    ]
    frechet, before = (float(arrays["frechet"][k]) for k in (m, plain))
    told = ", ".join([f"Frechet {frechet:.3g} / {before:.3g}", *beside])
    return Finding(
        claimed.claim,
        claimed.source,
        oracle,
        passed,
        f"{TOLD[claimed.name]} with / without, one training each; {told}",
        value,
        verdict_of(value, low=1.0) if claimed.raises else verdict_of(value, high=1.0),
    )


def _of_approach(arrays: Arrays, oracle: str, passed: bool) -> Finding:
    """Return the finding on the toy: the shortest training lies below the longest and the exact."""
    shortest, longest = (ratios_of(arrays, k) for k in (0, -1))
    value, end = ratio_interval(*shortest), ratio_interval(*longest)
    below = verdict_of(value, high=1.0)
    nearer = abs(end[0] - 1) < abs(value[0] - 1)
    return Finding(
        "The leading eigenvalue of a trained denoiser rises to the exact one from below (toy of"
        " eight Gaussians).",
        SOURCE,
        oracle,
        passed,
        f"toy, not digits: largest |eigenvalue| / exact after {int(arrays['length'][0])} updates;"
        f" after {int(arrays['length'][-1])}: {end[0]:.3f} [{end[1]:.3f}, {end[2]:.3f}]",
        value,
        below if nearer else Standing.FAILS,
    )


def ratios_of(arrays: Arrays, length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean leading eigenvalue of perceptrons of a length and the exact one, by
    sample.
    """
    return arrays["toy_leading"][:, length].mean((0, 1)), arrays["toy_exact"].mean(0)


ANSWER = Answer(
    ("network", "loss", "updates", "frechet", "time", "leading"),
    lambda row: row["frechet"] != "",
    across="time",
)

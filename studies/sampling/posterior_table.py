"""The table of `posterior`: errors of samplers beside those of exact samples, and coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.frame.answer import Answer, Row
from studies.frame.statistics import rate_interval
from studies.frame.study import Arrays
from studies.sampling.random_curves import SCORES

EXACT, EXACT_DENOISER, MMPS = "exact samples", "E[x_0 | x_t, y]", "MMPS"
FREE, LIKELIEST = "free", "likeliest"
ERRORS = ("mean", "covariance", "weights")
PRINTED = (EXACT, EXACT_DENOISER, MMPS, "fair(10)", "fair(5)", LIKELIEST, "J e, dynamic")


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each prior, observation, direction and eta: errors beside those of as many
    exact samples, the floors; coverage with its 95 % interval.

    An error of exact samples has the interval in which those of 95 % of the sets lie.
    """
    rows: list[Row] = []
    for r, (oracle, observation, way, eta) in enumerate(arrays["runs"].tolist()):
        scores, floors = arrays["score"][r].mean(0), arrays["floor"][r].mean(0)
        score, floor = (
            dict(zip(SCORES, values.tolist(), strict=True)) for values in (scores, floors.mean(0))
        )
        ends = np.quantile(floors, (0.025, 0.975), axis=0) if way == EXACT else None
        known = way in (EXACT, EXACT_DENOISER, MMPS)  # from dense matrices, not from passes
        row: Row = {
            "prior": oracle,
            "observation": observation,
            "sampler": way,
            "eta": float(eta),
            "samples": int(arrays["count"][r]),
            "passes": "" if known else int(arrays["passes"][r].sum(1).max()),
            "backward_passes": "" if known else int(arrays["passes"][r, :, 1].max()),
            "residual": float(arrays["residual"][r].mean()),
            "largest_residual_after_the_steps_of_any_time": float(arrays["worst"][r].max()),
            "spread": score["spread"],
        }
        for k, name in enumerate(SCORES):
            if name in ERRORS:
                low, high = ("", "") if ends is None else ends[:, k].tolist()
                row |= {f"{name}_error": score[name], f"{name}_floor": floor[name]}
                row |= {f"{name}_error_low": low, f"{name}_error_high": high}
        rows.append(row | _covered(arrays["score"][r], int(arrays["count"][r])))
    return rows


def _covered(scores: NDArray[Any], count: int) -> Row:
    """Return the coverage of all curves' samples together, with its interval."""
    row: Row = {}
    for name in (name for name in SCORES if name.startswith("coverage")):
        shares = scores[:, SCORES.index(name)]
        ends = (math.nan,) * 3
        if np.isfinite(shares).all():
            ends = rate_interval(round(float(shares.sum()) * count), count * len(shares))
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    return row


ANSWER = Answer(
    (
        "prior",
        "observation",
        "sampler",
        "passes",
        "backward_passes",
        "mean_error",
        "covariance_error",
        "weights_error",
        "coverage_50",
        "coverage_90",
    ),
    keeps=lambda row: row["eta"] == 1 and row["sampler"] in PRINTED,
)

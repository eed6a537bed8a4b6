"""The numbers of `locality`: by noise level, and what they say of the published claim."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from studies.frame.answer import Answer, Row
from studies.frame.dataset import SAMPLES, SUBJECT, TIME, Variable
from studies.frame.findings import Finding, verdict_of
from studies.frame.statistics import mean_interval
from studies.frame.study import Arrays

FIELDS = ("row", "column")
FILTERS = ("Wiener", "stationary", "isotropic", "untrained")
SOURCE = "Lukoianov, Yuan, Solomon, Sitzmann 2025, arXiv 2509.09672"
ROUNDING = 1e-10
"""Relative error that the products on the Gaussian oracle may have."""
HALF = 0.5**0.5
"""Cosine from which a filter explains half of a field's energy."""
ALIKE = 1.25
"""Ratio of widths up to which they are called alike."""
CLAIMS = (
    (
        "The mean sensitivity field of a trained denoiser has the shape of the data's Wiener"
        " filter, which explains more than half of its energy at every noise level.",
        f"cosine of mean row and Wiener filter ({HALF:.2f} explains half)",
        (HALF, np.inf),
    ),
    (
        "Locality comes from the data's covariance, not from convolutions: the Wiener filter"
        " fits better than a convolution, an isotropic bump or the untrained network at every"
        " noise level.",
        "cosine with the Wiener filter less that with the best of the other three",
        (0, np.inf),
    ),
    (
        "The width of the sensitivity field at every noise level is the Wiener filter's, within"
        " a quarter.",
        "width of the mean row over the Wiener filter's",
        (1 / ALIKE, ALIKE),
    ),
)
"""Claim, quantity on digits, and where it must lie."""


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level, kind of field and quantity, with its 95 % interval over
    digits by the jackknife.
    """
    rows: list[Row] = []
    for k, t in enumerate(arrays["time"].tolist()):
        for f, field in enumerate(FIELDS):
            quantities = {
                **{
                    f"cosine with {name}": arrays["cosine"][k, f, i]
                    for i, name in enumerate(FILTERS)
                },
                "one digit's cosine with Wiener": arrays["single"][k, f],
                "distance from Wiener, relative": arrays["error"][k, f],
                "width, pixels": arrays["width"][k, f],
            }
            for name, values in quantities.items():
                mean, low, high = mean_interval(values)
                ends: Row = {"mean": mean, "low": low, "high": high}
                rows.append({"time": t, "field": field, "quantity": name, **ends})
        for i, name in enumerate(FILTERS):
            width = float(arrays["filter_width"][k, i])
            ends = {"mean": width, "low": "", "high": ""}
            rows.append({"time": t, "field": "filter", "quantity": f"width of {name}", **ends})
    return rows


def advantage(arrays: Arrays) -> NDArray[np.float64]:
    """Return by how much rows agree better with the Wiener filter than with the best of the others
    at each noise level, by the jackknife, (times, samples).
    """
    rows = arrays["cosine"][:, 0]
    best = rows[:, 1:].mean(-1).argmax(-1) + 1
    return np.asarray(rows[:, 0] - np.take_along_axis(rows, best[:, None, None], 1)[:, 0])


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of the shape of sensitivity fields, of what else explains it, and of
    their width.
    """
    worst = float(arrays["oracle_error"].max())
    oracle = (
        "Gaussian prior with the digits' covariance: rows and columns of J differ from the Wiener"
        f" filter by at most {worst:.1g}, relative (asked {ROUNDING:g})"
    )
    told = f"{arrays['sample'].size} noisy digits"
    found = (
        arrays["cosine"][:, 0, 0],
        advantage(arrays),
        arrays["width"][:, 0] / arrays["filter_width"][:, :1],
    )
    return [
        Finding(
            claim,
            SOURCE,
            oracle,
            worst <= ROUNDING,
            f"{quantity}, {told}, {by_time(arrays, values, worst_at)}",
            mean_interval(values[worst_at]),
            verdict_of(mean_interval(values[worst_at]), *within),
        )
        for (claim, quantity, within), values in zip(CLAIMS, found, strict=True)
        for worst_at in [farthest(values.mean(1), *within)]
    ]


def farthest(means: NDArray[np.float64], low: float, high: float) -> int:
    """Return the noise level whose mean is farthest out of [low, high], or nearest to its ends."""
    return int(np.maximum(low - means, means - high).argmax())


def by_time(arrays: Arrays, values: NDArray[np.float64], chosen: int) -> str:
    """Return in words which noise level is chosen, and the means at all; `values` are (times,
    samples).
    """
    times = arrays["time"].tolist()
    means = zip(times, values.mean(1), strict=True)
    listed = ", ".join(f"{t}: {mean:.2f}" for t, mean in means)
    return f"the worst noise level, t = {times[chosen]} ({listed})"


ANSWER = Answer(
    ("time", "quantity", "mean"),
    lambda row: row["field"] == "row" or row["quantity"] == "width of Wiener",
    across="quantity",
)
VARIABLES = {
    **SUBJECT,
    **SAMPLES,
    "time": TIME,
    "field": Variable("field", "row of J, the sensitivity field, or column, the response"),
    "filter": Variable("filter", "what fields are compared with"),
    "place": Variable("place axis", "row and column of the pixels whose fields are taken"),
    "cosine": Variable(
        "time field filter left_out",
        "cosine of mean field and filter, mean over pixels, by the jackknife",
    ),
    "error": Variable("time field left_out", "|mean field - Wiener| / |Wiener|, by the jackknife"),
    "width": Variable(
        "time field left_out", "root mean square distance in the field, by the jackknife", "pixel"
    ),
    "filter_width": Variable("time filter", "the same of the filters", "pixel"),
    "single": Variable("time field left_out", "cosine of one digit's field and the Wiener filter"),
    "mean": Variable("time field place pixel", "field, mean over noisy digits"),
    "filters": Variable("time filter place pixel", "fields of the filters"),
    "oracle_error": Variable("time", "|J - Wiener| / |Wiener| of a Gaussian prior at the pixels"),
}

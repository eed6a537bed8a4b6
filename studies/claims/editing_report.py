"""The table of `editing`, and what it finds of published claims."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.frame.answer import Answer, Row
from studies.frame.dataset import Arrays
from studies.frame.findings import Finding, verdict_of
from studies.frame.statistics import mean_interval, middle_of, over_digits

Array = NDArray[Any]
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Lengths of the move of x_t, relative to |x_t|."""
SHOWN = 0.2
"""The step that is shown and claimed of."""
WAYS = ("leading", "projected", "random")
"""The leading direction of the region, the same without what moves the rest, and noise in the
region, as long.
"""
SOURCE = "Chen et al. 2024, arXiv 2409.02374"


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level, direction and step: means over digits, with intervals."""
    rows: list[Row] = []
    for k, t in enumerate(arrays["time"].tolist()):
        for w, way in enumerate(WAYS):
            for m, step in enumerate(STEPS):
                row: Row = {"time": t, "direction": way, "step": step}
                for name in ("leak", "cosine", "change"):
                    values = over_digits(arrays[name][k, :, m, w], arrays["digit"])
                    mean, low, high = mean_interval(values)
                    row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
                row["projected_out"] = float(arrays["rank"][k].mean()) if w == 1 else ""
                rows.append(row)
    return rows


def findings(arrays: Arrays) -> list[Finding]:
    """Return what the study finds of LOCO-Edit's and Park's claims, at the middle noise level."""
    errors = arrays["oracle"].tolist()
    passed = max(errors[:3]) < 1e-10 and errors[3] == 0
    told = (
        f"Gaussian prior: J to {errors[0]:.0e}, first order to {errors[1]:.0e}, leak"
        f" {errors[2]:.0e} where it is zero"
    )
    m, k = STEPS.index(SHOWN), middle_of(arrays["time"])
    where = f"t = {arrays['time'][k]}, step {SHOWN:g} |x_t|"

    def found(claim: str, source: str, quantity: str, values: Array, **claimed: float) -> Finding:
        value = mean_interval(over_digits(values, arrays["digit"]))
        return Finding(claim, source, told, passed, quantity, value, verdict_of(value, **claimed))

    leak, cosine = arrays["leak"][k, :, m], arrays["cosine"][k, :, m]
    shared = arrays["of_bottleneck"][k]
    first = [
        found(
            "Projecting out what moves the rest leaves less of an edit outside its region",
            SOURCE,
            f"share of the change outside, after the projection less before, {where}",
            leak[:, 1] - leak[:, 0],
            high=0,
        ),
        found(
            "D is nearly linear along the region's leading direction, with a cosine above 0.9",
            SOURCE,
            f"cosine of the change and J v, {where}",
            cosine[:, 0],
            low=0.9,
        ),
    ]
    of_layer = found(
        "The bottleneck's leading direction changes the image by a third of what J's does or more",
        "Park et al. 2023, arXiv 2307.12868",
        f"|J h| / |J|, t = {arrays['time'][k]}",
        shared,
        low=1 / 3,
    )
    return [*first, of_layer] if np.isfinite(shared).all() else first


ANSWER = Answer(
    ("time", "direction", "projected_out", "leak", "cosine", "change"),
    lambda row: row["step"] == SHOWN,
)

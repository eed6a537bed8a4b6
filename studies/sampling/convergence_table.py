"""The table of `convergence`: what answers its question, then each rule's path and factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.frame.answer import Row
from studies.frame.study import Arrays
from studies.sampling.contraction import RANKS

FACTORS = {
    "measured": "|e after| / |e before|, measured",
    "linear": "linear model, |(I - lambda P J^2 P) e| / |e|",
    "symmetric": "the same with (J + J^T) / 2 in place of J",
    "without_mask": "the same without the mask, |(I - lambda J^2) e| / |e|",
    "real": "|1 - lambda |mu|^2|, mu the largest eigenvalue of J, taken as real",
    "complex": "|1 - lambda mu^2|, mu complex",
    "mask": "|1 - lambda nu|, nu the largest eigenvalue of P J^2 P",
    "radius": "spectral radius of I - lambda J^2",
    "radius_mask": "spectral radius of I - lambda P J^2 P",
}
OPERATORS = {"share": "J", "share_mask": "P J^2 P"}


def table(arrays: Arrays) -> list[Row]:
    """Return the findings over all points, then each rule's trajectory, then its measured and
    predicted factors.
    """
    rows = [_row("all", "", name, values) for name, values in findings(arrays).items()]
    times = arrays["time"].tolist()
    for r, rule in enumerate(arrays["rule"].tolist()):
        residual = arrays["residual"][r]
        rows.append(
            _row(rule, "", "digits that did not diverge", np.isfinite(arrays["size"][r, :, -1, -1]))
        )
        rows.append(_row(rule, "", "classifier agrees with the true digit", arrays["agrees"][r]))
        rows += [
            _row(
                rule,
                "",
                f"residual after / before Newton step {step}",
                residual[:, :, step] / residual[:, :, step - 1],
            )
            for step in range(1, residual.shape[2])
        ]
        for k, t in enumerate(times):
            rows += [
                _row(rule, t, "residual before Newton steps", residual[:, k, 0]),
                _row(rule, t, "residual after Newton steps", residual[:, k, -1]),
                _row(rule, t, "root mean square of x_t", arrays["size"][r, :, k, -1]),
            ]
        for p, k in enumerate(arrays["at"].tolist()):
            rows += [_row(rule, times[k], name, arrays[key][r, p]) for key, name in FACTORS.items()]
    return rows


def findings(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return what answers the study's question, over all points: errors of the predictions, and
    where e lies.
    """
    small = arrays["move"] <= 1
    errors = {
        key: abs(arrays[key] / arrays["measured"] - 1) for key in FACTORS if key != "measured"
    }
    return {
        **{
            f"finding: |predicted / measured - 1|: {FACTORS[key]}": error
            for key, error in errors.items()
        },
        "finding: the same of the linear model, where no pixel of x_t moves by more than 1": errors[
            "linear"
        ][small],
        "finding: the same of it elsewhere": errors["linear"][~small],
        "finding: |1 - lambda mu^2| by the complex mu less that by |mu|": (
            arrays["complex"] - arrays["real"]
        ),
        "finding: |mu by 10 Arnoldi steps / mu - 1|": abs(arrays["arnoldi"] / arrays["mu"] - 1),
        "finding: |nu / mu^2|: what the mask leaves of the largest eigenvalue": arrays["ratio"],
        **{
            f"finding: share of |e|^2 in the {rank} leading eigenvectors of {operator}": arrays[
                key
            ][..., k]
            for key, operator in OPERATORS.items()
            for k, rank in enumerate(RANKS)
            if rank in (1, 20, 100)
        },
        "finding: share of |e|^2 where |lambda nu| > 0.1: what a step can change": arrays[
            "reached"
        ],
    }


def _row(rule: str, time: str | float, quantity: str, values: NDArray[Any]) -> Row:
    found = values[np.isfinite(values)].astype(np.float64)
    summaries: dict[str, Callable[..., Any]] = {
        "mean": np.mean,
        "standard_deviation": np.std,
        "median": np.median,
        "smallest": np.min,
        "largest": np.max,
    }
    return {
        "rule": rule,
        "time": time,
        "quantity": quantity,
        "of": found.size,
        **{
            name: float(summary(found)) if found.size else "" for name, summary in summaries.items()
        },
    }

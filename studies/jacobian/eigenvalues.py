r"""The largest eigenvalue of J, of its symmetric and of its skew part, against the noise level.

A step `lambda J e` contracts where `lambda mu^2 < 2`: the largest eigenvalue sets the step, and the
skew part says how far from a posterior covariance J is. Over several digits and seeds; the dense
spectrum of the first, in float64, is the truth where J is small enough to have one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jacobian_lab import ConvergenceWarning, JacobianOperator, eigenpairs, skew_part, symmetric_part
from studies.frame.answer import Answer, Row
from studies.frame.dataset import SAMPLES, SUBJECT, TIME, Variable
from studies.frame.figure_text import subject
from studies.frame.options import model_files
from studies.frame.statistics import mean_interval, over_digits
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.survey import Survey, collect
from studies.jacobian.eigenvalues_plot import PARTS, PUBLISHED, plot


@dataclass(frozen=True)
class Eigenvalues(Survey):
    """Measure the largest |eigenvalue| of J and of its parts. Example: jacobian-lab eigenvalues
    --digits 2 --times 300 700.
    """

    digits: int = 6
    """Digits, one noise each by default: noises of one digit tell little more than one."""


def compute(config: Eigenvalues, pieces: Pieces) -> Arrays:
    """Return |eigenvalue|, its stated error and products, (times, samples, parts), and the truth
    for the first sample.
    """
    points = config.points()
    found = collect(
        pieces,
        "eigenvalues",
        lambda t, sample: by_products(points.operator(t, sample)),
        time=config.times,
        sample=range(len(points.samples)),
    )
    dense = (
        {"truth": np.full((len(config.times), len(PARTS)), np.nan)}
        if not points.has_exact
        else collect(pieces, "dense truth", lambda t: by_dense(points.dense(t)), time=config.times)
    )
    return (
        found
        | dense
        | {
            "time": np.array(config.times),
            **subject(config),
            "operator": np.array(list(PARTS)),
            **points.coordinates(),
        }
    )


def by_products(J: JacobianOperator) -> Arrays:
    """Return the largest |eigenvalue| of each part, (parts,), and what it states."""
    with warnings.catch_warnings():
        # the table tells: the skew part of an oracle is rounding
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = [
            eigenpairs(J, 1),
            eigenpairs(symmetric_part(J), 1, symmetric=True),
            eigenpairs(skew_part(J), 1),
        ]
    return {
        "largest": np.array([abs(r.values[0]) for r in found]),
        "error": np.array([r.errors[0] for r in found]),
        "products": np.array([r.products for r in found]),
        "converged": np.array([r.converged for r in found]),
    }


def by_dense(A: NDArray[np.float64]) -> Arrays:
    """Return the largest |eigenvalue| of each part of the dense J, (parts,)."""
    spectra = [
        np.linalg.eigvals(A),
        np.linalg.eigvalsh((A + A.T) / 2),
        np.linalg.eigvalsh((A - A.T) / 2j),
    ]
    return {"truth": np.array([abs(values).max() for values in spectra])}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level and part; intervals are over digits."""
    rows: list[Row] = []
    for k, t in enumerate(arrays["time"].tolist()):
        for p, part in enumerate(PARTS):
            values = arrays["largest"][k, :, p]
            mean, low, high = mean_interval(over_digits(values, arrays["digit"]))
            rows.append(
                {
                    "time": t,
                    "operator": part,
                    "largest_eigenvalue_mean": mean,
                    "largest_eigenvalue_mean_low": low,
                    "largest_eigenvalue_mean_high": high,
                    "smallest": float(values.min()),
                    "largest": float(values.max()),
                    "first": float(values[0]),
                    "first_dense": (
                        float(arrays["truth"][k, p]) if np.isfinite(arrays["truth"]).all() else ""
                    ),
                    "first_stated_error": float(arrays["error"][k, 0, p]),
                    "products_mean": float(arrays["products"][k, :, p].mean()),
                    "converged": int(arrays["converged"][k, :, p].sum()),
                    "of": len(values),
                    "all_parts_converged": (
                        f"{arrays['converged'][k].sum()} of {arrays['converged'][k].size}"
                    ),
                    "stable_diffusion_1.5_published": PUBLISHED[part].get(t, ""),
                }
            )
    return rows


ANSWER = Answer(
    (
        "time",
        "operator",
        "all_parts_converged",
        "largest_eigenvalue_mean",
    ),
    across="operator",
)
VARIABLES = {
    **SUBJECT,
    **SAMPLES,
    "time": TIME,
    "operator": Variable("operator", "J, its symmetric or its skew part"),
    "largest": Variable("time sample operator", "largest |eigenvalue|"),
    "error": Variable("time sample operator", "how far it may be off, as the solver states"),
    "products": Variable("time sample operator", "products J v and J^T u that it took"),
    "converged": Variable("time sample operator", "whether it converged"),
    "truth": Variable("time operator", "largest |eigenvalue| of the first sample's dense J"),
}
STUDY = Study(
    "eigenvalues",
    Eigenvalues,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
)

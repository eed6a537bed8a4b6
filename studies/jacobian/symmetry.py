r"""How far J is from symmetric, and where.

Inexact Newton moves along a column of J, gradient descent along a row: for a posterior mean they
are the same. Against the noise level, the asymmetry `|J - J^T|_F / |J + J^T|_F` from products with
random vectors, with 95 % intervals, and the dense truth where J is small enough; where in the image
the skew part lives; and the column and the row of one pixel, or of one channel of a latent pixel,
at one x_t, one t and one scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jacobian_lab import (
    InputError,
    JacobianOperator,
    asymmetry,
    diagonal,
    skew_part,
    symmetric_part,
)
from jacobian_lab.krylov.operators import Operator
from studies.frame.answer import Answer, Row
from studies.frame.figure_text import subject
from studies.frame.options import model_files, place_of
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import Points, Survey, collect
from studies.jacobian.symmetry_plot import VARIABLES, plot


@dataclass(frozen=True)
class Symmetry(Survey):
    """Measure how far J is from symmetric, and where. Example: jacobian-lab symmetry --digits 1
    --times 300 700 --shown 500.
    """

    digits: int = 4
    """Digits of the survey: this many, from `digit` on."""
    shown: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels at which the first digit's column, row and skew part are drawn."""
    pixel: tuple[int, int] | None = None
    """Row and column, from 0, of the pixel, or latent pixel, whose column and row of J are drawn;
    by default in the middle.
    """
    channel: int = 0
    """Its channel, from 0: a latent pixel has several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.shown)

    def entry(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return channel, row and column of the pixel in samples of a shape."""
        row, column = place_of(self.pixel, shape)
        channels = shape[0]
        if not 0 <= self.channel < channels:
            raise InputError(
                f"--channel {self.channel} is none of the model's: expected 0 to {channels - 1}"
            )
        return self.channel, row, column


def compute(config: Symmetry, pieces: Pieces) -> Arrays:
    """Return estimates (times, samples), the first sample's truth, and images at the shown
    times.
    """
    points = config.points(*config.shown)
    model = points.model
    entry = config.entry(model.denoiser.shape)
    needed = list(dict.fromkeys((*config.times, *config.shown) if model.is_dense else config.shown))
    found = collect(
        pieces,
        "asymmetry",
        lambda t, sample: estimate(points, t, sample),
        time=config.times,
        sample=range(len(points.samples)),
    )
    first = collect(
        pieces,
        "dense truth" if model.is_dense else "columns and rows",
        lambda t: at_first(points, entry, t),
        time=needed,
    )
    truth = dict(zip(needed, first["truth"], strict=True))
    shown = [needed.index(t) for t in config.shown]
    return (
        found
        | {key: first[key][shown] for key in ("denoised", "column", "row", "skew", "symmetric")}
        | {
            "truth": np.array([truth.get(t, np.nan) for t in config.times]),
            "time": np.array(config.times),
            **subject(config),
            "entry": np.array(entry),
            "shown": np.array(config.shown),
            "shown_truth": first["truth"][shown],
            **points.coordinates(),
        }
    )


def estimate(points: Points, t: int | float, sample: int) -> Arrays:
    """Return the asymmetry of J from products, with its interval."""
    found = asymmetry(
        points.operator(t, sample), seed=points.inputs.numbers[points.samples[sample][0]]
    )
    return {
        "value": np.array(found.value),
        "interval": np.array(found.interval()),
        "products": np.array(found.products),
    }


def at_first(points: Points, entry: tuple[int, int, int], t: int | float) -> Arrays:
    """Return what is drawn of the first sample, in its shape."""
    J, shape = points.operator(t, 0), points.model.denoiser.shape
    with torch.no_grad():
        denoised = points.model.decode(J.products.d)[0].cpu().numpy()
    unit = int(np.ravel_multi_index(entry, shape))
    found = (
        seen_whole(J.dense().astype(np.float64), unit)
        if points.model.is_dense
        else seen_by_products(J, unit)
    )
    return {key: a.reshape(shape) if a.ndim else a for key, a in found.items()} | {
        "denoised": denoised
    }


def seen_whole(A: NDArray[np.float64], unit: int) -> Arrays:
    """Return the asymmetry of the dense J, its column and row at an entry, and norms of the rows of
    its two parts, (n,).
    """
    return {
        "truth": np.array(np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T)),
        "column": A[:, unit],
        "row": A[unit],
        **{
            name: np.linalg.norm(A + sign * A.T, axis=1) / 2
            for name, sign in (("skew", -1), ("symmetric", 1))
        },
    }


def seen_by_products(J: JacobianOperator, unit: int) -> Arrays:
    """Return the same from products: the asymmetry is not known, the rows' norms are estimates (the
    diagonal of B B^T).
    """
    e = np.zeros(J.shape[0])
    e[unit] = 1
    norms = {}
    for name, part in (("skew", skew_part(J)), ("symmetric", symmetric_part(J))):
        square = Operator(J.shape, J.dtype, *[lambda V, B=part: B @ (B.T @ V)] * 2)
        norms[name] = np.sqrt(np.maximum(diagonal(square).value, 0))
    return {"truth": np.array(np.nan), "column": J @ e, "row": J.T @ e, **norms}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level and digit, then the pixel's column and row at the shown
    ones.
    """
    rows: list[Row] = []
    for k, t in enumerate(arrays["time"].tolist()):
        for i, digit in enumerate(arrays["digit"].tolist()):
            low, high = arrays["interval"][k, i].tolist()
            rows.append(
                {
                    "time": t,
                    "digit": digit,
                    "quantity": "asymmetry",
                    "value": float(arrays["value"][k, i]),
                    "low": low,
                    "high": high,
                    "dense": (
                        float(arrays["truth"][k])
                        if i == 0 and np.isfinite(arrays["truth"][k])
                        else ""
                    ),
                    "products": int(arrays["products"][k, i]),
                }
            )
    for k, t in enumerate(arrays["shown"].tolist()):
        a, b = arrays["column"][k].reshape(-1), arrays["row"][k].reshape(-1)
        for name, value in (
            ("cosine of the pixel's column and row", a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
            ("|column - row| / |column + row|", np.linalg.norm(a - b) / np.linalg.norm(a + b)),
        ):
            rows.append(
                {
                    "time": t,
                    "digit": int(arrays["digit"][0]),
                    "quantity": name,
                    "value": float(value),
                    "low": "",
                    "high": "",
                    "dense": "",
                    "products": "",
                }
            )
    return rows


ANSWER = Answer(("time", "quantity", "value"), over=("digit",), across="quantity")
STUDY = Study(
    "symmetry",
    Symmetry,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
)

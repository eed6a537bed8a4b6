r"""Three ways to move x_t so that the denoised digit changes by e.

At one noisy digit, side by side: `J e` (inexact Newton), `J^+ e` (exact Newton by least squares)
and `J^T e` (gradient descent); what the denoised digit becomes after a step of each at equal
largest change; and over several digits and noise levels how far the three agree, how much of the
error they remove, and what rcond does to the exact one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import InputError, JacobianOperator, dynamic_step_size, newton_direction
from jacobian_lab.krylov.regularisation import TruncatedSVD, truncated_svd
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from studies.frame.answer import Answer, Row
from studies.frame.figure_text import subject
from studies.frame.models import Inputs, Model, is_of_digits
from studies.frame.options import OnModel, judged_files, place_of
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect
from studies.jacobian.directions_plot import VARIABLES, plot

Array: TypeAlias = NDArray[Any]
SWEEP = np.geomspace(1e-4, 0.9, 33)  # rconds
NEAR = 3.5  # pixels
LARGEST = 4096
"""Size n of the largest dense J whose singular values are taken: a minute."""


@dataclass(frozen=True)
class Directions(OnModel):
    """Compare J e, J^+ e and J^T e at a noisy digit. Example: jacobian-lab directions --digit 3
    --time 500 --pixel 16 16.
    """

    time: int | float = 500
    """Noise level that is shown, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    pixel: tuple[int, int] | None = None
    """Row and column, from 0, of the pixel to invert: a dark one should become white, a bright one
    black. By default the one in the middle, 16 16 of a digit.
    """
    target: int | None = None
    """Instead of a pixel: the held-out digit that the whole denoised image should become."""
    change: float = 1.0
    """Largest change of a pixel of x_t by each step; pixels are in [-1, 1]."""
    rconds: tuple[float, ...] = (0.5, 0.05)
    """Exact Newton: singular values of J below rcond times the largest count as zero. The first one
    is surveyed.
    """
    digits: int = 5
    """Digits of the survey: this many, from `digit` on."""
    times: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels of the survey."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_of_digits(self.model):
            self.place(SHAPE)  # refused before anything is computed
        if self.target is not None and not 0 <= self.target < 5000:
            raise InputError(f"--target {self.target} is not a held-out digit: expected 0 to 4999")
        self.check_digits()
        if not self.change > 0:
            raise InputError(f"--change must be positive: got {self.change}")
        if not self.rconds or not all(0 <= rcond < 1 for rcond in self.rconds):
            raise InputError(
                "--rconds are one or more, relative to the largest singular value, in [0, 1): got "
                f"{' '.join(map(str, self.rconds)) or 'none'}"
            )
        check_times(self.times)

    def place(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return row and column of the pixel in images of a shape."""
        return place_of(self.pixel, shape)

    def cells(self, numbers: list[int]) -> Iterator[tuple[int, int | float]]:
        """Yield the (digit, time) of the survey, the one that is shown first."""
        yield self.digit, self.time
        for i in numbers:
            for t in self.times:
                if (i, t) != (self.digit, self.time):
                    yield i, t


def compute(config: Directions, pieces: Pieces) -> Arrays:
    """Return images and figures of `compare_directions` for every (digit, time), stacked; the shown
    one comes first.
    """
    model = config.load()
    check_pixels(config, model)
    for t in (config.time, *config.times):
        model.denoiser.schedule(t)  # an unknown time is refused before anything is computed
    inputs = config.inputs(model, config.digits)
    cells = list(config.cells(inputs.numbers))
    found = collect(
        pieces,
        "directions",
        lambda cell: compare_directions(config, model, inputs, *cells[cell]),
        cell=range(len(cells)),
    )
    return found | {
        "cells": np.array(cells),
        "change": np.array(config.change),
        "rcond": np.array(config.rconds),
        "sweep": SWEEP,
        **subject(config),
        "name": np.array(inputs.names[0]),
        "pixel": np.array([] if config.target is not None else config.place(model.denoiser.shape)),
    }


def check_pixels(config: Directions, model: Model) -> None:
    """Raise unless a model is of images, in pixels, whose dense J can be decomposed."""
    if model.space != "pixels" or len(model.denoiser.shape) != 3:
        raise InputError(
            f"directions inverts a pixel, and --model {config.model} denoises"
            f" {'latents' if model.space == 'latent' else 'no images'}: take a model of pixels"
        )
    if model.size > LARGEST:
        raise InputError(
            f"directions takes the singular values of the dense J, and --model {config.model} has"
            f" n = {model.size:,}: expected at most {LARGEST:,}"
        )
    if config.target is not None and not model.digits:
        raise InputError(
            f"--target is a held-out digit, and --model {config.model} is of other images: take"
            " --pixel"
        )


def compare_directions(
    config: Directions, model: Model, inputs: Inputs, i: int, t: int | float
) -> Arrays:
    """Return the three directions at one noisy image, a step along each, and what it does."""
    denoiser, clean = model.denoiser, inputs.clean[inputs.numbers.index(i)]
    x_t = noisy_digit(denoiser, clean, t, config.seed, i)
    J = JacobianOperator(denoiser, x_t, t)
    d, shape = J.products.d, denoiser.shape
    pixel = config.place(shape)
    e = wanted_change(config, d)
    dense, error = J.dense().astype(np.float64), _flat(e)[0]
    path = truncated_svd(dense, error)
    deltas = np.stack(
        [
            newton_direction(dense, error, "inexact"),
            newton_direction(dense, error, "gradient"),
            *(path.solution(path.rank(rcond)) for rcond in config.rconds),
        ]
    )
    steps = np.stack([dynamic_step_size(delta, config.change) * delta for delta in deltas])
    moved = x_t + torch.from_numpy(steps).to(x_t).reshape(-1, *shape)
    with torch.no_grad():
        after = denoiser(moved, t)
    return {
        "x_t": _numpy(x_t[0]),
        "denoised": _numpy(d[0]),
        "error": _numpy(e[0]),
        "steps": steps.reshape(-1, *shape),
        "after": _numpy(after),
        **(judged(torch.cat([d, after])) if model.digits else {}),
        "cosine": np.array([[_cosine(a, b) for b in deltas] for a in deltas]),
        "alignment": np.array([_cosine(dense @ delta, error) for delta in deltas]),
        "near_step": _near(steps, shape, pixel),
        **achieved(_flat(after - d), error, shape, pixel),
        **by_rcond(path, error, deltas[:2], config.rconds),
    }


def judged(images: Tensor) -> Arrays:
    """Return the digit that the judge sees in each image, and its confidence."""
    classifier = mnist.load_classifier(device=images.device)
    confidence, label = torch.softmax(classifier(images.float()), dim=1).max(dim=1)
    return {"label": _numpy(label), "confidence": _numpy(confidence)}


def wanted_change(config: Directions, d: Tensor) -> Tensor:
    """Return e, the change wanted of the denoised image d, (1, c, H, W): one pixel inverted, or
    another digit.
    """
    e = torch.zeros_like(d)
    if config.target is not None:
        e[0] = mnist.digits("held-out")[0][config.target].to(d) - d[0]
    else:
        row, column = config.place(tuple(d.shape[1:]))
        at = d[0, :, row, column]
        e[0, :, row, column] = (1 if at.mean() < 0 else -1) - at
    return e


def achieved(
    changes: Array, error: Array, shape: tuple[int, ...], pixel: tuple[int, int]
) -> Arrays:
    """Return what changes of the denoised digit, (steps, n), do to the error, (n,), and how near to
    the pixel they are.
    """
    return {
        "achieved": changes @ error / (error @ error),
        "residual": np.linalg.norm(error - changes, axis=1) / np.linalg.norm(error),
        "near_change": _near(changes, shape, pixel),
    }


def by_rcond(path: TruncatedSVD, error: Array, deltas: Array, rconds: tuple[float, ...]) -> Arrays:
    """Return the ranks at the chosen rconds, and over `SWEEP` the exact direction's size, residual
    and cosines with two others.
    """
    sweep = [path.rank(rcond) for rcond in SWEEP]
    return {
        "rank": np.array([path.rank(rcond) for rcond in rconds]),
        "sweep_norm": path.solution_norms[sweep] / np.linalg.norm(error),
        "sweep_residual": path.residual_norms[sweep] / np.linalg.norm(error),
        "sweep_cosine": np.array(
            [[_cosine(path.solution(rank), delta) for rank in sweep] for delta in deltas]
        ),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return one row for each digit, time and direction; the exact one at each rcond."""
    rows: list[Row] = []
    rconds = arrays["rcond"].tolist()
    for n, (i, t) in enumerate(arrays["cells"].tolist()):
        for k, kind in enumerate(("inexact", "gradient", *["exact"] * len(rconds))):
            row: Row = {"digit": i, "time": t, "direction": kind, "rcond": "", "rank": ""}
            if kind == "exact":
                row |= {"rcond": rconds[k - 2], "rank": int(arrays["rank"][n, k - 2])}
            row |= {name: float(arrays[name][n, k]) for name in ("achieved", "residual")}
            row |= {
                "cosine_of_J_delta_with_e": float(arrays["alignment"][n, k]),
                **{
                    f"cosine_with_{other}": float(arrays["cosine"][n, k, o]) if o != k else ""
                    for o, other in enumerate(("inexact", "gradient"))
                },
            }
            if len(arrays["pixel"]):
                row |= {
                    "step_near_the_pixel": float(arrays["near_step"][n, k]),
                    "change_near_the_pixel": float(arrays["near_change"][n, k]),
                }
            if "label" in arrays:
                row |= {
                    "judge_before": int(arrays["label"][n, 0]),
                    "judge_after": int(arrays["label"][n, k + 1]),
                    "confidence_before": float(arrays["confidence"][n, 0]),
                    "confidence_after": float(arrays["confidence"][n, k + 1]),
                }
            rows.append(row)
    return sorted(rows, key=lambda row: float(row["time"]))


def _near(images: Array, shape: tuple[int, ...], pixel: tuple[int, int]) -> Array:
    """Return the share of the energy of each image, (count, n), within NEAR pixels of the pixel."""
    rows, columns = np.indices(shape[1:])
    near = np.hypot(rows - pixel[0], columns - pixel[1]) <= NEAR
    energy = (images**2).reshape(-1, *shape)
    return np.asarray(energy[:, :, near].sum((1, 2)) / energy.sum((1, 2, 3)))


def _cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


def _flat(x: Tensor) -> Array:
    return _numpy(x).reshape(len(x), -1).astype(np.float64)


def _numpy(x: Tensor) -> Array:
    return np.asarray(x.detach().cpu().numpy())


ANSWER = Answer(
    ("time", "direction", "rcond", "achieved", "cosine_with_inexact", "cosine_with_gradient"),
    over=("digit",),
    by=("rcond",),
)
STUDY = Study(
    "directions",
    Directions,
    compute,
    table,
    plot,
    models=judged_files,
    answer=ANSWER,
    variables=VARIABLES,
)

r"""The whole spectrum of J at one noisy digit, and what a few Arnoldi steps see of it.

All eigenvalues in the complex plane, in the numerical range and in Bendixson's box, with
pseudospectra from one Arnoldi factorisation; Ritz values as they converge, with their error against
the dense spectrum and their residual; and how fast eigenvalues and singular values fall. Where J is
too large to be written down, all of this is of J on the Krylov space, H.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from jacobian_lab import (
    Arnoldi,
    InputError,
    JacobianOperator,
    bendixson_box,
    numerical_range,
    pseudospectrum,
)
from studies.frame.answer import Row
from studies.frame.figure_text import subject
from studies.frame.models import DENSE, operator_at
from studies.frame.options import OnModel, model_files
from studies.frame.study import Arrays, Pieces, Study
from studies.jacobian.spectrum_plot import VARIABLES, convergence, is_dense, leading, plot

GRID = (81, 61)
ANGLES = 96
"""Of the supporting lines of the numerical range: enough for its corners not to be seen."""


@dataclass(frozen=True)
class Spectrum(OnModel):
    """Draw the spectrum of J at one noisy digit. Example: jacobian-lab spectrum --digit 3 --time
    700 --arnoldi-steps 40.
    """

    time: int | float = 500
    """Noise level, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    arnoldi_steps: int = 50
    """Arnoldi steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 10 <= self.arnoldi_steps <= DENSE:
            raise InputError(
                f"--arnoldi-steps must lie from 10 to {DENSE}: got {self.arnoldi_steps}"
            )


def compute(config: Spectrum, pieces: Pieces) -> Arrays:
    """Return spectra, Ritz values (steps, steps) with NaN beyond each step, and the sets around
    them; all in float64.
    """
    if torch.device(config.device).type == "mps":
        raise InputError("--device mps has no float64, in which this study computes: take cpu")
    model = config.load(dtype=torch.float64)
    if config.arnoldi_steps > model.size:
        raise InputError(
            f"--arnoldi-steps must lie from 10 to {model.size}, the size of this model's J: got"
            f" {config.arnoldi_steps}"
        )
    inputs = config.inputs(model)

    def operator() -> JacobianOperator:
        return operator_at(model.denoiser, inputs.clean[0], config.digit, config.time, config.seed)

    def krylov() -> Arrays:
        f = Arnoldi(operator(), seed=config.seed)
        ritz = np.full((config.arnoldi_steps, config.arnoldi_steps), np.nan, dtype=np.complex128)
        bounds = np.full((config.arnoldi_steps, config.arnoldi_steps), np.nan)
        for m in tqdm(range(config.arnoldi_steps), desc="Arnoldi", unit="step"):
            f.extend(1)
            ritz[m, : m + 1], bounds[m, : m + 1] = f.ritz()
        return {
            "ritz": ritz,
            "bounds": bounds,
            "inner_range": numerical_range(f, ANGLES),
            "inner_box": np.array(bendixson_box(f)),
            **_sets(f),
            **({} if model.is_dense else _whole(f.projected)),
        }

    return (
        (pieces("dense", lambda: _whole(operator().dense())) if model.is_dense else {})
        | pieces("krylov", krylov)
        | {
            "time": np.array(config.time),
            **subject(config),
            "size": np.array(model.size),
        }
    )


def _whole(A: NDArray[np.float64]) -> Arrays:
    """Return all eigenvalues of a matrix, of its parts, its singular values, and the sets around
    its spectrum.
    """
    return {
        "eigenvalues": np.linalg.eigvals(A),
        "symmetric": np.linalg.eigvalsh((A + A.T) / 2),
        "skew": np.linalg.eigvalsh((A - A.T) / 2j),
        "singular": np.linalg.svd(A, compute_uv=False),
        "range": numerical_range(A, ANGLES),
        "box": np.array(bendixson_box(A)),
    }


def _sets(f: Arnoldi) -> Arrays:
    """Return the smallest singular value of z I - H on a grid around the numerical range."""
    box = bendixson_box(f)
    size = max(box.right - box.left, 2 * box.height)
    x = np.linspace(box.left - 0.15 * size, box.right + 0.15 * size, GRID[0])
    y = np.linspace(-box.height - 0.15 * size, box.height + 0.15 * size, GRID[1])
    return {"grid_x": x, "grid_y": y, "smallest": pseudospectrum(f, x + 1j * y[:, None])}


def table(arrays: Arrays) -> list[Row]:
    """Return the figures of the spectrum, then the leading eigenvalues with error and residual of
    their Ritz values.

    Without the dense J: the same of H, whose eigenvalues are the Ritz values, so that there is no
    error to state.
    """
    values, box, inner = arrays["eigenvalues"], arrays["box"], arrays["inner_box"]
    largest = float(abs(values).max())
    counts = {
        "eigenvalues" if is_dense(arrays) else "ritz_values": len(values),
        "of_these_complex": int((abs(values.imag) > 1e-10 * largest).sum()),
        "with_negative_real_part": int((values.real < 0).sum()),
        "above_1_percent_of_the_largest": int((abs(values) > 0.01 * largest).sum()),
    }
    figures = {
        **counts,
        "trace" if is_dense(arrays) else "trace_of_H": values.sum().real,
        "largest_eigenvalue": largest,
        "largest_singular_value": arrays["singular"][0],
        "smallest_real_part": values.real.min(),
        "largest_imaginary_part": values.imag.max(),
        **{f"box_{k}": v for k, v in zip(("left", "right", "height"), box, strict=True)},
        **{
            f"box_{k}_by_arnoldi": v
            for k, v in zip(("left", "right", "height"), inner, strict=True)
        },
    }
    blank = dict.fromkeys(("imaginary", "error", "residual"), "")
    rows: list[Row] = [
        {"quantity": name.replace("_", " "), "real": float(value), **blank}
        for name, value in figures.items()
    ]
    for k, value in enumerate(leading(arrays, 10)):
        error, bound = convergence(arrays, value)
        rows.append(
            {
                "quantity": f"eigenvalue {k + 1}",
                "real": float(value.real),
                "imaginary": float(value.imag),
                "error": float(error[-1]) if is_dense(arrays) else "",
                "residual": float(bound[-1]),
            }
        )
    return rows


STUDY = Study("spectrum", Spectrum, compute, table, plot, models=model_files, variables=VARIABLES)

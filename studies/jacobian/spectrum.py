r"""The whole spectrum of J at one noisy digit, and what a few Arnoldi steps see of it.

All eigenvalues in the complex plane, in the numerical range and in Bendixson's box, with
pseudospectra from one Arnoldi factorisation; Ritz values as they converge, with their error against
the dense spectrum and their residual; and how fast eigenvalues and singular values fall. Where J is
too large to be written down, all of this is of J on the Krylov space, H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from jacobian_lab import Arnoldi, InputError, bendixson_box, numerical_range, pseudospectrum
from studies.frame.answer import Row
from studies.frame.figure_style import COLOURS, LABELS
from studies.frame.models import DENSE, operator_at
from studies.frame.options import OnModel, model_files
from studies.frame.study import Arrays, Pieces, Study

LEVELS = (1e-3, 1e-2, 1e-1)
"""Of the pseudospectra, relative to the largest |eigenvalue|."""
GRID = (81, 61)
FOLLOWED = 4
"""Leading eigenvalues whose convergence is drawn."""
GRAYS = ("#222222", "#777777", "#bbbbbb")


@dataclass(frozen=True)
class Spectrum(OnModel):
    """Draw the spectrum of J at one noisy digit. Example: jacobian-lab spectrum --digit 3 --time
    700 --steps 40.
    """

    time: int | float = 500
    """Noise level, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    steps: int = 50
    """Arnoldi steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 10 <= self.steps <= DENSE:
            raise InputError(f"--steps must lie from 10 to {DENSE}: got {self.steps}")


def compute(config: Spectrum, pieces: Pieces) -> Arrays:
    """Return spectra, Ritz values (steps, steps) with NaN beyond each step, and the sets around
    them; all in float64.
    """
    if torch.device(config.device).type == "mps":
        raise InputError("--device mps has no float64, in which this study computes: take cpu")
    model = config.load(dtype=torch.float64)
    if config.steps > model.size:
        raise InputError(
            f"--steps must lie from 10 to {model.size}, the size of this model's J: got"
            f" {config.steps}"
        )
    inputs = config.inputs(model)
    J = operator_at(model.denoiser, inputs.clean[0], config.digit, config.time, config.seed)

    def krylov() -> Arrays:
        f = Arnoldi(J, seed=config.seed)
        ritz = np.full((config.steps, config.steps), np.nan, dtype=np.complex128)
        bounds = np.full((config.steps, config.steps), np.nan)
        for m in tqdm(range(config.steps), desc="Arnoldi", unit="step"):
            f.extend(1)
            ritz[m, : m + 1], bounds[m, : m + 1] = f.ritz()
        return {
            "ritz": ritz,
            "bounds": bounds,
            "inner_range": numerical_range(f, 48),
            "inner_box": np.array(bendixson_box(f)),
            **_sets(f),
            **({} if model.is_dense else _whole(f.projected)),
        }

    return (
        (pieces("dense", lambda: _whole(J.dense())) if model.is_dense else {})
        | pieces("krylov", krylov)
        | {
            "time": np.array(config.time),
            "name": np.array(inputs.names[0]),
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
        "range": numerical_range(A, 48),
        "box": np.array(bendixson_box(A)),
    }


def _is_dense(arrays: Arrays) -> bool:
    return len(arrays["eigenvalues"]) == int(arrays["size"])


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
        "eigenvalues" if _is_dense(arrays) else "ritz_values": len(values),
        "of_these_complex": int((abs(values.imag) > 1e-10 * largest).sum()),
        "with_negative_real_part": int((values.real < 0).sum()),
        "above_1_percent_of_the_largest": int((abs(values) > 0.01 * largest).sum()),
    }
    figures = {
        **counts,
        "trace" if _is_dense(arrays) else "trace_of_H": values.sum().real,
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
    rows: list[Row] = [
        {"quantity": name, "real": float(value), "imaginary": "", "error": "", "residual": ""}
        for name, value in figures.items()
    ]
    for k, value in enumerate(_leading(arrays, 10)):
        error, bound = _convergence(arrays, value)
        rows.append(
            {
                "quantity": f"eigenvalue_{k + 1}",
                "real": float(value.real),
                "imaginary": float(value.imag),
                "error": float(error[-1]) if _is_dense(arrays) else "",
                "residual": float(bound[-1]),
            }
        )
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw the complex plane, Ritz values and their convergence, and the decay."""
    figure = Figure(figsize=(7.2, 6.4))
    plane, ritz, decay, errors = figure.subplots(2, 2).ravel()
    _plot_plane(plane, arrays)
    _plot_ritz(ritz, errors, arrays)
    values = np.sort(abs(arrays["eigenvalues"]))[::-1]
    negative = -arrays["symmetric"][arrays["symmetric"] < 0]
    index = np.arange(1, len(values) + 1)
    of, where = ("$J$", "") if _is_dense(arrays) else ("$H$", " on the Krylov space")
    decay.loglog(index, arrays["singular"], color="#cc79a7", label=f"singular values of {of}")
    decay.loglog(index, values, color=COLOURS["J"], label=f"|eigenvalues| of {of}")
    decay.loglog(
        index,
        np.sort(abs(arrays["skew"]))[::-1],
        color=COLOURS["skew"],
        label=f"|eigenvalues| of {LABELS['skew']}",
    )
    decay.loglog(
        index[: len(negative)],
        negative,
        color=COLOURS["symmetric"],
        label=f"negative ones of {LABELS['symmetric']}",
    )
    decay.set(
        xlabel="index", ylabel="size", title="Decay" + where, ylim=(1e-6 * values[0], 2 * values[0])
    )
    for axes in (plane, ritz, decay, errors):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def _plot_plane(axes: Any, arrays: Arrays) -> None:
    values, largest = arrays["eigenvalues"], abs(arrays["eigenvalues"]).max()
    sets = axes.contour(
        arrays["grid_x"],
        arrays["grid_y"],
        arrays["smallest"] / largest,
        levels=LEVELS,
        colors=GRAYS[::-1],
        linewidths=0.7,
    )
    axes.clabel(sets, fmt=lambda level: f"{level:g}", fontsize=6)
    left, right, height = arrays["box"]
    axes.plot(
        [left, right, right, left, left],
        [-height, -height, height, height, -height],
        "--",
        color=COLOURS["skew"],
        linewidth=0.8,
        label="Bendixson's box",
    )
    closed = np.append(arrays["range"], arrays["range"][0])
    axes.plot(
        closed.real, closed.imag, color=COLOURS["symmetric"], linewidth=1, label="numerical range"
    )
    kind = "eigenvalues" if _is_dense(arrays) else "Ritz values"
    axes.plot(
        values.real,
        values.imag,
        ".",
        color=COLOURS["J"],
        markersize=2.5,
        label=f"{len(values)} {kind}",
    )
    axes.plot([], [], color=GRAYS[1], linewidth=0.7, label="pseudospectra, Arnoldi")
    axes.set(
        xlabel="real part",
        ylabel="imaginary part",
        title=f"Spectrum of $J$, {arrays['name']}, $t$ = {arrays['time']}",
    )
    bottom, room = min(arrays["grid_y"][0], -1.1 * height), np.ptp(arrays["grid_y"])
    near = values[abs(values) < 0.03 * largest]
    axes.set_ylim(bottom, -bottom + (0.9 * room if len(near) else 0))
    if not len(near):
        return
    zoom = axes.inset_axes((0.42, 0.6, 0.54, 0.36))
    zoom.plot(near.real, near.imag, ".", color=COLOURS["J"], markersize=2)
    zoom.set_title("around zero", fontsize=7, pad=2)
    zoom.tick_params(labelsize=6)


def _plot_ritz(ritz: Any, errors: Any, arrays: Arrays) -> None:
    steps = np.arange(1, len(arrays["ritz"]) + 1)
    m, k = np.nonzero(np.isfinite(arrays["bounds"]))
    largest = abs(arrays["eigenvalues"]).max()
    done = arrays["bounds"][m, k] < 1e-6 * largest
    heights = arrays["ritz"][m, k].real
    ritz.plot(
        m[~done] + 1, heights[~done], ".", color="#bbbbbb", markersize=2.5, label="on the way"
    )
    ritz.plot(
        m[done] + 1,
        heights[done],
        ".",
        color=COLOURS["J"],
        markersize=2.5,
        label="residual below $10^{-6}$",
    )
    ritz.set(
        xlabel="Arnoldi steps",
        ylabel="real part of Ritz value",
        title="Ritz values as they converge",
    )
    shades = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
    for value, colour in zip(_leading(arrays, FOLLOWED), shades, strict=True):
        error, bound = _convergence(arrays, value)
        errors.semilogy(
            steps,
            np.maximum(error, 1e-16),
            color=colour,
            label=f"{value.real:.3g}" + (f" + {value.imag:.2g}i" if value.imag else ""),
        )
        errors.semilogy(steps, bound, ":", color=colour)
    errors.plot(
        [],
        [],
        "-",
        color="#333333",
        label="error" if _is_dense(arrays) else "distance from the last",
    )
    errors.plot([], [], ":", color="#333333", label="residual, from $H$ alone")
    errors.set(
        xlabel="Arnoldi steps",
        ylabel="error of the eigenvalue",
        title="Convergence of the leading eigenvalues",
        ylim=(1e-17, None),
    )


def _leading(arrays: Arrays, count: int) -> Any:
    """Return the eigenvalues of largest modulus, one of each conjugate pair."""
    values = arrays["eigenvalues"][arrays["eigenvalues"].imag >= 0]
    return values[np.argsort(-abs(values))][:count]


def _convergence(arrays: Arrays, value: complex) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of the nearest Ritz value of each step, and its residual, which is not
    below the rounding.
    """
    distance = np.abs(arrays["ritz"] - value)
    nearest = np.nanargmin(distance, axis=1)
    rows = np.arange(len(nearest))
    rounding = (
        np.finfo(np.float64).eps * np.sqrt(len(arrays["eigenvalues"])) * arrays["singular"][0]
    )
    return distance[rows, nearest], np.maximum(arrays["bounds"][rows, nearest], rounding)


STUDY = Study("spectrum", Spectrum, compute, table, plot, models=model_files)

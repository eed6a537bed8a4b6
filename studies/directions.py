r"""Three ways to move x_t so that the denoised digit changes by e.

At one noisy digit, side by side: `J e` (inexact Newton), `J^+ e` (exact Newton by least squares) and `J^T e`
(gradient descent); what the denoised digit becomes after a step of each at equal largest change; and over several digits and
noise levels how far the three agree, how much of the error they remove, and what rcond does to the exact one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

import mnist
from jacobian_lab import InputError, JacobianOperator, dynamic_step_size, newton_direction
from jacobian_lab.newton import Kind
from jacobian_lab.sampler import seeded_noise
from jacobian_lab.solve import truncated_svd
from mnist.data import SHAPE
from studies.frame import Arrays, Config, Pieces, Row, Study
from studies.style import COLOURS, LABELS, show

Array: TypeAlias = NDArray[Any]
KINDS: tuple[Kind, ...] = ("inexact", "exact", "gradient")
RCONDS = np.geomspace(1e-4, 0.9, 33)
NEAR = 3.5  # pixels; a change within this distance of the pixel is called local


@dataclass(frozen=True)
class Directions(Config):
    """Compare J e, J^+ e and J^T e at a noisy digit. Example: jacobian-lab directions --digit 3 --time 500 --pixel 16 16."""

    digit: int = 0
    """Held-out digit that is shown; digit i shows the class i % 10."""
    time: int = 500
    """Noise level that is shown, 0 (clean) to 999 (noise)."""
    pixel: tuple[int, int] = (16, 16)
    """Row and column, 0 to 31, of the pixel that should become white."""
    target: int | None = None
    """Instead of a pixel: the held-out digit that the whole denoised image should become."""
    change: float = 1.0
    """Largest change of a pixel of x_t by each step; pixels are in [-1, 1]."""
    rcond: float = 0.1
    """Exact Newton: singular values of J below rcond times the largest count as zero."""
    digits: int = 5
    """Digits of the survey: this many, from `digit` on."""
    times: tuple[int, ...] = (300, 500, 700)
    """Noise levels of the survey."""
    model: str = "denoiser"
    """Denoiser that ships, or the path of one that you trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= at < size for at, size in zip(self.pixel, SHAPE[1:], strict=True)):
            raise InputError(f"--pixel {self.pixel[0]} {self.pixel[1]} is outside the image: expected row and column, 0 to 31")
        for name in ("digit", "target"):
            index = getattr(self, name)
            if index is not None and not 0 <= index < 5000:
                raise InputError(f"--{name} {index} is not a held-out digit: expected 0 to 4999")
        if not 1 <= self.digits <= 5000 - self.digit:
            raise InputError(f"--digits must lie from 1 to {5000 - self.digit}: got {self.digits}")
        if not self.change > 0:
            raise InputError(f"--change must be positive: got {self.change}")
        if not 0 <= self.rcond < 1:
            raise InputError(f"--rcond is relative to the largest singular value, in [0, 1): got {self.rcond}")

    def cells(self) -> Iterator[tuple[int, int]]:
        """Yield the (digit, time) of the survey, the one that is shown first."""
        yield self.digit, self.time
        for i in range(self.digit, self.digit + self.digits):
            for t in self.times:
                if (i, t) != (self.digit, self.time):
                    yield i, t


def compute(config: Directions, pieces: Pieces) -> Arrays:
    """Return the images of the shown digit, and for every (digit, time) of the survey the figures of `compare`."""
    denoiser = mnist.load_denoiser(config.model, config.device)
    classifier = mnist.load_classifier(device=config.device)
    images = mnist.digits("held-out")[0].to(config.device)
    for t in (config.time, *config.times):
        denoiser.schedule(t)  # an unknown time is refused before anything is computed

    def compare(i: int, t: int) -> Arrays:
        x_t = denoiser.schedule.add_noise(
            images[i], t, seeded_noise([config.seed * 1_000_003 + i], SHAPE, config.device)[0]).unsqueeze(0)
        J = JacobianOperator(denoiser, x_t, t)
        d = J.products.d
        if config.target is not None:
            e = images[config.target:config.target + 1] - d
        else:
            at = (0, 0, *config.pixel)
            e = torch.zeros_like(d)
            e[at] = 1 - d[at]
        dense = J.dense().astype(np.float64)
        deltas = {kind: newton_direction(dense, e, kind, rcond=config.rcond) for kind in KINDS}
        steps = torch.cat([dynamic_step_size(delta, config.change) * delta for delta in deltas.values()])
        with torch.no_grad():
            after = denoiser(x_t + steps, t)
            confidence, label = torch.softmax(classifier(torch.cat([d, after])), dim=1).max(dim=1)
        flat: dict[str, Array] = {kind: _flat(delta) for kind, delta in deltas.items()}
        error, changes = _flat(e), _flat(after - d, 3)
        path = truncated_svd(dense, error)
        ranks = [path.rank(rcond) for rcond in RCONDS]
        exact = np.stack([path.solution(rank) for rank in ranks])
        return {
            "x_t": _numpy(x_t[0]), "denoised": _numpy(d[0]), "error": _numpy(e[0]), "directions": _numpy(steps),
            "after": _numpy(after), "label": _numpy(label), "confidence": _numpy(confidence),
            "cosine": np.array([_cosine(flat[a], flat[b]) for a, b in PAIRS]),
            "alignment": np.array([_cosine(dense @ flat[kind], error) for kind in KINDS]),
            "achieved": changes @ error / (error @ error),
            "residual": np.linalg.norm(error - changes, axis=1) / np.linalg.norm(error),
            "local_direction": np.array([_local(g, config.pixel) for g in flat.values()]),
            "local_change": np.array([_local(g, config.pixel) for g in changes]),
            "singular_values": path.singular_values,
            "ranks": np.array(ranks),
            "solution_norm": path.solution_norms[ranks] / np.linalg.norm(error),
            "solution_residual": path.residual_norms[ranks] / np.linalg.norm(error),
            "cosine_by_rcond": np.array([[_cosine(x, flat[kind]) for x in exact] for kind in ("inexact", "gradient")]),
            "exact_by_rcond": exact[[int(np.abs(RCONDS - r).argmin()) for r in SHOWN_RCONDS]].reshape(-1, *SHAPE),
        }

    found = [pieces(f"digit-{i}-time-{t}", lambda i=i, t=t: compare(i, t))  # type: ignore[misc]
             for i, t in tqdm(list(config.cells()), desc="directions", unit="Jacobian")]
    arrays = {key: np.stack([cell[key] for cell in found]) for key in found[0]}
    return arrays | {"cells": np.array(list(config.cells())), "change": np.array(config.change),
                     "rcond": np.array(config.rcond), "pixel": np.array(config.pixel),
                     "target": np.array(-1 if config.target is None else config.target)}


PAIRS = (("inexact", "exact"), ("inexact", "gradient"), ("exact", "gradient"))
SHOWN_RCONDS = (0.5, 0.1, 0.01, 0.001)


def table(arrays: Arrays) -> list[Row]:
    """Return one row for each digit, time and direction."""
    rows: list[Row] = []
    for n, (i, t) in enumerate(arrays["cells"]):
        for k, kind in enumerate(KINDS):
            rows.append({
                "digit": int(i), "time": int(t), "direction": kind,
                "achieved": float(arrays["achieved"][n, k]), "residual": float(arrays["residual"][n, k]),
                "cosine_of_J_delta_and_e": float(arrays["alignment"][n, k]),
                "direction_within_3.5_px": float(arrays["local_direction"][n, k]),
                "change_within_3.5_px": float(arrays["local_change"][n, k]),
                **{f"cosine_with_{other}": float(_pair(arrays["cosine"][n], kind, other)) for other in KINDS},
                "judge_before": int(arrays["label"][n, 0]), "judge_after": int(arrays["label"][n, k + 1]),
                "confidence_after": float(arrays["confidence"][n, k + 1]),
            })
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw the shown digit, its directions and what they do; below, the survey."""
    figure = Figure(figsize=(7.2, 9.0))
    parts: Any = figure.subfigures(2, 1, height_ratios=[4.1, 2])
    top, bottom = parts
    _plot_images(top, arrays)
    left, middle, right = bottom.subplots(1, 3)
    times = np.unique(arrays["cells"][:, 1])
    at = [arrays["cells"][:, 1] == t for t in times]
    for (a, b), style, values in zip(PAIRS, ("-", "--", ":"), arrays["cosine"].T, strict=True):
        _spread(left, times, [values[m] for m in at], f"{LABELS[a]}, {LABELS[b]}", "#333333", style)
    left.set(xlabel="time $t$", ylabel="cosine", ylim=(min(0, left.get_ylim()[0]), 1.02), title="Cosine between directions")
    for k, kind in enumerate(KINDS):
        _spread(middle, times, [arrays["achieved"][m, k] for m in at], LABELS[kind], COLOURS[kind])
    middle.set(xlabel="time $t$", ylabel=r"$\langle e, \Delta D \rangle / |e|^2$",
               title=f"Share of $e$ achieved, step {float(arrays['change']):g}")
    middle.axhline(0, color="#999999", linewidth=0.5)
    shown = arrays["cells"][:, 1] == arrays["cells"][0, 1]
    for k, other in enumerate(("inexact", "gradient")):
        _spread(right, RCONDS, list(arrays["cosine_by_rcond"][shown, k].T), f"cosine with {LABELS[other]}", COLOURS[other])
    _spread(right, RCONDS, list(arrays["solution_residual"][shown].T), r"$|e - J J^{+} e| \,/\, |e|$", COLOURS["exact"])
    right.axvline(float(arrays["rcond"]), color="#999999", linewidth=0.5)
    right.set(xscale="log", xlabel="rcond", ylim=(None, 1.02),
              title=rf"$J^{{+}}e$ by rcond, $t$ = {int(arrays['cells'][0, 1])}")
    for line in right.lines:
        line.set_marker("")
    for axes in (left, middle, right):
        axes.legend()
    return figure


def _plot_images(figure: Any, arrays: Arrays) -> None:  # noqa: ANN401 - a SubFigure has Figure's methods and no common type
    i, t = (int(value) for value in arrays["cells"][0])
    axes = figure.subplots(4, 4)
    gray = show(axes[0, 0], arrays["x_t"][0] / 3, rf"$x_t$ / 3, digit {i}, $t$ = {t}")
    directions, changes = arrays["directions"][0], arrays["after"][0] - arrays["denoised"][0]
    largest = float(np.abs(changes).max())
    show(axes[1, 0], arrays["denoised"][0], "$D(x_t)$")
    show(axes[2, 0], arrays["error"][0], "$e$: the change wanted", float(np.abs(arrays["error"][0]).max()))
    for k, kind in enumerate(KINDS):
        label = LABELS[kind] + (f", rcond {float(arrays['rcond']):g}" if kind == "exact" else "")
        steps = show(axes[0, k + 1], directions[k], rf"$\delta \propto$ {label}", float(arrays["change"]))
        show(axes[1, k + 1], arrays["after"][0, k], rf"$D(x_t + \delta)$: {100 * arrays['achieved'][0, k]:.0f} % of $e$")
        moved = show(axes[2, k + 1], changes[k], r"$D(x_t + \delta) - D(x_t)$", largest)
        if arrays["target"] < 0:
            row, column = arrays["pixel"]
            for panel in axes[:3, k + 1]:
                panel.plot(column, row, "s", markersize=3.5, markerfacecolor="none", markeredgecolor="k", markeredgewidth=0.6)
    for k, (panel, rcond) in enumerate(zip(axes[3], SHOWN_RCONDS, strict=True)):
        exact = arrays["exact_by_rcond"][0, k]
        at = int(np.abs(RCONDS - rcond).argmin())
        norms = show(panel, exact / np.abs(exact).max(), rf"$J^{{+}}e$, rcond {rcond:g}, rank {arrays['ranks'][0, at]}", 1.0)
    for panels, drawn, label in ((axes[0], steps, "step"), (axes[1], gray, "pixel"), (axes[2], moved, "change"),
                                 (axes[3], norms, "relative to largest")):
        figure.colorbar(drawn, ax=list(panels), shrink=0.8, pad=0.01, aspect=14).set_label(label)


def _spread(axes: Any, times: Array, groups: list[Array], label: str, colour: str, style: str = "-") -> None:  # noqa: ANN401
    """Draw the mean over digits against time, and the range from the smallest to the largest."""
    axes.plot(times, [np.mean(g) for g in groups], style, marker="o", color=colour, label=label)
    axes.fill_between(times, [np.min(g) for g in groups], [np.max(g) for g in groups], color=colour, alpha=0.12, linewidth=0)


def _pair(cosines: Array, a: str, b: str) -> float:
    """Return the cosine of two directions out of the three that are stored."""
    if a == b:
        return 1.0
    return float(cosines[PAIRS.index((a, b) if (a, b) in PAIRS else (b, a))])


def _local(image: Array, pixel: tuple[int, int]) -> float:
    """Return the share of an image's energy within NEAR pixels of the pixel."""
    rows, columns = np.indices(SHAPE[1:])
    near = np.hypot(rows - pixel[0], columns - pixel[1]) <= NEAR
    energy = image.reshape(SHAPE[1:]) ** 2
    return float(energy[near].sum() / energy.sum())


def _cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


def _flat(x: torch.Tensor, count: int = 1) -> Array:
    flat: Array = _numpy(x).reshape(count, -1).astype(np.float64)
    return flat if count > 1 else flat[0]


def _numpy(x: torch.Tensor) -> Array:
    return np.asarray(x.detach().cpu().numpy())


STUDY = Study("directions", Directions, compute, table, plot,
              models=lambda config: {config.model: "denoiser", "classifier": "classifier"})

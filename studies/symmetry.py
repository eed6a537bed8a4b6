r"""How far J is from symmetric, and where.

Inexact Newton moves along a column of J, gradient descent along a row: for a posterior mean they are the same. Against the
noise level, the asymmetry `|J - J^T|_F / |J + J^T|_F` from products with random vectors, with 95 % intervals, and the dense
truth; where in the image the skew part lives; and the column and the row of one pixel, at one x_t, one t and one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import mnist
from jacobian_lab import InputError, asymmetry
from mnist.data import SHAPE
from studies.frame import Arrays, Pieces, Row, Study, check_times
from studies.models import OnDigits, load_model, model_files, operator_at
from studies.style import COLOURS, show

TITLES = ("$D(x_t)$", "column of $J$:\ninexact Newton", "row of $J$:\ngradient descent", "difference",
          "norm of the rows\nof the skew part", "and of the\nsymmetric part")


@dataclass(frozen=True)
class Symmetry(OnDigits):
    """Measure how far J is from symmetric, and where. Example: jacobian-lab symmetry --digits 1 --times 300 700 --shown 500."""

    digits: int = 4
    """Digits of the survey: this many, from `digit` on."""
    times: tuple[int | float, ...] = (100, 200, 300, 400, 500, 600, 700, 800, 900)
    """Noise levels of the survey, 0 (clean) to 999 (noise); of a flow, up to 1."""
    shown: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels at which the first digit's column, row and skew part are drawn."""
    pixel: tuple[int, int] = (16, 16)
    """Row and column, 0 to 31, of the pixel whose column and row of J are drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        check_times(self.shown)
        if not all(0 <= at < size for at, size in zip(self.pixel, SHAPE[1:], strict=True)):
            raise InputError(f"--pixel {self.pixel[0]} {self.pixel[1]} is outside the image: expected row and column, 0 to 31")
        if not 1 <= self.digits <= 5000 - self.digit:
            raise InputError(f"--digits must lie from 1 to {5000 - self.digit}: got {self.digits}")


def compute(config: Symmetry, pieces: Pieces) -> Arrays:
    """Return estimates (times, digits), the first digit's truth, and images at the shown times."""
    denoiser = load_model(config.model, config.device)
    images = mnist.digits("held-out")[0].to(config.device)
    for t in (*config.times, *config.shown):
        denoiser.schedule(t)  # an unknown time is refused before anything is computed
    digits = range(config.digit, config.digit + config.digits)

    def estimate(t: int | float, i: int) -> Arrays:
        found = asymmetry(operator_at(denoiser, images, i, t, config.seed), seed=i)
        return {"value": np.array(found.value), "interval": np.array(found.interval()), "products": np.array(found.products)}

    def truth(t: int | float) -> Arrays:
        J = operator_at(denoiser, images, config.digit, t, config.seed)
        A = J.dense().astype(np.float64)
        p = config.pixel[0] * SHAPE[2] + config.pixel[1]
        energy = [np.sqrt(np.square(A + sign * A.T).sum(1)).reshape(SHAPE) / 2 for sign in (-1, 1)]
        return {"truth": np.array(np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T)), "denoised": J.products.d[0].cpu().numpy(),
                "column": A[:, p].reshape(SHAPE), "row": A[p].reshape(SHAPE), "skew": energy[0], "symmetric": energy[1]}

    work = [(t, i) for t in config.times for i in digits]
    found = [pieces(f"time-{t}-digit-{i}", lambda t=t, i=i: estimate(t, i))  # type: ignore[misc]
             for t, i in tqdm(work, desc="asymmetry", unit="Jacobian")]
    dense = {t: pieces(f"dense-{t}", lambda t=t: truth(t))  # type: ignore[misc]
             for t in tqdm(dict.fromkeys((*config.times, *config.shown)), desc="dense truth", unit="Jacobian")}
    shape = (len(config.times), config.digits)
    return {key: np.stack([f[key] for f in found]).reshape(*shape, *found[0][key].shape) for key in found[0]} | {
        key: np.stack([dense[t][key] for t in config.shown]) for key in ("denoised", "column", "row", "skew", "symmetric")} | {
        "truth": np.array([dense[t]["truth"] for t in config.times]), "times": np.array(config.times),
        "shown": np.array(config.shown), "shown_truth": np.array([dense[t]["truth"] for t in config.shown]),
        "pixel": np.array(config.pixel), "digits": np.array(digits)}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level and digit, then the pixel's column and row at the shown ones."""
    rows: list[Row] = []
    for k, t in enumerate(arrays["times"].tolist()):
        for i, digit in enumerate(arrays["digits"].tolist()):
            low, high = arrays["interval"][k, i].tolist()
            rows.append({"time": t, "digit": digit, "quantity": "asymmetry", "value": float(arrays["value"][k, i]),
                         "low_95": low, "high_95": high, "dense": float(arrays["truth"][k]) if i == 0 else "",
                         "products": int(arrays["products"][k, i])})
    for k, t in enumerate(arrays["shown"].tolist()):
        a, b = arrays["column"][k].reshape(-1), arrays["row"][k].reshape(-1)
        for name, value in (("cosine of the pixel's column and row", a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
                            ("|column - row| / |column + row|", np.linalg.norm(a - b) / np.linalg.norm(a + b))):
            rows.append({"time": t, "digit": int(arrays["digits"][0]), "quantity": name, "value": float(value), "low_95": "",
                         "high_95": "", "dense": "", "products": ""})
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw the asymmetry against the noise level; below, column, row and the place of the skew part at the shown ones."""
    count = len(arrays["shown"])
    figure = Figure(figsize=(7.2, 2.4 + 1.25 * count))
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.2, 1.25 * count])
    top, bottom = parts
    _plot_survey(top.subplots(), arrays)
    panels: Any = bottom.subplots(count, len(TITLES), squeeze=False)
    for k, row in enumerate(panels):
        images = {name: arrays[name][k] for name in ("column", "row", "skew", "symmetric")}
        limit = float(np.abs([images["column"], images["row"]]).max())
        show(row[0], arrays["denoised"][k])
        row[0].set_ylabel(f"$t$ = {arrays['shown'][k]}")
        for panel, image in zip(row[1:4], (images["column"], images["row"], images["column"] - images["row"]), strict=True):
            drawn = show(panel, image, "", limit)
        for panel, edge in zip(row[:4], ("#e69f00", "k", "k", "k"), strict=True):
            panel.plot(*arrays["pixel"][::-1], "s", markersize=4, markerfacecolor="none", markeredgecolor=edge,
                       markeredgewidth=0.6)
        bottom.colorbar(drawn, ax=row[3], pad=0.02, aspect=12)
        for panel, name in zip(row[4:], ("skew", "symmetric"), strict=True):
            bottom.colorbar(panel.imshow(images[name][0], cmap="magma", vmin=0), ax=panel, pad=0.02, aspect=12)
            panel.set(xticks=[], yticks=[])
    for panel, title in zip(panels[0], TITLES, strict=True):
        panel.set_title(title, fontsize=7)
    return figure


def _plot_survey(axes: Any, arrays: Arrays) -> None:  # noqa: ANN401 - axes of matplotlib
    digits, times = arrays["digits"].tolist(), arrays["times"]
    spacing = 12 * (np.arange(len(digits)) - (len(digits) - 1) / 2)
    shades = ("#0072b2", "#cc79a7", "#009e73", "#e69f00", "#56b4e9")
    for i, digit in enumerate(digits):
        value, (low, high) = arrays["value"][:, i], arrays["interval"][:, i].T
        axes.errorbar(times + spacing[i], value, yerr=[value - low, high - value], fmt="o", color=shades[i % len(shades)],
                      elinewidth=1, capsize=2, label=f"digit {digit}")
    axes.plot(times + spacing[0], arrays["truth"], "_", color=COLOURS["skew"], markersize=12, markeredgewidth=1.3,
              label=f"digit {digits[0]}, dense")
    products = f"{int(arrays['products'].mean())} products each, not {np.prod(SHAPE)}"
    axes.set(xlabel="time $t$", ylabel=r"$|J - J^T|_F \,/\, |J + J^T|_F$", ylim=(0, None), xticks=times,
             title=f"Asymmetry of $J$ with 95 % intervals: {products}")
    axes.legend(ncols=2)


STUDY = Study("symmetry", Symmetry, compute, table, plot, models=model_files)

r"""Does the error fall as the spectrum of J predicts? Half-masked samples, the paper's step sizes,
and dense Jacobians.

An inexact step with the mask P and the size lambda sends the error e to `(I - lambda P J^2 P) e`;
the paper's picture is its leading eigenvalue mu alone, a contraction by `|1 - lambda mu^2|` that
diverges from `lambda mu^2 = 2` on. Left, what happens along the sampling trajectory; right of it
and below, at the x_t that each rule visits, what was predicted of the next step. Of a latent model
the mask is on the latent; where J is too large to be dense, its products and 10 Arnoldi steps
predict.

Where the picture holds for the pixel model that ships, and where it does not: the linear model
holds to a percent, but for steps of several units at high noise; the leading eigenvalue alone does
not, for most of e lies outside the leading eigenvectors, ever more so after the first steps, and
the mask takes from them what is left; complex eigenvalues and asymmetry change next to nothing. A
rule `lambda mu^2 = c` is exact in one place only: where its own large steps have driven x_t so far
from the data that J is nearly alpha_t I, every direction is a leading one, and c = 3 doubles the
error at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import mnist
from jacobian_lab import Denoiser, InputError
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, Spectral, StepSize
from mnist.data import SHAPE
from studies.frame.answer import Row
from studies.frame.models import Inputs, Model
from studies.frame.options import OnModel, model_files
from studies.frame.study import Arrays, Pieces, Study
from studies.sampling.contraction import RANKS, contraction

SHADES = ("#0072b2", "#009e73", "#d55e00", "#000000", "#cc79a7", "#56b4e9")
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
SCATTERS = {
    "Linear model": {"linear": ("o", r"$|(I - \lambda P J^2 P)\, e| \,/\, |e|$")},
    "Largest eigenvalue of $J$": {
        "real": ("o", r"$|1 - \lambda |\mu|^2|$"),
        "complex": ("x", r"$|1 - \lambda \mu^2|$"),
    },
    "... and with the mask": {
        "mask": ("o", r"$|1 - \lambda \nu|$"),
        "radius_mask": ("+", r"radius of $I - \lambda P J^2 P$"),
    },
}
TRAJECTORIES = {
    "residual": ("RMSE of the known half", "Error along sampling\n", (1e-4, 10.0)),
    "size": ("root mean square of $x_t$", "Size of $x_t$ under the rules\n", (0.5, 50.0)),
}
LIMIT = 2.5
"""Of the axes of predicted and measured factors; predictions above are drawn at the edge."""


@dataclass(frozen=True)
class Convergence(OnModel):
    """Follow the error along sampling, beside what J predicts. Example: jacobian-lab convergence
    --digits 4 --points 3.
    """

    digits: int = 16
    """Digits: this many, from `digit` on; their left half is known."""
    steps: int = 20
    """Sampling times."""
    newton_steps: int = 3
    """Newton steps at each time."""
    spectral: tuple[float, ...] = (0.5, 1.5, 3.0)
    """Values of lambda mu^2, mu the largest |eigenvalue| by 10 Arnoldi steps at that x_t: a curve
    each.
    """
    change: float = 0.2
    """Of the dynamic rule: largest change of a pixel of x_t in a Newton step; pixels are in [-1,
    1].
    """
    jacobians: int = 3
    """Digits whose dense Jacobians are taken, a backward pass for each entry of x_t."""
    points: int = 5
    """Sampling times at which they are taken, at the first Newton step, for each rule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.digits <= 5000 - self.digit:
            raise InputError(f"--digits must lie from 1 to {5000 - self.digit}: got {self.digits}")
        if self.newton_steps < 1:
            raise InputError(f"--newton-steps must be at least 1: got {self.newton_steps}")
        if not 1 <= self.jacobians <= self.digits:
            raise InputError(
                f"--jacobians must lie from 1 to the number of digits, {self.digits}: got"
                f" {self.jacobians}"
            )
        if not 1 <= self.points <= self.steps:
            raise InputError(
                f"--points must lie from 1 to the number of sampling times, {self.steps}: got"
                f" {self.points}"
            )
        if not all(c > 0 for c in self.spectral) or not self.change > 0:
            raise InputError(
                f"--spectral and --change are step sizes and must be positive: got {self.spectral},"
                f" {self.change}"
            )

    def rules(self) -> dict[str, StepSize]:
        """Return the rules by their names."""
        spectral: dict[str, StepSize] = {f"lambda mu^2 = {c:g}": Spectral(c) for c in self.spectral}
        return spectral | {f"dynamic, {self.change:g}": Dynamic(self.change)}


def compute(config: Convergence, pieces: Pieces) -> Arrays:
    """Return trajectories, (rules, digits, times, steps + 1), and contractions, (rules, points,
    digits of them).
    """
    model = config.load()
    denoiser, inputs = model.denoiser, config.inputs(model, config.digits)
    noise = seeded_noise(
        [seed_of(config.seed, i) for i in inputs.numbers], denoiser.shape, config.device
    )
    constraint = Inpainting(inputs.clean, half(denoiser.shape))
    times, rules = denoiser.schedule.times(config.steps), list(config.rules().values())
    at = np.unique(np.linspace(0, config.steps - 1, config.points).round().astype(int))
    count = min(config.jacobians, len(inputs.numbers))

    def follow(rule: StepSize) -> Arrays:
        found = trajectory(
            denoiser, constraint, noise, times, Newton("inexact", config.newton_steps, rule)
        )
        last = torch.from_numpy(found.pop("last")).to(noise)
        return found | {"agrees": agreement(model, inputs, last), "x_t": found["x_t"][:count, at]}

    def contract(x_t: NDArray[Any], k: int, i: int, rule: StepSize) -> Arrays:
        if not np.isfinite(x_t).all():
            return {}  # the sampler diverged before this point
        progress = k / max(1, config.steps - 1)
        return contraction(
            denoiser,
            torch.from_numpy(x_t[None]).to(noise),
            times[k],
            constraint.select(slice(i, i + 1)),
            rule,
            progress,
        )

    runs = [
        pieces(f"trajectory-{r}", partial(follow, rule))
        for r, rule in enumerate(tqdm(rules, desc="rules", unit="rule"))
    ]
    cells = [(r, p, i) for r in range(len(rules)) for p in range(len(at)) for i in range(count)]
    found = [
        pieces(
            f"jacobian-{r}-{p}-{i}",
            partial(contract, runs[r]["x_t"][i, p], int(at[p]), i, rules[r]),
        )
        for r, p, i in tqdm(cells, desc="dense Jacobians", unit="Jacobian")
    ]
    shape = (len(rules), len(at), count)
    return (
        {key: np.stack([run[key] for run in runs]) for key in ("residual", "size", "agrees")}
        | {
            key: (
                np.stack([cell.get(key, np.full_like(value, np.nan)) for cell in found]).reshape(
                    *shape, *value.shape
                )
            )
            for key, value in found[0].items()
        }
        | {
            "rules": np.array(list(config.rules())),
            "times": np.array(times),
            "at": at,
            "space": np.array(model.space),
            "sizes": np.array([model.size, int(constraint.mask[0].sum())]),
            "scale": np.array(
                [
                    float((alpha_t**2 + sigma_t**2).sqrt())
                    for alpha_t, sigma_t in map(denoiser.schedule, times)
                ]
            ),
        }
    )


@torch.no_grad()
def agreement(model: Model, inputs: Inputs, samples: Tensor) -> NDArray[Any]:
    """Return whether the classifier sees in each sample what was masked, (N,); NaN for images that
    are no digits.
    """
    if model.image_shape != SHAPE:
        return np.full(len(samples), np.nan)
    classifier = mnist.load_classifier(device=model.device)
    labels = classifier(inputs.images).argmax(1) if inputs.labels is None else inputs.labels
    seen = classifier(model.decode(samples.nan_to_num())).argmax(1)
    right: NDArray[Any] = ((seen == labels) & samples.isfinite().flatten(1).all(1)).cpu().numpy()
    return right


def trajectory(
    denoiser: Denoiser,
    constraint: Inpainting,
    noise: Tensor,
    times: list[int] | list[float],
    newton: Newton,
) -> Arrays:
    """Sample, and say how it went; where a digit diverges, the others go on without it.

    Returns
    -------
    dict
        "residual" and "size", the root mean square of x_t, (digits, times, steps + 1); "x_t" before
        each time's first step, (digits, times, C, H, W); "last", the samples. NaN after a digit's
        divergence; its last residual is kept.
    """
    shape = (len(times), newton.steps + 1)
    residual, size = (np.full((len(noise), shape[0] * shape[1]), np.nan) for _ in range(2))
    x_t = np.full((len(noise), len(times), *denoiser.shape), np.nan, dtype=np.float32)
    last, k = torch.full_like(noise, torch.nan), 0
    try:
        states = sample(denoiser, noise, times, constraint, newton)
        for k, state in enumerate(
            tqdm(states, total=shape[0] * shape[1], desc="states", leave=False)
        ):
            assert state.residual is not None
            residual[:, k] = state.residual.cpu().numpy()
            size[:, k] = state.x_t.square().mean((1, 2, 3)).sqrt().cpu().numpy()
            if not state.step:
                x_t[:, k // shape[1]] = state.x_t.cpu().numpy()
        last = state.x0
    except DivergenceError as stop:
        if len(noise) > 1:
            middle = len(noise) // 2
            parts = [
                trajectory(denoiser, constraint.select(part), noise[part], times, newton)
                for part in (slice(None, middle), slice(middle, None))
            ]
            return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        residual[0, len(stop.trace) - 1] = stop.trace[-1][1][0]
    return {
        "residual": residual.reshape(-1, *shape),
        "size": size.reshape(-1, *shape),
        "x_t": x_t,
        "last": last.cpu().numpy(),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return the findings over all points, then each rule's trajectory, then its measured and
    predicted factors.
    """
    rows = [_row("all", "", name, values) for name, values in findings(arrays).items()]
    times = arrays["times"].tolist()
    for r, rule in enumerate(arrays["rules"].tolist()):
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


def plot(arrays: Arrays) -> Figure:
    """Draw error and size of x_t along the trajectories, where e lies, and three predictions
    against what was measured.
    """
    figure = Figure(figsize=(7.2, 5.2))
    top, bottom = figure.subplots(2, 3)
    latent = ", latent" if str(arrays["space"]) == "latent" else ""
    for axes, (key, (label, title, limits)) in zip(top, TRAJECTORIES.items(), strict=False):
        _plot_trajectories(axes, arrays, key, limits)
        axes.set(
            ylabel=label + latent,
            title=title + f"median, 10-90 % of {arrays[key].shape[1]} samples",
        )
    top[1].plot(arrays["scale"], ":", color="#555555", linewidth=0.8)
    top[1].text(
        len(arrays["times"]) - 1,
        arrays["scale"][-1] * 0.93,
        "by rights",
        ha="right",
        va="top",
        fontsize=6,
    )
    _plot_shares(top[2], arrays)
    for axes, (title, names) in zip(bottom, SCATTERS.items(), strict=True):
        for key, (marker, label) in names.items():
            for r, colour in enumerate(SHADES[: len(arrays["rules"])]):
                x, y = arrays[key][r].reshape(-1), arrays["measured"][r].reshape(-1)
                axes.plot(
                    np.minimum(x, LIMIT),
                    y,
                    marker,
                    color=colour,
                    markersize=4 if marker in "os" else 3,
                    markerfacecolor="none",
                    markeredgewidth=0.8,
                    clip_on=False,
                )
            if np.isfinite(arrays[key]).any():
                axes.plot(
                    [],
                    [],
                    marker,
                    color="#333333",
                    markersize=4,
                    markerfacecolor="none",
                    markeredgewidth=0.8,
                    label=label,
                )
        axes.plot([0, LIMIT], [0, LIMIT], color="#999999", linewidth=0.6, zorder=0)
        axes.axhline(1, color="#999999", linewidth=0.6, linestyle=":", zorder=0)
        axes.set(
            title=title,
            xlabel=r"predicted $|e|$ after / before",
            xlim=(0, LIMIT),
            ylim=(0, LIMIT),
            aspect="equal",
        )
        axes.legend(loc="upper left", handletextpad=0.2)
    if np.isfinite(arrays["share"]).any():  # mu is of the dense J
        off = 100 * abs(arrays["arnoldi"] / arrays["mu"] - 1)
        words = (
            f"of the dense $J$; 10 Arnoldi steps\nmiss it by {np.nanmedian(off):.2g} % (median),\n"
            f"{np.nanmax(off):.2g} % (most)"
        )
        bottom[1].text(LIMIT, 0.05, f"$\\mu$ {words}", ha="right", va="bottom", fontsize=6)
    bottom[0].set_ylabel("measured $|e|$ after / before")
    top[0].plot([], [], "x", color="#333333", markeredgewidth=0.8, label="a sample that diverged")
    figure.legend(
        *top[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(arrays["rules"]) + 1,
    )
    return figure


def _plot_trajectories(axes: Axes, arrays: Arrays, key: str, limits: tuple[float, float]) -> None:
    """Draw median and 10 to 90 % against the state; a digit that diverged counts as infinite, and a
    cross marks its end.
    """
    _, count, times, states = arrays[key].shape
    x = (np.arange(times)[:, None] + np.arange(states) / states).reshape(-1)
    for values, rule, colour in zip(arrays[key], arrays["rules"], SHADES, strict=False):
        curves = values.reshape(count, -1)
        low, middle, high = np.quantile(
            np.where(np.isfinite(curves), np.minimum(curves, limits[1]), limits[1]),
            (0.1, 0.5, 0.9),
            axis=0,
            method="nearest",
        )
        axes.plot(
            x,
            middle,
            color=colour,
            linewidth=1,
            label=rule.replace("lambda mu^2", r"$\lambda \mu^2$"),
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ends = np.isfinite(curves).sum(1) - 1
        for i in np.flatnonzero(ends < len(x) - 1):
            axes.plot(
                x[ends[i]],
                min(curves[i, ends[i]], limits[1]),
                "x",
                color=colour,
                markeredgewidth=0.8,
                clip_on=False,
            )
    ticks = np.linspace(0, times - 1, 5).round().astype(int)
    axes.set(
        yscale="log",
        ylim=limits,
        xlabel="time $t$",
        xticks=ticks,
        xticklabels=[f"{arrays['times'][k]:g}" for k in ticks],
    )


def _plot_shares(axes: Axes, arrays: Arrays) -> None:
    """Draw the share of e in leading eigenspaces at the dynamic rule's points: first, middle and
    last time.
    """
    if not np.isfinite(arrays["share"]).any():
        axes.set_axis_off()
        axes.text(
            0.5,
            0.5,
            "J is too large\nfor its eigenspaces",
            ha="center",
            va="center",
            transform=axes.transAxes,
        )
        return
    points = sorted({0, len(arrays["at"]) // 2, len(arrays["at"]) - 1})
    for p, shade in zip(points, ("#000000", "#7a7a7a", "#bdbdbd"), strict=False):
        for key, line, size in (
            ("share", "-", arrays["sizes"][0]),
            ("share_mask", "--", arrays["sizes"][1]),
        ):
            axes.plot(
                np.minimum(RANKS, size),
                np.nanmean(arrays[key][-1, p], axis=0),
                line,
                color=shade,
                label=f"$t$ = {arrays['times'][arrays['at'][p]]:g}" if key == "share" else None,
            )
    axes.plot([], [], "-", color="#333333", label="of $J$")
    axes.plot([], [], "--", color="#333333", label="of $P J^2 P$")
    axes.set(
        xscale="log",
        xlabel="number of leading eigenvectors",
        ylabel=r"share of $|e|^2$ in their span",
        ylim=(0, 1),
        title="Where the error lies\nunder the dynamic rule",
    )
    axes.legend(
        loc="lower right", fontsize=6, handlelength=1.6, labelspacing=0.3, borderaxespad=0.2
    )


STUDY = Study(
    "convergence",
    Convergence,
    compute,
    table,
    plot,
    models=lambda config: {**model_files(config), "classifier": "classifier"},
)

"""Samples that must reproduce an observation, y = A x: what the studies `inpaint` and `superres`
compute, tell and draw.

Images are scored as they are, decoded if the model's space is latent. What the autoencoder makes of
the truth is then scored with them: it bounds what can be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.sampling.newton import Aim, Newton
from studies.frame.answer import Answer, Row
from studies.frame.dataset import ALONG, IMAGE, SUBJECT, Variable
from studies.frame.figure_style import COLOURS
from studies.frame.figure_text import subject, write_subject
from studies.frame.model_files import LATENT
from studies.frame.models import Inputs, Model
from studies.frame.panels import grid, plot_along, tiles
from studies.frame.statistics import fidelity, fraction_interval, mean_interval, scores
from studies.frame.study import Arrays, Pieces
from studies.sampling.constrained import in_batches, sample_images, spent
from studies.sampling.inputs import OfDigits

SAMPLED, PROJECTED, FREE, AUTOENCODER = "sampled", "projected", "unconstrained", "autoencoder"
SHOWN = 6
ROWS = 3
LARGE = 32
"""Pixels on a side, beyond which an image is shown large."""
VARIABLES = {
    **SUBJECT,
    **ALONG,
    "method": Variable("method", "how the images were made"),
    "sample": Variable("sample", "digit or image"),
    "digit": Variable("sample", "number of the digit or image", coordinate=True),
    "project": Variable("", "whether the answer is the projected sample"),
    "truth": Variable(f"sample {IMAGE}", "the image"),
    "observed": Variable(f"sample {IMAGE}", "what is observed of it; NaN where it is unknown"),
    "images": Variable(f"method sample draw {IMAGE}", "images that each method gives"),
    "missing": Variable("method sample draw", "RMSE of what is observed"),
    "psnr": Variable("method sample draw", "PSNR to the image", "dB"),
    "ssim": Variable("method sample draw", "structural similarity to the image"),
    "agreement": Variable("method sample draw", "whether the judge sees the digit"),
    "free_passes": Variable("drawn pass", "the same of unconstrained samples"),
}
ANSWER = Answer(
    (
        "method",
        "digits",
        "rmse_of_the_observed_mean",
        "rmse_median",
        "psnr",
        "ssim",
        "agreement",
        "forward_passes",
    )
)
LATENT_TEMPERATURE = 0.5
"""Of mnist-latent: 0.4 to 0.6 dB more than at 1 and one or two digits of a hundred, by inpaint with
three seeds (0.25 and 0 are level with it) and by superres with one.
"""
SCORES = {"psnr": "PSNR, dB", "agreement": "judge agrees, share"}


@dataclass(frozen=True)
class Observed(OfDigits):
    """Options of a study of noiseless linear observations."""

    project: bool = False
    """Show the samples after the exact projection onto the observation; the table has both."""
    aim: Aim = "likeliest"
    """"likeliest": Newton steps move x_t towards what is observed. "fair": samples of p(x | y),
    from the mean of x given x_t and y, by --newton-steps products J v at each time, forward passes
    only; in pixels, or of masks --through latents. --direction, --rule, --change,
    --tolerance and --temperature are of likeliest.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = type(self).__dataclass_fields__
        for name in ("direction", "rule", "change", "tolerance", "temperature"):
            if self.aim == "fair" and getattr(self, name) != fields[name].default:
                raise InputError(
                    f"--aim fair leaves x_t as the posterior has it: leave --{name} out, or take"
                    " --aim likeliest"
                )

    def noise_factor(self) -> float:
        """Return the factor of all noise."""
        if self.temperature is None and self.aim == "likeliest" and self.model == LATENT:
            return LATENT_TEMPERATURE
        return super().noise_factor()

    def newton(self) -> Newton:
        """Return how the sampler takes its Newton steps."""
        return Newton.fair(self.newton_steps) if self.aim == "fair" else super().newton()

    def carried(self, wanted: Constraint, model: Model) -> Constraint:
        """Return what is wanted of images as what is wanted in the model's space; raise unless fair
        samples can be drawn of it.
        """
        goal = super().carried(wanted, model)
        if self.aim == "fair" and not isinstance(goal, LinearConstraint):
            raise InputError(
                "--aim fair is for observations that are linear in what the model denoises, and"
                f" decoded latents are not: got --through {self.through}. Take --aim likeliest, or"
                " for a mask --through latents"
            )
        return goal


def sample_and_score(
    config: Observed,
    pieces: Pieces,
    model: Model,
    problem: LinearConstraint,
    truth: Inputs | None,
    others: Mapping[str, Tensor],
    names: Sequence[str] = ("image",),
) -> Arrays:
    """Return samples and their scores.

    Parameters
    ----------
    problem : LinearConstraint
        What is observed, of N images, without noise.
    truth : Inputs or None
        The images, which scores compare with, if they are known.
    others : mapping
        Images by other methods, (N, c, H, W), which are scored too.
    names : sequence of str
        Names of N unknown images.

    Returns
    -------
    dict
        "method"; "images" (methods, N, samples, c, H, W); "missing", the residual of each, and
        with a truth the scores "psnr", "ssim", of digits "agreement"; "residual" (N samples, times,
        steps + 1) along sampling; "passes", "time", "digit", "sample".
    """
    numbers = truth.numbers if truth else range(config.digit, config.digit + len(names))
    seeds, owner = (
        config.seeds(numbers),
        torch.arange(len(numbers)).repeat_interleave(config.samples),
    )
    drawn = sample_images(
        config, model, seeds, pieces, "constrained", lambda part: problem.select(owner[part])
    )
    free = sample_images(config, model, seeds, pieces, "unconstrained")
    every = problem.select(owner)
    sampled, unconstrained = (
        torch.from_numpy(run["images"]).to(problem.y) for run in (drawn, free)
    )
    if truth and model.space == "latent":
        others = {AUTOENCODER: in_batches(model.decode, truth.clean, model), **others}
    images = {SAMPLED: sampled, PROJECTED: every.project(sampled), FREE: unconstrained} | {
        name: image[owner] for name, image in others.items()
    }
    found: dict[str, list[NDArray[Any]]] = {}
    for image in images.values():
        values = {"images": image.cpu().numpy(), "missing": _missing(image, every)}
        for key, value in (values | (_scores(image, truth, owner) if truth else {})).items():
            found.setdefault(key, []).append(
                value.reshape(len(numbers), config.samples, *value.shape[1:])
            )
    return (
        {key: np.stack(values) for key, values in found.items()}
        | {
            "method": np.array(list(images)),
            "residual": drawn["residual"],
            "passes": drawn["passes"],
            "free_passes": free["passes"],
            "time": np.array(config.times(model.denoiser)),
            **subject(config),
            "digit": np.array(numbers),
            "sample": np.array(truth.names if truth else names),
            "project": np.array(config.project),
        }
        | ({"truth": truth.images.cpu().numpy()} if truth else {})
    )


def _missing(images: Tensor, problem: LinearConstraint) -> NDArray[Any]:
    """Return the residuals; NaN for images that diverged, whatever they were projected to."""
    diverged = images.flatten(1).isnan().any(1)
    return torch.where(diverged, torch.nan, problem.residual(images)).cpu().numpy()


def _scores(images: Tensor, truth: Inputs, owner: Tensor) -> dict[str, NDArray[Any]]:
    """Return what images are worth beside the truth; what they show is judged of digits only."""
    if truth.labels is None:
        return fidelity(images, truth.images[owner])
    judged = scores(
        images,
        truth.images[owner],
        truth.labels[owner],
        mnist.load_classifier(device=images.device),
    )
    return {key: judged[key] for key in ("psnr", "ssim", "agreement")}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each method: the residual, then scores with 95 % intervals over the digits,
    then passes. Samples that diverged are counted; they agree with nothing, and means leave them
    out.
    """
    rows: list[Row] = []
    digits, samples = arrays["missing"].shape[1:]
    passes = {SAMPLED: arrays["passes"], PROJECTED: arrays["passes"], FREE: arrays["free_passes"]}
    for m, method in enumerate(arrays["method"].tolist()):
        missing = arrays["missing"][m]
        row: Row = {
            "method": method,
            "digits": digits,
            "samples_of_each": samples,
            "diverged": int(np.isnan(missing).sum()),
            "rmse_of_the_observed_mean": float(np.nanmean(missing)),
            "rmse_median": float(np.nanmedian(missing)),
            "rmse_largest": float(np.nanmax(missing)),
        }
        for key in ("psnr", "ssim", "agreement"):
            if key in arrays:
                value, low, high = interval(arrays[key][m], key)
                row |= {key: value, f"{key}_low": low, f"{key}_high": high}
        rows.append(row | spent(passes.get(method, np.zeros((1, 3), dtype=int))))
    return rows


def interval(values: NDArray[Any], key: str) -> tuple[float, float, float]:
    """Return the mean of (digits, samples) and its 95 % interval; digits are the independent
    trials, not samples. What is not a number is left out.
    """
    means = np.nanmean(values[~np.isnan(values).all(1)], 1)
    return fraction_interval(means) if key == "agreement" else mean_interval(means)


def plot(arrays: Arrays, observed: Mapping[str, NDArray[Any]], title: str, label: str) -> Figure:
    """Draw images, in a row for each method or, large ones, side by side; with them the residual
    along sampling, and scores.

    Parameters
    ----------
    observed : mapping
        Rows of images, (N, c, H, W), below the truth.
    title, label : str
        Of the residual and of its axis.
    """
    methods, names = arrays["method"].tolist(), arrays["sample"].tolist()[:SHOWN]
    shown = PROJECTED if arrays["project"] else SAMPLED
    sampled = arrays["images"][methods.index(shown)]
    rows = [
        *([("truth", arrays["truth"])] if "truth" in arrays else []),
        *observed.items(),
        *((f"{shown} {k + 1}", sampled[:, k]) for k in range(min(ROWS, sampled.shape[1]))),
        *(
            (method, arrays["images"][methods.index(method), :, 0])
            for method in (FREE, AUTOENCODER)
            if method in methods
        ),
    ]
    scored = [key for key in SCORES if key in arrays]
    if sampled.shape[-1] > LARGE:
        figure = Figure(figsize=(7.2, 1.95 * -(-len(rows) // 4) + 2.2))
        parts: Any = figure.subfigures(2, 1, height_ratios=(1.95 * -(-len(rows) // 4), 2.2))
        tiles(parts[0], [(name, images[0]) for name, images in rows])
        panels = parts[1].subplots(1, 1 + len(scored), squeeze=False)[0]
    else:
        width = 0.9 + 0.6 * len(names)
        figure = Figure(figsize=(width + 3.4, max(4.2, 0.62 * len(rows) + 0.3)))
        parts = figure.subfigures(1, 2, width_ratios=(width, 3.4))
        grid(parts[0], [(name, images[:SHOWN]) for name, images in rows], names)
        panels = parts[1].subplots(
            1 + len(scored), 1, squeeze=False, height_ratios=[1.6, *[1.0] * len(scored)]
        )[:, 0]
    write_subject(figure, arrays, "bars: 95 % intervals")
    plot_along(panels[0], arrays["residual"], arrays["time"], COLOURS["inexact"])
    panels[0].set(
        ylabel=label, title=f"{title}\n{len(arrays['residual'])} samples: median, 10-90 %"
    )
    for axes, key in zip(panels[1:], scored, strict=True):
        _plot_scores(axes, arrays, key)
    return figure


def _plot_scores(axes: Axes, arrays: Arrays, key: str) -> None:
    """Draw a score of each method with its interval."""
    found = dict(zip(arrays["method"].tolist(), arrays[key], strict=True))
    if np.isclose(found[SAMPLED].mean(), found[PROJECTED].mean(), rtol=0.005):
        both = found.pop(SAMPLED), found.pop(PROJECTED)
        found = {f"{SAMPLED} or {PROJECTED}": both[0], **found}
    methods = list(found)
    for m, method in enumerate(methods):
        value, low, high = interval(found[method], key)
        colour = COLOURS["inexact"] if method.startswith((SAMPLED, PROJECTED)) else "#555555"
        axes.plot([low, high], [m, m], color=colour, linewidth=1)
        axes.plot(value, m, "o", color=colour, markersize=4, clip_on=False)
    axes.set(
        yticks=range(len(methods)),
        yticklabels=methods,
        ylim=(len(methods) - 0.5, -0.5),
        xlabel=SCORES[key],
    )
    if key == "agreement":
        axes.set_xlim(0, 1)

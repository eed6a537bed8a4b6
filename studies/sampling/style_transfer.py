"""Does the style of an image carry over to others? Samples whose features have the Gram matrices of
a given image's.

For digits, style is measured apart from the loss too, by what one sees of handwriting: the
thickness of the strokes and their slant.
"""

from __future__ import annotations

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
from jacobian_lab.constraints.losses import style
from mnist.data import SHAPE
from studies.frame.answer import Row
from studies.frame.figure_style import COLOURS
from studies.frame.inputs import OfDigits
from studies.frame.model_files import is_gray
from studies.frame.models import is_latent
from studies.frame.statistics import mean_interval
from studies.frame.study import Arrays, Pieces, Study
from studies.sampling.constrained import draw, grid, plot_along, spent
from studies.sampling.style_features import CLASSIFIER, CLIP, clip_hash, load_features

SHOWN = 4
TRAITS = {"thickness": "thickness of strokes, pixels", "slant": "slant, tangent of the angle"}


@dataclass(frozen=True)
class StyleTransfer(OfDigits):
    """Draw images in the style of others. Example: jacobian-lab style --digit 1270 --digits 4
    --layers body.2 body.5.
    """

    digit: int = 1270
    """First held-out digit that gives its style, 0 to 4999; 1270 to 1279 differ much in thickness
    and slant.
    """
    digits: int = 10
    """Styles: of this many digits, from `digit` on."""
    samples: int = 4
    """Noises, each drawn in each style."""
    features: str | None = None
    """What the style is read off: "classifier", of digits, their default; or a CLIP vision model's
    folder or hub id, from the local cache, by default for other images
    openai/clip-vit-base-patch16.
    """
    layers: tuple[str, ...] = ()
    """Its layers whose Gram matrices are the style: any modules, by name. By default of the
    classifier body.2 and body.5, from body.8 on they bring the digit itself along; of CLIP the
    second block, vision_model.encoder.layers.1.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source != CLASSIFIER:
            self.hashes["features"] = clip_hash(self.source)

    @property
    def source(self) -> str:
        """What the style is read off."""
        return self.features or (
            CLASSIFIER if not is_latent(self.model) or is_gray(self.model) else CLIP
        )


def thickness(images: Tensor) -> Tensor:
    """Return the mean width of the strokes in pixels, (N,): twice the area of the ink over the
    length of its edge.
    """
    ink = (images.clamp(-1, 1)[:, 0] + 1) / 2
    down, right = ink[:, 1:, :-1] - ink[:, :-1, :-1], ink[:, :-1, 1:] - ink[:, :-1, :-1]
    return 2 * ink.sum((1, 2)) / (down**2 + right**2).sqrt().sum((1, 2)).clamp(min=1e-6)


def slant(images: Tensor) -> Tensor:
    """Return the tangent of the angle between strokes and vertical, (N,), positive to the right: by
    moments of the ink.
    """
    ink = (images.clamp(-1, 1)[:, 0] + 1) / 2
    ink = ink / ink.sum((1, 2), keepdim=True).clamp(min=1e-6)
    up, right = (
        -torch.arange(ink.shape[1])[:, None].to(ink),
        torch.arange(ink.shape[2])[None].to(ink),
    )
    up, right = (at - (ink * at).sum((1, 2), keepdim=True) for at in (up, right))
    return (ink * up * right).sum((1, 2)) / (ink * up**2).sum((1, 2)).clamp(min=1e-6)


def compute(config: StyleTransfer, pieces: Pieces) -> Arrays:
    """Return "images" (noises, styles, ...), the style loss before and after, and of digits
    thickness and slant of all.
    """
    model = config.load()
    given, noises = config.inputs(model), config.noise_seeds()
    if config.source == CLASSIFIER and model.image_shape != SHAPE:
        raise InputError(
            f"--features classifier is of digits, {SHAPE}, and --model {config.model} makes images"
            f" of {model.image_shape}: name the folder or hub id of a CLIP vision model, such as"
            f" {CLIP}"
        )
    features = load_features(config.source, config.layers, config.device)
    owner = torch.arange(len(given.images)).repeat(len(noises))
    drawn = draw(
        config,
        model,
        [seed for seed in noises for _ in given.numbers],
        pieces,
        "styled",
        lambda part: style(given.images[owner[part]], features),
    )
    free = draw(config, model, noises, pieces, "unconstrained")
    shape = (len(noises), len(given.images))
    styled, unconstrained = (
        torch.from_numpy(run["images"]).to(config.device) for run in (drawn, free)
    )
    before = style(given.images[owner], features).residual(
        unconstrained.repeat_interleave(shape[1], 0)
    )
    found = {"style": given.images, "free": unconstrained, "styled": styled}
    arrays: Arrays = {
        "numbers": np.array(given.numbers),
        "names": np.array(given.names),
        "passes": drawn["passes"],
        "residual": drawn["residual"],
        "times": np.array(config.times(model.denoiser)),
        "before": before.cpu().numpy().reshape(shape),
        "after": drawn["residual"][:, -1, -1].reshape(shape),
    }
    for name, images in found.items():
        values = {name: images} | ({} if given.labels is None else _traits(name, images))
        arrays |= {
            key: _shaped(value, shape if name == "styled" else (len(images),))
            for key, value in values.items()
        }
    return arrays | ({} if given.labels is None else {"labels": given.labels.cpu().numpy()})


@torch.no_grad()
def _traits(name: str, images: Tensor) -> dict[str, Tensor]:
    """Return what one sees of digits, and what the judge names them."""
    named = mnist.load_classifier(device=images.device)(images.clamp(-1, 1)).argmax(1)
    return {
        f"{name}_named": named,
        f"{name}_thickness": thickness(images),
        f"{name}_slant": slant(images),
    }


def _shaped(values: Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    return values.cpu().numpy().reshape(*shape, *values.shape[1:])


def table(arrays: Arrays) -> list[Row]:
    """Return the loss and the traits of each style, then of all together, with 95 % intervals over
    the noises.
    """
    rows: list[Row] = []
    passes = spent(arrays["passes"])

    def row(digit: str, quantity: str, values: NDArray[Any], target: str | float = "") -> None:
        mean, low, high = mean_interval(values)
        rows.append(
            {
                "style_of_digit": digit,
                "quantity": quantity,
                "of_the_style": target,
                "mean": mean,
                "low": low,
                "high": high,
                **passes,
            }
        )

    traits = TRAITS if "labels" in arrays else {}
    for i, number in enumerate(name.removeprefix("digit ") for name in arrays["names"].tolist()):
        row(number, "style loss, unconstrained", arrays["before"][:, i], 0.0)
        row(number, "style loss", arrays["after"][:, i], 0.0)
        for trait in traits:
            row(
                number,
                f"{trait}, unconstrained",
                arrays[f"free_{trait}"],
                float(arrays[f"style_{trait}"][i]),
            )
            row(number, trait, arrays[f"styled_{trait}"][:, i], float(arrays[f"style_{trait}"][i]))
    row("all", "style loss, unconstrained", arrays["before"].mean(1), 0.0)
    row("all", "style loss", arrays["after"].mean(1), 0.0)
    if not traits:
        return rows
    for trait in traits:
        if len(arrays["numbers"]) > 2:
            row(
                "all",
                f"correlation of {trait} with the style's",
                np.array(
                    [
                        np.corrcoef(one, arrays[f"style_{trait}"])[0, 1]
                        for one in arrays[f"styled_{trait}"]
                    ]
                ),
            )
    for name, named in (
        ("", arrays["styled_named"]),
        (", unconstrained", arrays["free_named"][:, None]),
    ):
        row(
            "all",
            f"share that the judge names as the style's digit{name}",
            (named == arrays["labels"]).mean(1),
        )
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw noise by style; below, the loss along sampling, and of digits thickness and slant
    against the style's.
    """
    count, digits = min(SHOWN, len(arrays["free"])), "labels" in arrays
    tall, low = (0.62 * count + 0.82, 2.38) if digits else (0.2 + 13 / (1 + count), 2.2)
    figure = Figure(figsize=(7.2, tall + low))
    parts: Any = figure.subfigures(2, 1, height_ratios=(tall, low))
    if digits:
        grid(
            parts[0],
            [
                ("style of", [None, *arrays["style"]]),
                *((f"noise {k}", [arrays["free"][k], *arrays["styled"][k]]) for k in range(count)),
            ],
            ["free", *(name.removeprefix("digit ") for name in arrays["names"].tolist())],
        )
    else:
        grid(
            parts[0],
            [
                ("free", [arrays["style"][0], *arrays["free"][:count]]),
                ("styled", [None, *arrays["styled"][:count, 0]]),
            ],
            ["style of", *(f"noise {k}" for k in range(count))],
        )
    left, *others = parts[1].subplots(1, 1 + len(TRAITS) * digits, squeeze=False)[0]
    plot_along(left, arrays["residual"], arrays["times"], COLOURS["inexact"])
    left.axhline(
        np.median(arrays["before"]),
        color="#999999",
        linewidth=0.8,
        linestyle="--",
        label="unconstrained, median",
    )
    left.set(
        ylabel="style loss",
        title=f"Style loss along sampling\nmedian, 10-90 % of {len(arrays['residual'])} samples",
    )
    left.legend(loc="lower left")
    for axes, (trait, label) in zip(others, TRAITS.items(), strict=False):
        _plot_trait(axes, arrays, trait)
        axes.set(
            xlabel=f"{label.split(',')[0]} of the style", ylabel=label, title=trait.capitalize()
        )
    if digits:
        parts[1].legend(*others[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


def _plot_trait(axes: Axes, arrays: Arrays, trait: str) -> None:
    """Draw a trait of the samples, and of those drawn freely from the same noise, against that of
    the style.
    """
    wanted, free, styled = (arrays[f"{name}_{trait}"] for name in ("style", "free", "styled"))
    axes.plot(wanted, wanted, "-", color="#999999", linewidth=0.6)
    for values, label, colour in (
        (np.broadcast_to(free[:, None], styled.shape), "unconstrained", "#b0b0b0"),
        (styled, "in the style", COLOURS["inexact"]),
    ):
        axes.plot(
            np.broadcast_to(wanted, styled.shape).reshape(-1),
            values.reshape(-1),
            "o",
            color=colour,
            markersize=3,
            markerfacecolor="none",
            markeredgewidth=0.8,
            label=label,
        )


STUDY = Study("style", StyleTransfer, compute, table, plot, models=StyleTransfer.models)

"""Does the style of an image carry over to others? Samples whose features have the Gram matrices of
a given image's.

For digits, style is measured apart from the loss too, by what one sees of handwriting: the
thickness of the strokes and their slant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.losses import style
from mnist.data import SHAPE
from studies.frame.answer import Answer, Row
from studies.frame.figure_text import subject
from studies.frame.models import Model, may_be_of_digits
from studies.frame.statistics import Interval, class_of, fraction_interval, mean_interval
from studies.frame.study import Arrays, Pieces, Study
from studies.sampling.constrained import sample_images, spent
from studies.sampling.inputs import OfDigits
from studies.sampling.style_features import CLASSIFIER, CLIP, clip_hash, load_features
from studies.sampling.style_plot import TRAITS, VARIABLES, plot


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
        return self.features or (CLASSIFIER if may_be_of_digits(self.model) else CLIP)


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
    _check_features(config, model)
    features = load_features(config.source, config.layers, config.device)
    owner = torch.arange(len(given.images)).repeat(len(noises))
    drawn = sample_images(
        config,
        model,
        [seed for seed in noises for _ in given.numbers],
        pieces,
        "styled",
        lambda part: style(given.images[owner[part]], features),
    )
    free = sample_images(config, model, noises, pieces, "unconstrained")
    shape, digits = (len(noises), len(given.images)), given.labels is not None
    styled, unconstrained = (
        torch.from_numpy(run["images"]).to(config.device) for run in (drawn, free)
    )
    before = style(given.images[owner], features).residual(
        unconstrained.repeat_interleave(shape[1], 0)
    )
    return {
        "digit": np.array(given.numbers),
        "given": np.array(given.names),
        "passes": drawn["passes"],
        "residual": drawn["residual"],
        "time": np.array(config.times(model.denoiser)),
        **subject(config),
        "before": before.cpu().numpy().reshape(shape),
        "after": drawn["residual"][:, -1, -1].reshape(shape),
        **seen("style", given.images, digits),
        **seen("free", unconstrained, digits),
        **{
            key: value.reshape(*shape, *value.shape[1:])
            for key, value in seen("styled", styled, digits).items()
        },
        **({} if given.labels is None else {"labels": given.labels.cpu().numpy()}),
    }


def _check_features(config: StyleTransfer, model: Model) -> None:
    """Raise where the style of other images would be read off a classifier of digits."""
    if config.source == CLASSIFIER and not model.digits:
        raise InputError(
            f"--features classifier is of digits, {SHAPE}, and --model {config.model} makes images"
            f" of {model.image_shape}: name the folder or hub id of a CLIP vision model, such as"
            f" {CLIP}"
        )


@torch.no_grad()
def seen(name: str, images: Tensor, digits: bool) -> Arrays:
    """Return images, (N, ...), under a name, and of digits what one sees of them and what the judge
    names them.
    """
    found = {name: images}
    if digits:
        logits = mnist.load_classifier(device=images.device)(images.clamp(-1, 1))
        found |= {
            f"{name}_named": class_of(logits),
            f"{name}_thickness": thickness(images),
            f"{name}_slant": slant(images),
        }
    return {key: value.cpu().numpy() for key, value in found.items()}


def table(arrays: Arrays) -> list[Row]:
    """Return the loss and the traits of each style, then of all together, with 95 % intervals over
    the noises.
    """
    rows: list[Row] = []
    for i, number in enumerate(name.removeprefix("digit ") for name in arrays["given"].tolist()):
        rows += [
            _row(number, "style loss, unconstrained", arrays["before"][:, i], 0.0),
            _row(number, "style loss", arrays["after"][:, i], 0.0),
        ]
        for trait in TRAITS if "labels" in arrays else {}:
            target = float(arrays[f"style_{trait}"][i])
            rows += [
                _row(number, f"{trait}, unconstrained", arrays[f"free_{trait}"], target),
                _row(number, trait, arrays[f"styled_{trait}"][:, i], target),
            ]
    rows += [
        _row("all", "style loss, unconstrained", arrays["before"].mean(1), 0.0),
        _row("all", "style loss", arrays["after"].mean(1), 0.0),
    ]
    if "labels" in arrays:
        rows += _carried_over(arrays)
    passes = spent(arrays["passes"])
    return [row | passes for row in rows]


def _row(
    digit: str,
    quantity: str,
    values: NDArray[Any],
    target: str | float = "",
    interval: Callable[[NDArray[Any]], Interval] = mean_interval,
) -> Row:
    mean, low, high = interval(values)
    return {
        "style_of_digit": digit,
        "quantity": quantity,
        "of_the_style": target,
        "mean": mean,
        "low": low,
        "high": high,
    }


def _of_correlations(values: NDArray[Any]) -> Interval:
    """Return the mean correlation and its interval on Fisher's scale; of fewer than four, none."""
    mean, low, high = mean_interval(np.arctanh(np.clip(values, -1 + 1e-9, 1 - 1e-9)))
    if len(values) < 4:
        low = high = float("nan")
    return float(np.tanh(mean)), float(np.tanh(low)), float(np.tanh(high))


def _carried_over(arrays: Arrays) -> list[Row]:
    """Return how the traits of all digits follow their styles', and how often the judge names the
    style's digit.
    """
    rows = []
    for trait in TRAITS if len(arrays["digit"]) > 2 else ():
        wanted, styled = arrays[f"style_{trait}"], arrays[f"styled_{trait}"]
        correlations = np.array([np.corrcoef(one, wanted)[0, 1] for one in styled])
        quantity = f"correlation of {trait} with the style's"
        rows.append(_row("all", quantity, correlations, interval=_of_correlations))
    for suffix, seen_as in (
        ("", arrays["styled_named"]),
        (", unconstrained", arrays["free_named"][:, None]),
    ):
        rows.append(
            _row(
                "all",
                f"share that the judge names as the style's digit{suffix}",
                (seen_as == arrays["labels"]).mean(1),
                interval=fraction_interval,
            )
        )
    return rows


ANSWER = Answer(("quantity", "of_the_style", "mean"), lambda row: row["style_of_digit"] == "all")
STUDY = Study(
    "style",
    StyleTransfer,
    compute,
    table,
    plot,
    models=StyleTransfer.models,
    answer=ANSWER,
    variables=VARIABLES,
)

"""How good is a denoiser, and how healthy its Jacobian? The scores of the model card come from
here.

Held-out error per noise level; the trace and asymmetry of J beside what a posterior mean's would
be; samples, and their distance to real digits beside the distance between two disjoint halves of
real digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import mnist
from jacobian_lab import InputError
from jacobian_lab.sampling.sampler import seed_of
from mnist.classifier import accuracy
from mnist.evaluate import (
    ddim_samples,
    distances,
    health,
    health_by_products,
    noisy_digit,
    squared_errors,
)
from mnist.weights import read_card, write_card
from studies.frame.answer import Answer, Row
from studies.frame.figure_text import subject
from studies.frame.models import ORACLE, Model, is_of_digits
from studies.frame.options import OnModel, judged_files
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect
from studies.jacobian.evaluate_report import VARIABLES, plot, summary

GRID = 64
"""Samples that are shown."""
PRINTED = (
    "epsilon_error",
    "trace",
    "trace_by_tweedie",
    "asymmetry",
    "frechet_samples_to_real",
    "frechet_real_to_real",
    "judge_accuracy_held_out",
)
"""Scores that are printed."""
HEALTH = ("trace", "asymmetry", "smallest", "largest", "trace_error", "asymmetry_error")


@dataclass(frozen=True)
class Evaluate(OnModel):
    """Score a denoiser on held-out digits, or on your images. Example: jacobian-lab evaluate
    --samples 500 --jacobians 1.
    """

    times: tuple[int | float, ...] = (50, 100, 200, 300, 400, 500, 600, 700, 800, 900)
    """Noise levels, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    digits: int = 5000
    """Held-out digits for the error, at each noise level."""
    jacobians: int = 10
    """Held-out digits whose dense Jacobian is taken, at each noise level."""
    samples: int = 2500
    """Samples for the distances; as many real digits stand on either side of the calibration."""
    steps: int = 50
    """DDIM steps per sample."""
    record: bool = False
    """Write the scores into the model's card."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (
            ("digits", 5000 - self.digit),
            ("jacobians", 5000 - self.digit),
            ("samples", 2500),
            ("steps", 1000),
        ):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"--{name} must lie from 1 to {most}: got {getattr(self, name)}")
        check_times(self.times)
        if self.record and (self.model == ORACLE or not is_of_digits(self.model)):
            raise InputError(f"--record writes into a model's card, and {self.model} has none")
        if self.record and self.images:
            raise InputError("--record writes scores on held-out digits: leave --images out")
        if self.samples < 64:
            raise InputError(
                f"--samples must be at least 64, the samples that are shown: got {self.samples}"
            )


def compute(config: Evaluate, pieces: Pieces) -> Arrays:
    """Return errors and health per noise level, distances, and 64 samples."""
    model = config.load()
    denoiser = model.denoiser
    images, labels = clean_samples(config, model)
    looked_at = images if labels is None else images[config.digit :][: config.digits]
    coefficients = [tuple(map(float, denoiser.schedule(t))) for t in config.times]
    arrays = collect(
        pieces, "noise levels", lambda t: at_level(config, model, looked_at, t), time=config.times
    )
    count = config.samples if model.digits else GRID
    drawn = pieces("samples", lambda: samples_of(config, model, count))["samples"]
    samples = torch.from_numpy(drawn).to(config.device)
    if labels is not None:
        arrays |= distances_to_real(config, images, labels, samples)
    arrays |= {
        "time": np.array(config.times),
        "steps": np.array(config.steps),
        "samples": np.array(count),
        **subject(config),
        "alpha": np.array([a for a, _ in coefficients]),
        "sigma": np.array([s for _, s in coefficients]),
        "n": np.array(images[0].numel()),
        "grid": samples[:GRID].cpu().numpy(),
    }
    if config.record:
        write_scores(config, arrays)
    return arrays


def clean_samples(config: Evaluate, model: Model) -> tuple[Tensor, Tensor | None]:
    """Return clean samples in the model's space, and labels if the judge is to score: digits in
    pixels.
    """
    if not config.images and model.digits and model.space == "pixels":
        images, labels = mnist.digits("held-out")
        return images.to(model.device, model.dtype), labels.to(model.device)
    return config.inputs(model, config.digits).clean, None


def at_level(config: Evaluate, model: Model, images: Tensor, t: int | float) -> Arrays:
    """Return the squared errors at one noise level, (images,), and the health of J, (jacobians,)
    each.
    """
    denoiser = model.denoiser
    squared = squared_errors(denoiser, images, t, config.seed)
    of = health if model.is_dense else health_by_products
    found = [
        of(denoiser, noisy_digit(denoiser, images[i], t, config.seed, i), t)
        for i in range(min(config.jacobians, len(images)))
    ]
    return {
        "squared": squared.cpu().double().numpy(),
        **{name: np.array([getattr(h, name) for h in found]) for name in HEALTH},
    }


def samples_of(config: Evaluate, model: Model, count: int) -> Arrays:
    """Return samples, decoded, a hundred at a time, in float32."""
    seeds, where = [seed_of(config.seed, i) for i in range(count)], (model.device, model.dtype)
    batches = [
        model.decode(ddim_samples(model.denoiser, seeds[i : i + 100], config.steps, *where)).float()
        for i in tqdm(range(0, count, 100), desc="samples", unit="batch")
    ]
    return {"samples": torch.cat(batches).cpu().numpy()}


def distances_to_real(config: Evaluate, images: Tensor, labels: Tensor, samples: Tensor) -> Arrays:
    """Return the distances of the samples, and of as many real digits, to others; the judge's
    confidence in each sample, and its accuracy.
    """
    classifier = mnist.load_classifier(device=config.device)
    order = torch.from_numpy(np.random.default_rng(config.seed).permutation(len(images)))[
        : 2 * config.samples
    ]
    images = images.float()  # as the judge is
    one, other = images[order[: config.samples]], images[order[config.samples :]]
    with torch.no_grad():
        confidence = torch.softmax(classifier(samples), dim=1).max(dim=1).values.cpu().numpy()
    return {
        name: np.array(list(distances(classifier, a, one).values()))
        for name, a in (("sampled", samples), ("real", other))
    } | {
        "confidence": confidence,
        "held_out_accuracy": np.array(accuracy(classifier, images, labels)),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return one row for each noise level and score."""
    scores = summary(arrays)
    rows: list[Row] = [
        {"time": t, "score": name, "value": float(value)}
        for t, level in scores["levels"].items()
        for name, value in level.items()
    ]
    return rows + [
        {"time": "samples", "score": name, "value": float(value)}
        for name, value in scores["samples"].items()
    ]


def write_scores(config: Evaluate, arrays: Arrays) -> None:
    """Add the scores to the model's card."""

    def rounded(value: Any) -> Any:
        return (
            {k: rounded(v) for k, v in value.items()}
            if isinstance(value, dict)
            else float(f"{float(value):.5g}")
        )

    card = read_card(config.model, "denoiser")
    write_card(config.model, card | {"scores": rounded(summary(arrays))})


ANSWER = Answer(
    ("time", "score", "value"),
    lambda row: row["score"] in PRINTED,
    across="score",
)
STUDY = Study(
    "evaluate",
    Evaluate,
    compute,
    table,
    plot,
    models=judged_files,
    answer=ANSWER,
    variables=VARIABLES,
)

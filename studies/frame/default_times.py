"""The default times of studies, 0 to 999, on the schedule of the model that is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jacobian_lab import (
    ContinuousSchedule,
    Denoiser,
    DiscreteSchedule,
    Schedule,
    VarianceExploding,
    load,
)
from jacobian_lab.diffusion.adapters.pipelines import INSTAFLOW, PIXELS
from mnist.weights import read_card
from studies.frame.model_files import pipeline_folder
from studies.frame.models import ORACLE, is_latent
from studies.frame.user_models import denoiser_of, first, is_users

TRAINING_TIMES = 1000
"""Times of most discrete schedules, and of the default times of studies."""


class Fit(NamedTuple):
    """How the default times, 0 to 999, become those of a model's schedule."""

    fit: Callable[[int | float], int | float]
    said: str


DIVIDED = Fit(
    lambda t: t / TRAINING_TIMES, "counts in sigma: the default times are divided by 1000"
)


def fitted_times(name: str) -> Fit | None:
    """Return how the default times become a model's, told by its files; None if they are its own.

    What is missing or broken is refused when the model is opened.
    """
    if name == ORACLE:
        return None
    if is_users(name):
        return fit_to(denoiser_of(first(name)).schedule)
    if not is_latent(name):
        return DIVIDED if read_card(name, "denoiser")["prediction"] == "flow" else None
    with suppress(OSError, ValueError, KeyError, TypeError):
        folder = pipeline_folder(name)
        pipeline, scheduler = (
            json.loads((folder / place).read_text())["_class_name"]
            for place in ("model_index.json", "scheduler/scheduler_config.json")
        )
        if pipeline in PIXELS:
            return fit_to(pixel_schedule(folder))
        if pipeline in INSTAFLOW or scheduler.startswith("FlowMatch"):
            return DIVIDED
    return None


@cache
def pixel_schedule(folder: Path) -> Schedule:
    """Return the schedule of a pipeline of pixels, which is read once it is opened."""
    made = load(folder)
    return (made if isinstance(made, Denoiser) else made.denoiser).schedule


def fit_to(schedule: Schedule) -> Fit | None:
    """Return how the default times become those of a schedule.

    Where the time is sigma, it is that of DDPM's linear schedule, `sigma_t / alpha_t`, at the
    default time; elsewhere the same share of the schedule.
    """
    if isinstance(schedule, VarianceExploding):
        last, linear = schedule.last, DiscreteSchedule.linear()

        def ratio(t: int | float) -> float:
            alpha_t, sigma_t = linear(int(t))
            return min(last, float(f"{float(sigma_t / alpha_t):.3g}"))

        return Fit(ratio, "counts in sigma: the default times are those of equal noise on DDPM's")
    if isinstance(schedule, ContinuousSchedule):
        end = schedule.last
        return Fit(
            lambda t: t / TRAINING_TIMES * end,
            f"counts from 0 to {end:g}: the default times are scaled to it",
        )
    if isinstance(schedule, DiscreteSchedule) and schedule.steps != TRAINING_TIMES:
        steps = schedule.steps
        return Fit(
            lambda t: min(steps - 1, round(t / TRAINING_TIMES * steps)),
            f"has {steps} times: the default times are scaled to it",
        )
    return None

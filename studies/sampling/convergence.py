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

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, Spectral, StepSize
from studies.frame.answer import Answer
from studies.frame.figure_text import subject
from studies.frame.models import Inputs, Model
from studies.frame.options import OnModel, judged_files
from studies.frame.statistics import class_of
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.survey import collect
from studies.sampling.contraction import UNKNOWN, contraction
from studies.sampling.convergence_plot import SHADES, VARIABLES, plot
from studies.sampling.convergence_table import table
from studies.sampling.trajectories import trajectory


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
    each, at most five.
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
        self.check_digits()
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
        if len(self.spectral) >= len(SHADES):
            raise InputError(
                f"--spectral takes at most {len(SHADES) - 1} values, each with a colour of its own:"
                f" got {len(self.spectral)}"
            )

    def rules(self) -> dict[str, StepSize]:
        """Return the rules by their names."""
        spectral: dict[str, StepSize] = {f"lambda mu^2 = {c:g}": Spectral(c) for c in self.spectral}
        return spectral | {f"dynamic, {self.change:g}": Dynamic(self.change)}


@dataclass(frozen=True)
class Sampled:
    """What is sampled: digits whose left half is known, their noises, times and rules."""

    model: Model
    inputs: Inputs
    constraint: Inpainting
    noise: Tensor
    times: list[int] | list[float]
    rules: list[StepSize]
    newton_steps: int

    def follow(self, rule: int) -> Arrays:
        """Return the trajectories of all digits by one rule: residual and root mean square of x_t,
        (digits, times, steps + 1), and x_t before each time's first step.
        """
        newton = Newton("inexact", self.newton_steps, self.rules[rule])
        found = trajectory(self.model.denoiser, self.constraint, self.noise, self.times, newton)
        last = torch.from_numpy(found["x0"][:, -1]).to(self.noise)
        size = torch.from_numpy(found["mean_square"]).to(self.noise)
        shape = (len(self.noise), len(self.times), self.newton_steps + 1)
        x_t = found["x_t"].reshape(*shape, *last.shape[1:])
        return {
            "residual": found["residual"].reshape(shape),
            "size": size.sqrt().cpu().double().numpy().reshape(shape),
            "x_t": x_t[:, :, 0],
            "agrees": agreement(self.model, self.inputs, last),
        }

    def contract(self, x_t: NDArray[Any], k: int, digit: int, rule: int) -> Arrays:
        """Return the contraction by the next step from x_t, (C, H, W), at the k-th time."""
        if not np.isfinite(x_t).all():
            return UNKNOWN  # the sampler diverged before this point
        return contraction(
            self.model.denoiser,
            torch.from_numpy(x_t[None]).to(self.noise),
            self.times[k],
            self.constraint.select(slice(digit, digit + 1)),
            self.rules[rule],
            k / max(1, len(self.times) - 1),
        )


def prepare(config: Convergence) -> Sampled:
    """Return what is sampled, by a study's options."""
    model = config.load()
    denoiser, inputs = model.denoiser, config.inputs(model, config.digits)
    return Sampled(
        model,
        inputs,
        Inpainting(inputs.clean, half(denoiser.shape)),
        seeded_noise(
            [seed_of(config.seed, i) for i in inputs.numbers], denoiser.shape, config.device
        ),
        denoiser.schedule.times(config.steps),
        list(config.rules().values()),
        config.newton_steps,
    )


def compute(config: Convergence, pieces: Pieces) -> Arrays:
    """Return trajectories, (rules, digits, times, steps + 1), and contractions, (rules, points,
    digits of them).
    """
    sampled = prepare(config)
    denoiser, rules = sampled.model.denoiser, range(len(sampled.rules))
    at = np.unique(np.linspace(0, config.steps - 1, config.points).round().astype(int))
    count = min(config.jacobians, len(sampled.inputs.numbers))

    def follow(rule: int) -> Arrays:
        found = sampled.follow(rule)
        return found | {"x_t": found["x_t"][:count, at]}

    runs = collect(pieces, "trajectories", follow, rule=rules)
    states = runs.pop("x_t")
    found = collect(
        pieces,
        "dense Jacobians",
        lambda rule, p, i: sampled.contract(states[rule, i, p], int(at[p]), i, rule),
        rule=rules,
        point=range(len(at)),
        digit=range(count),
    )
    coefficients = map(denoiser.schedule, sampled.times)
    return (
        runs
        | found
        | {
            "rule": np.array(list(config.rules())),
            "time": np.array(sampled.times),
            **subject(config),
            "at": at,
            "space": np.array(sampled.model.space),
            "sizes": np.array([sampled.model.size, int(sampled.constraint.mask[0].sum())]),
            "scale": np.array(
                [float((alpha_t**2 + sigma_t**2).sqrt()) for alpha_t, sigma_t in coefficients]
            ),
        }
    )


@torch.no_grad()
def agreement(model: Model, inputs: Inputs, samples: Tensor) -> NDArray[Any]:
    """Return whether the classifier sees in each sample what was masked, (N,); NaN for images that
    are no digits.
    """
    if not model.digits:
        return np.full(len(samples), np.nan)
    classifier = mnist.load_classifier(device=model.device)
    labels = classifier(inputs.images).argmax(1) if inputs.labels is None else inputs.labels
    right: NDArray[Any] = (class_of(classifier(model.decode(samples))) == labels).cpu().numpy()
    return right


ANSWER = Answer(
    ("quantity", "of", "median", "smallest", "largest"),
    lambda row: str(row["quantity"]).startswith("finding"),
)
STUDY = Study(
    "convergence",
    Convergence,
    compute,
    table,
    plot,
    models=judged_files,
    answer=ANSWER,
    variables=VARIABLES,
)

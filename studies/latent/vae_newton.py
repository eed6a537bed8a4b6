r"""Is a backward pass through the decoder needed? 4x super-resolution and half-known digits in
latent space, by three forms.

The pixels' error is brought to the latent by back-propagation through the decoder, or by a finite
difference of the encoder: VAE-Newton, in its tangent and its secant form
(`jacobian_lab.constraints.decoded`). The Newton step of the denoiser is the same for all, inexact.
Beside them: what the autoencoder makes of the true digit, which no latent method can pass; samples
without a constraint; and for the half-known digits the constraint on the latents alone, which needs
no decoder.

Peak memory is of a process of its own for each form, as in `benchmark memory`: Linux's VmHWM while
a batch is sampled at two times with two Newton steps at each, above what was resident before, with
an allocator that hands freed blocks back at once. The graph of the back-propagated form is freed as
it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import torch
from torch import Tensor

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.constraints.decoded import Decoded, latent_inpainting
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.observations import Map
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import State, sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Secant
from mnist.classifier import Classifier
from mnist.data import SHAPE
from studies.frame.figure_text import subject
from studies.frame.model_files import LATENT
from studies.frame.models import Model, is_latent, open_model
from studies.frame.options import OnDigits, model_files
from studies.frame.processes import STRICT, in_a_process, peak_of
from studies.frame.statistics import scores
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect
from studies.latent.vae_newton_plot import VARIABLES, plot
from studies.latent.vae_newton_table import ANSWER, table
from studies.latent.vae_premises import FORMS, MASKED, TASKS, observed_images, premises

AUTOENCODER, MASK = "autoencoder", "latent mask"
ROWS = [
    (task, method)
    for task in TASKS
    for method in (AUTOENCODER, "unconstrained", MASK, *FORMS)
    if method != MASK or task == MASKED
]
OTHERS = slice(200, 216)  # digits whose latents the round trip of any other is measured towards


@dataclass(frozen=True)
class VaeNewton(OnDigits):
    """Compare VAE-Newton with back-propagation through the decoder.

    Example: jacobian-lab vae-newton --digits 4 --measured 1.
    """

    model: str = LATENT
    """mnist-latent, the miniature that ships, or the folder of a pipeline of digits in diffusers'
    format.
    """
    digits: int = 40
    """Digits that are sampled: this many, from `digit` on."""
    steps: int = 20
    """Sampling times, evenly spaced."""
    newton_steps: int = 5
    """Newton steps at each time."""
    change: float = 0.2
    """Largest change of an entry of the noisy latent in a Newton step; less where the goal is
    near.
    """
    eta: float = 1.0
    """Share of fresh noise at each time, from 0 (DDIM) to 1 (DDPM's ancestral sampling)."""
    measured: int = 5
    """Digits on which the premises are measured, from `digit` on."""
    times: tuple[int | float, ...] = (100, 300, 500, 700, 900)
    """Noise levels at which the premises are measured."""
    batch_size: int = 64
    """Digits that are sampled together where peak memory is measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        if not is_latent(self.model):
            raise InputError(
                f"--model {self.model} is no latent model: take {LATENT}, or the folder of a"
                " pipeline of digits"
            )
        if not all(
            1 <= count <= 5000 - self.digit
            for count in (self.digits, self.measured, self.batch_size)
        ):
            raise InputError(
                f"--digits, --measured and --batch-size must lie from 1 to {5000 - self.digit}: got"
                f" {self.digits}, {self.measured}, {self.batch_size}"
            )
        if not 1 <= self.steps <= 1000 or self.newton_steps < 1 or not self.change > 0:
            raise InputError(
                "--steps must lie from 1 to 1000, --newton-steps be at least 1 and --change"
                f" positive: got {self.steps}, {self.newton_steps}, {self.change}"
            )
        if not 0 <= self.eta <= 1:
            raise InputError(f"--eta must lie from 0 to 1: got {self.eta}")
        if not Path("/proc/self/clear_refs").exists():
            raise InputError(
                "peak memory is read from /proc, which this system does not have: run it on Linux"
            )

    def models(self) -> Mapping[str, str]:
        """Return the models with weights, for the manifest."""
        return {**model_files(self), "classifier": "classifier"}

    def newton(self) -> Newton:
        """Return how the sampler takes its Newton steps."""
        return Newton("inexact", self.newton_steps, Secant(self.change))


class CountedMap:
    """A function of a batch, and how often it was called: with a graph, to be followed by a
    backward pass, and without.
    """

    def __init__(self, function: Map) -> None:
        self.function, self.plain, self.with_graph = function, 0, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the function's value."""
        if x.requires_grad:
            self.with_graph += 1
        else:
            self.plain += 1
        return self.function(x)


def compute(config: VaeNewton, pieces: Pieces) -> Arrays:
    """Return samples, scores, passes, processor time and peak memory, (tasks and methods, ...), and
    the premises.
    """
    model, classifier = (
        open_digits(config.model, config.device),
        mnist.load_classifier(device=config.device),
    )
    for t in config.times:
        model.denoiser.schedule(t)  # an unknown time is refused before anything is computed
    digits, labels = (x.to(config.device) for x in mnist.digits("held-out"))
    with torch.no_grad():
        others, numbers = model.encode(digits[OTHERS]), np.r_[OTHERS]
    found = collect(
        pieces,
        "premises",
        lambda t, i: premises(model, digits[i], others[numbers != i], t, config.seed, i),
        time=config.times,
        digit=range(config.digit, config.digit + config.measured),
    )
    chosen = slice(config.digit, config.digit + config.digits)
    images, labels = digits[chosen], labels[chosen]
    drawn = collect(
        pieces,
        "samples and memory",
        lambda row: {
            **sample_digits(config, model, *ROWS[row], images, labels, classifier),
            "resident": np.array(memory(config, *ROWS[row])),
        },
        row=range(len(ROWS)),
    )
    return (
        found
        | drawn
        | observed_images(images)
        | {
            "rows": np.array(ROWS),
            "time": np.array(config.times),
            **subject(config),
            "batch": np.array(config.batch_size),
            "sampling_times": np.array(model.denoiser.schedule.times(config.steps)),
        }
    )


def open_digits(name: str, device: str) -> Model:
    """Return a latent model of digits."""
    model = open_model(name, device)
    if model.image_shape != SHAPE:
        raise InputError(
            f"--model {name} is of images of shape {model.image_shape}, and digits are {SHAPE}:"
            f" take {LATENT}"
        )
    return model


def sample_digits(
    config: VaeNewton,
    model: Model,
    task: str,
    method: str,
    images: Tensor,
    labels: Tensor,
    classifier: Classifier,
) -> Arrays:
    """Return an image for each digit, its scores, the residual along sampling where it is known,
    and what it cost.
    """
    encode, decode, started = CountedMap(model.encode), CountedMap(model.decode), process_time()
    problem, forward = TASKS[task](images), 0.0
    residual = np.full((len(images), config.steps, config.newton_steps + 1), np.nan)
    constraint = constrain(encode, decode, problem, method)
    if method == AUTOENCODER:
        with torch.no_grad():
            z = encode(images)
    else:
        seeds = [seed_of(config.seed, i) for i in range(config.digit, config.digit + len(images))]
        states = list(states_of(config, model, constraint, seeds))
        z, forward = states[-1].x0, states[-1].spent.forward
        if isinstance(constraint, Decoded):
            residuals = torch.stack(
                [state.residual for state in states if state.residual is not None], 1
            )
            residual = residuals.reshape(residual.shape).cpu().numpy()
    with torch.no_grad():
        drawn = constraint.images(z) if isinstance(constraint, Decoded) else decode(z)
    seconds = process_time() - started
    scored, projected = (
        scores(image, images, labels, classifier) for image in (drawn, problem.project(drawn))
    )
    return {
        "images": drawn.cpu().numpy(),
        "missing": problem.residual(drawn).cpu().numpy(),
        "residual": residual,
        "psnr": scored["psnr"],
        "agreement": scored["agreement"],
        "psnr_projected": projected["psnr"],
        "passes": np.array([forward, decode.plain, decode.with_graph, encode.plain]),
        "seconds": np.array(seconds),
    }


def states_of(
    config: VaeNewton, model: Model, constraint: Constraint | None, seeds: list[int]
) -> Iterator[State]:
    """Sample a latent for each seed."""
    noise = seeded_noise(seeds, model.denoiser.shape, config.device)
    return sample(
        model.denoiser,
        noise,
        model.denoiser.schedule.times(config.steps),
        constraint,
        None if constraint is None else config.newton(),
        eta=config.eta,
        seeds=seeds,
    )


def constrain(
    encode: Map, decode: Map, problem: LinearConstraint, method: str
) -> Constraint | None:
    """Return the constraint that a method puts on latents; None for those that put none."""
    if method == MASK:
        assert isinstance(problem, Inpainting)
        return latent_inpainting(problem.y, problem.mask, encode)
    match method:
        case "backprop" | "tangent" | "secant":
            return Decoded(problem, encode, decode, method)
    return None


def memory(config: VaeNewton, task: str, method: str) -> tuple[float, float]:
    """Return MB resident before a batch is sampled, and at the peak, of a process that does only
    this.
    """
    before, peak = in_a_process(
        sample_one_method, config.model, task, method, config.batch_size, environment=STRICT
    )
    return before, peak


def sample_one_method(model: str, task: str, method: str, batch: int) -> tuple[float, float]:
    """Sample the batch in this process, on the CPU; return what `memory` returns."""
    loaded, images = open_digits(model, "cpu"), mnist.digits("held-out")[0]
    config = VaeNewton(model=model, steps=2, newton_steps=2)

    def work(size: int) -> None:
        some = images[:size]
        if method == AUTOENCODER:
            with torch.no_grad():
                loaded.decode(loaded.encode(some))
            return
        constraint = constrain(loaded.encode, loaded.decode, TASKS[task](some), method)
        for _ in states_of(config, loaded, constraint, list(range(size))):
            pass

    return peak_of(work, batch)


STUDY = Study(
    "vae-newton",
    VaeNewton,
    compute,
    table,
    plot,
    models=VaeNewton.models,
    answer=ANSWER,
    variables=VARIABLES,
)

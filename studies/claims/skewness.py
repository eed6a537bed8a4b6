r"""How much of a denoiser's error is skew, and what symmetrising losses change.

The score is a gradient, so that J of the posterior mean is symmetric. Khelifa, Turner,
Venkataramanan (2026), *Diffusion models observe only gradients*, arXiv 2606.06179, split the error
of a learned score into a gradient and a solenoidal part, of which only the gradient reaches the
marginal densities. A Gaussian mixture in eight dimensions, whose D and J are known, is learned by a
perceptron from samples. Two questions have an answer there:

    share of J    |skew(J)|_F^2 / |J - J_true|_F^2: J_true is symmetric, so that the symmetric and
                  the skew part of the error are orthogonal (Pythagoras)
    share of D    E|u|^2 / E|D - truth|^2 with u the solenoidal part, between two bounds over noisy
                  samples: see `studies.claims.helmholtz`

A lower bound below zero says that the fields fitted do worse than none on other samples: nothing is
known from below there. Among random matrices of n = 8 the share of J is (n - 1) / (2 n) = 0.44.

Then the same network is trained with w |(J - J^T) v|^2 / n, and with the regulariser of `quality`,
inputs moved along the error; errors and shares with and without.

Published Stable Diffusion numbers take J v at t and J^T u at t - 1, which adds to the skew part: on
the model that ships, |J(t) - J(t-1)^T|_F / |J(t) + J(t-1)^T|_F over |J - J^T|_F / |J + J^T|_F, and
the same of the largest |eigenvalue| of the skew part. What is added, J(t) - J(t-1), is nearly
symmetric, and orthogonal to the skew part: it enters the Frobenius norm in second order only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import Denoiser, DiscreteSchedule, GaussianMixture, InputError, JacobianOperator
from mnist.evaluate import noisy_digit
from mnist.recipe import DenoiserRecipe
from mnist.tasks import Loss, denoising_loss
from studies.claims.helmholtz import gradient_residual, solenoidal_residual
from studies.claims.perceptron import dense_jacobians, learned, noisy_samples, perceptron_denoiser
from studies.claims.regularisers import shifted_loss, symmetric_loss
from studies.claims.skewness_plot import plot
from studies.claims.skewness_table import ANSWER, findings, table
from studies.claims.small_models import with_weights
from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.study import Arrays, Config, Pieces, Study, check_times
from studies.frame.survey import collect

SIZE, COMPONENTS = 8, 5
"""Dimension and components of the mixture."""
FITTED = 2000
"""Noisy samples to which a gradient is fitted, and as many on which it is tried."""


@dataclass(frozen=True)
class Skewness(Config):
    """Ask how much of a denoiser's error is skew. Example: jacobian-lab skewness --updates 500
    --trainings 2.
    """

    updates: int = 1_500
    """Updates of each perceptron, by AdamW, with 256 samples each."""
    trainings: int = 3
    """Trainings of each loss, from seeds of their own."""
    times: tuple[int, ...] = (100, 300, 500, 700)
    """Noise levels of the mixture, 0 (clean) to 999 (noise)."""
    samples: int = 200
    """Noisy samples of the mixture at which J is taken."""
    symmetry_weight: float = 1.0
    """Weight of the penalty |(J - J^T) v|^2 / n."""
    shift: float = 0.5
    """How far inputs move along alpha_t times the error, in the regulariser of quality."""
    model: str = "denoiser"
    """Denoiser of digits on which the time of J^T is shifted."""
    digits: int = 3
    """Held-out digits on which it is shifted."""
    model_times: tuple[int, ...] = (300, 500, 700)
    """Noise levels at which it is shifted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        check_times(self.model_times)
        for name, least in (("updates", 1), ("trainings", 2), ("samples", 2), ("digits", 2)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} must be at least {least}: got {getattr(self, name)}")
        if min(self.model_times) < 1:
            raise InputError(f"--model-times must be at least 1: got {min(self.model_times)}")

    @property
    def losses(self) -> dict[str, Callable[[Denoiser], Loss]]:
        """Name -> loss of a training."""
        return {
            "plain": denoising_loss,
            "symmetric": partial(symmetric_loss, weight=self.symmetry_weight),
            "towards": partial(shifted_loss, strength=-self.shift),
            "away": partial(shifted_loss, strength=self.shift),
        }


def random_mixture(seed: int = 0) -> GaussianMixture:
    """Return Gaussians of random means and covariances, of unit size together, in float64."""
    g = torch.Generator().manual_seed(seed)
    means = 0.7 * torch.randn(COMPONENTS, SIZE, generator=g, dtype=torch.float64)
    roots = 0.5 * torch.randn(COMPONENTS, SIZE, SIZE, generator=g, dtype=torch.float64)
    return GaussianMixture(means, roots @ roots.mT / SIZE**0.5, DiscreteSchedule.linear())


def compute(config: Skewness, pieces: Pieces) -> Arrays:
    """Return errors of D and J of perceptrons by loss and noise level, and what a shifted time of
    J^T adds on digits.
    """
    oracle = random_mixture()
    points = {t: noisy_samples(oracle, t, config.samples, config.seed) for t in config.times}
    truth = {t: oracle.jacobian(x, t).numpy() for t, x in points.items()}
    products = [dense_jacobians(oracle.denoiser(), x, t) for t, x in points.items()]

    def at(loss: str, training: int) -> Arrays:
        recipe = recipe_of(config, config.seed + training)
        weights = learned(oracle, recipe, config.losses[loss])
        denoiser = with_weights(perceptron_denoiser(oracle, recipe.seed), weights).double()
        found = [errors_at(oracle, denoiser, x, t, truth[t]) for t, x in points.items()]
        return {key: np.array([f[key] for f in found]) for key in found[0]}

    apart = [
        np.linalg.norm(p - truth[t]) / np.linalg.norm(truth[t])
        for p, t in zip(products, points, strict=True)
    ]
    return (
        collect(
            pieces,
            "training",
            at,
            loss=list(config.losses),
            training=range(config.trainings),
        )
        | shifted_times(config, pieces)
        | {
            "loss": np.array(list(config.losses)),
            "time": np.array(config.times),
            "product_error": np.array(max(apart)),
            "size": np.array(SIZE),
            "subject": np.array(
                f"perceptrons on {COMPONENTS} Gaussians in {SIZE} dimensions, {config.updates}"
                f" updates, {config.trainings} trainings; model {config.model} on"
                f" {config.digits} digits; seed {config.seed}"
            ),
        }
    )


def recipe_of(config: Skewness, seed: int) -> DenoiserRecipe:
    """Return the recipe of a perceptron's training."""
    return DenoiserRecipe(
        updates=config.updates,
        batch_size=256,
        learning_rate=2e-3,
        warmup=config.updates // 5,
        ema_decay=0.99,
        seed=seed,
        precision="float32",
        device=config.device,
    )


def errors_at(
    oracle: GaussianMixture, denoiser: Denoiser, x: Tensor, t: int, truth: NDArray[np.float64]
) -> Arrays:
    """Return |D - truth|^2 at each sample, the squared norms of the error of J and of its parts;
    and at other samples what gradients and what solenoidal fields leave of |D - truth|^2.
    """
    J = dense_jacobians(denoiser, x, t)
    skew = (J - J.swapaxes(-1, -2)) / 2
    more = noisy_samples(oracle, t, 2 * FITTED, seed=t)
    mean, flat = oracle.mean(more, t).flatten(1), more.flatten(1)
    apart = denoiser(more, t).flatten(1) - mean
    alpha, sigma = (c.to(mean) for c in oracle.schedule(t))
    score = (alpha * mean - flat) / sigma**2
    return {
        "error": (denoiser(x, t) - oracle.mean(x, t)).square().flatten(1).sum(1).numpy(),
        "jacobian_error": np.square(J - truth).sum((-2, -1)),
        "symmetric_error": np.square(J - skew - truth).sum((-2, -1)),
        "skew_error": np.square(skew).sum((-2, -1)),
        "no_gradient": gradient_residual(flat, apart).numpy(),
        "no_solenoidal": solenoidal_residual(flat, apart, score).numpy(),
        "tried": apart[FITTED:].square().sum(1).numpy(),
    }


def shifted_times(config: Skewness, pieces: Pieces) -> Arrays:
    """Return the asymmetry of the shipped model's J, and what it seems to be if J^T is taken one
    time step below.
    """
    denoiser = mnist.load_denoiser(config.model)
    images = mnist.digits("held-out")[0][: config.digits]

    def at(t: int, digit: int) -> Arrays:
        x_t = noisy_digit(denoiser, images[digit], t, config.seed, digit)
        J, below = (
            JacobianOperator(denoiser, x_t, time).dense().astype(np.float64) for time in (t, t - 1)
        )
        return {
            "same": np.array(between(J, J)),
            "shifted": np.array(between(J, below)),
            "leading_same": np.array(np.linalg.norm(J - J.T, 2) / 2),
            "leading_shifted": np.array(np.linalg.norm(J - below.T, 2) / 2),
        }

    found = collect(pieces, "shifted", at, t=config.model_times, digit=range(config.digits))
    return found | {"model_time": np.array(config.model_times)}


def between(J: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return |J - K^T|_F / |J + K^T|_F of two matrices: the asymmetry of J, where K is J."""
    return float(np.linalg.norm(J - other.T) / np.linalg.norm(J + other.T))


def shipped(config: Skewness) -> dict[str, str]:
    """Return the model that ships and is used, for the manifest."""
    return {config.model: "denoiser"}


VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "loss": Variable("loss", "plain, or how it was regularised"),
    "error": Variable("loss training time sample", "|D - truth|^2"),
    "jacobian_error": Variable("loss training time sample", "|J - truth|_F^2"),
    "symmetric_error": Variable("loss training time sample", "that of the symmetric part"),
    "skew_error": Variable("loss training time sample", "|J - J^T|_F^2 / 4, of the skew part"),
    "no_gradient": Variable(
        "loss training time trial", "|D - truth - gradient|^2, the gradient fitted at others"
    ),
    "no_solenoidal": Variable(
        "loss training time trial", "the same of a field that moves no density"
    ),
    "tried": Variable("loss training time trial", "|D - truth|^2 at the same samples"),
    "product_error": Variable("", "|J - truth|_F / |truth|_F of the mixture by products"),
    "size": Variable("", "dimension n of the mixture"),
    "model_time": Variable("model_time", "noise level t at which J of the model is taken"),
    "same": Variable("model_time digit", "|J - J^T|_F / |J + J^T|_F of the model"),
    "shifted": Variable("model_time digit", "the same with J^T of t - 1"),
    "leading_same": Variable("model_time digit", "|(J - J^T) / 2|_2, the largest |eigenvalue|"),
    "leading_shifted": Variable("model_time digit", "the same with J^T of t - 1"),
}
STUDY = Study(
    "skewness",
    Skewness,
    compute,
    table,
    plot,
    models=shipped,
    answer=ANSWER,
    variables=VARIABLES,
    findings=findings,
)

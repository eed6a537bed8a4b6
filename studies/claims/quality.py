r"""Whether better denoisers have larger leading eigenvalues of J.

The posterior mean has `J = (alpha / sigma^2) Cov[x_0 | x_t]`, and a denoiser that has not yet
learned a direction of the posterior has a small eigenvalue there: so say Graikos, Jojic, Samaras
(2026), *On the spectral properties of generative denoiser Jacobians*, arXiv 2609.36210. U-Nets of
two widths and a small transformer are trained on digits at half size for several lengths, each with
its own cosine and moving average; each is given its Frechet distance (DDIM samples against held-out
digits, in the judge's features) and the leading eigenvalue of the dense J by noise level.

Training against J: their regulariser moves inputs along the error. Its text and code were not at
hand, so that both signs are trained: x_t + s alpha_t (D - x_0), s = -0.5 (towards x_0) and 0.5
(away), in half of the loss. Beside it stand a penalty w |J v|^2 / n and one on the skew part,
w |(J - J^T) v|^2 / n (Khelifa, Turner, Venkataramanan 2026, arXiv 2606.06179), each on the same
network from the same seed. See `studies.claims.regularisers`.

The oracle is eight Gaussians on a circle, whose J is known: products of its denoiser must have the
closed form's eigenvalues, and a perceptron trained longer must come nearer to its mean. Its leading
eigenvalue begins above the exact one, not below: a network that predicts v and has learned nothing
has `D = alpha x_t` and `J = alpha I`, 0.28 where the circle has 0.15 (t = 500), but less than on
digits; from which side it comes depends on the parametrisation. At high noise, where the exact one
is small, it also ends above, as the network's own error raises the largest |eigenvalue|.

Two things to bear in mind. Moving towards x_0 gives the network an input that x_0 went into; and
the moved half doubles the inputs of an update, at equal updates. Each training is done once: the
intervals are over digits, not over trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import Denoiser, InputError, JacobianOperator
from mnist.evaluate import ddim_samples, distances, noisy_digit, squared_errors
from mnist.recipe import DenoiserRecipe
from mnist.tasks import Loss, denoising_loss
from studies.claims.perceptron import (
    dense_jacobians,
    learned,
    noisy_samples,
    perceptron_denoiser,
    ring,
)
from studies.claims.quality_plot import plot
from studies.claims.quality_table import ANSWER, findings, table
from studies.claims.regularisers import contracting_loss, shifted_loss, symmetric_loss
from studies.claims.shrinkage import eigenbasis
from studies.claims.small_models import (
    Trains,
    doubled,
    small_denoiser,
    small_recipe,
    trained,
    with_weights,
)
from studies.claims.small_transformer import transformer_denoiser
from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.statistics import middle_of
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect

TOY_SEEDS, TOY_SAMPLES = 3, 200
"""Trainings of a perceptron of each length, and noisy samples at which its J is taken."""
DRAWN = 4
"""Eigenvectors of the first digit that are drawn."""


@dataclass(frozen=True)
class Quality(Trains):
    """Ask whether better denoisers have larger leading eigenvalues. Example: jacobian-lab quality
    --updates 900 --tested 4.
    """

    updates: int = 1_800
    """Updates of the longest training of the narrow U-Net; others take a third of it, a ninth, and
    a twenty-seventh.
    """
    tested: int = 12
    """Held-out digits at which J is taken."""
    times: tuple[int, ...] = (300, 500, 700)
    """Noise levels, 0 (clean) to 999 (noise)."""
    samples: int = 500
    """Samples of the Frechet distance, at most 1,000."""
    steps: int = 20
    """Steps of DDIM for each sample."""
    shift: float = 0.5
    """How far inputs move along alpha_t times the error."""
    contraction_weight: float = 0.3
    """Weight of the direct penalty |J v|^2 / n."""
    symmetry_weight: float = 1.0
    """Weight of the penalty |(J - J^T) v|^2 / n."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        if self.updates < 27:
            raise InputError(f"--updates must be at least 27: got {self.updates}")
        for name, least, most in (("tested", 2, 1000), ("samples", 2, 1000), ("steps", 1, 1000)):
            if not least <= getattr(self, name) <= most:
                raise InputError(
                    f"--{name} must lie from {least} to {most}: got {getattr(self, name)}"
                )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Updates of the trainings, from the shortest."""
        return tuple(self.updates // part for part in (27, 9, 3, 1))


class Training(NamedTuple):
    """A denoiser to be trained, and how."""

    network: str
    loss: str
    recipe: DenoiserRecipe
    build: Callable[[DenoiserRecipe], Denoiser]
    loss_of: Callable[[Denoiser], Loss] = denoising_loss

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.network}, {self.loss}, {self.recipe.updates}"


def recipe_of_length(config: Trains, updates: int, **changes: object) -> DenoiserRecipe:
    """Return the recipe of a training whose warm-up and moving average fit its length."""
    average = min(0.995, 1 - 10 / max(updates, 11))
    return small_recipe(
        config, **{"updates": updates, "warmup": updates // 5, "ema_decay": average} | changes
    )


def trainings(config: Quality) -> list[Training]:
    """Return all trainings: the plain ones, then the regularised ones of the narrow U-Net."""
    made = partial(recipe_of_length, config)
    wide = {"channels": (64, 64, 64)}
    *short, longest = config.lengths
    plain = [Training("U-Net 32", "plain", made(n), small_denoiser) for n in (*short, longest)]
    plain += [Training("U-Net 64", "plain", made(n, **wide), small_denoiser) for n in short]
    plain += [Training("transformer", "plain", made(n), transformer_denoiser) for n in short]
    losses: dict[str, Callable[[Denoiser], Loss]] = {
        "towards": partial(shifted_loss, strength=-config.shift),
        "away": partial(shifted_loss, strength=config.shift),
        "penalty": partial(contracting_loss, weight=config.contraction_weight),
        "symmetric": partial(symmetric_loss, weight=config.symmetry_weight),
    }
    return plain + [
        Training("U-Net 32", name, made(short[-1]), small_denoiser, loss)
        for name, loss in losses.items()
    ]


def compute(config: Quality, pieces: Pieces) -> Arrays:
    """Return quality and spectra of all denoisers, and of the perceptrons beside their oracle."""
    images, _ = config.digits()
    plans = trainings(config)
    weights = pieces.each(
        "training",
        {
            f"training-{p.name}": partial(trained, p.recipe, images, p.build, p.loss_of)
            for p in plans
        },
    )

    def at(k: int) -> Arrays:
        return quality_of(config, with_weights(plans[k].build(plans[k].recipe), weights[k]))

    found = collect(pieces, "measuring", at, model=range(len(plans)))
    test, judge = doubled(config.test_digits[: config.samples]), mnist.load_classifier()
    real = distances(judge, doubled(images[-config.samples :]), test)["frechet"]
    words = f"denoisers of {len(images):,} digits at 16x16, {config.tested} held-out digits"
    return (
        found
        | toy(config, pieces)
        | {
            "network": np.array([p.network for p in plans]),
            "loss": np.array([p.loss for p in plans]),
            "updates": np.array([p.recipe.updates for p in plans]),
            "time": np.array(config.times),
            "real_frechet": np.array(real),
            "subject": np.array(f"{words}, seed {config.seed}"),
        }
    )


def quality_of(config: Quality, denoiser: Denoiser) -> Arrays:
    """Return the quality of a denoiser and the spectrum of its J by time and digit."""
    samples = ddim_samples(denoiser, range(config.samples), config.steps)
    real = doubled(config.test_digits[: config.samples])
    digits, middle = config.test_digits[: config.tested], config.times[middle_of(config.times)]
    drawn = leading_vectors(
        denoiser, noisy_digit(denoiser, digits[0], middle, config.seed, 0), middle
    )
    spectra = [
        [
            spectrum_at(denoiser, noisy_digit(denoiser, d, t, config.seed, k), t)
            for t in config.times
        ]
        for k, d in enumerate(digits)
    ]
    errors = [squared_errors(denoiser, digits, t, config.seed).numpy() for t in config.times]
    leading, symmetric, skew = np.array(spectra).transpose(2, 1, 0)
    return {
        "frechet": np.array(distances(mnist.load_classifier(), doubled(samples), real)["frechet"]),
        "error": np.array(errors),
        "leading": leading,
        "leading_symmetric": symmetric,
        "asymmetry": skew,
        "drawn_value": drawn[0],
        "vector": drawn[1],
    }


def leading_vectors(
    denoiser: Denoiser, x_t: Tensor, t: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues of the symmetric part of J, falling, shape (DRAWN,), and their
    eigenvectors, (DRAWN, n), whose largest entry is positive.
    """
    J = JacobianOperator(denoiser, x_t, t).dense().astype(np.float64)
    values, vectors = eigenbasis(J)
    rows = vectors.T[:DRAWN]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], axis=1)
    return values[:DRAWN], rows * np.sign(largest)


def spectrum_at(denoiser: Denoiser, x_t: Tensor, t: int) -> tuple[float, float, float]:
    """Return the largest |eigenvalue| of the dense J, the largest eigenvalue of its symmetric part,
    and |J - J^T|_F / |J + J^T|_F.
    """
    J = JacobianOperator(denoiser, x_t, t).dense().astype(np.float64)
    values, parts = np.linalg.eigvals(J), np.linalg.eigvalsh((J + J.T) / 2)
    asymmetry = np.linalg.norm(J - J.T) / np.linalg.norm(J + J.T)
    return float(abs(values).max()), float(parts[-1]), float(asymmetry)


def toy(config: Quality, pieces: Pieces) -> Arrays:
    """Return the leading eigenvalues of perceptrons of several lengths beside the exact ones."""
    oracle = ring()
    points = [(noisy_samples(oracle, t, TOY_SAMPLES, config.seed), t) for t in config.times]

    def at(seed: int, updates: int) -> Arrays:
        recipe = recipe_of_length(config, updates, batch_size=256, seed=config.seed + seed)
        network = perceptron_denoiser(oracle, recipe.seed)
        denoiser = with_weights(network, learned(oracle, recipe)).double()
        apart = [denoiser(x, t) - oracle.mean(x, t) for x, t in points]
        return {
            "toy_error": np.array([a.square().flatten(1).sum(1).numpy() for a in apart]),
            "toy_leading": np.array([leading_of(denoiser, x, t) for x, t in points]),
        }

    exact = [torch.linalg.eigvalsh(oracle.jacobian(x, t))[:, -1].numpy() for x, t in points]
    products = [leading_of(oracle.denoiser(), x, t) for x, t in points]
    return collect(pieces, "toy", at, training=range(TOY_SEEDS), updates=config.lengths) | {
        "length": np.array(config.lengths),
        "toy_exact": np.array(exact),
        "toy_products": np.array(products),
    }


def leading_of(denoiser: Denoiser, x_t: Tensor, t: int) -> NDArray[Any]:
    """Return the largest |eigenvalue| of J at each of a batch of noisy samples of few entries."""
    return np.asarray(abs(np.linalg.eigvals(dense_jacobians(denoiser, x_t, t))).max(-1))


def model_weights(_config: Quality) -> dict[str, str]:
    """Return the model that judges samples, for the manifest."""
    return {"classifier": "classifier"}


VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "network": Variable("denoiser", "kind and width of the denoiser's network"),
    "loss": Variable("denoiser", "plain, or how it was regularised"),
    "updates": Variable("denoiser", "updates of its training"),
    "frechet": Variable("denoiser", "Frechet distance of DDIM samples to held-out digits"),
    "real_frechet": Variable("", "the same of as many real digits: its bias"),
    "error": Variable("denoiser time point", "mean squared error of D on a held-out digit"),
    "leading": Variable("denoiser time point", "largest |eigenvalue| of J"),
    "leading_symmetric": Variable("denoiser time point", "largest eigenvalue of (J + J^T) / 2"),
    "asymmetry": Variable("denoiser time point", "|J - J^T|_F / |J + J^T|_F"),
    "drawn_value": Variable("denoiser drawn", "largest eigenvalues of (J + J^T) / 2, first digit"),
    "vector": Variable("denoiser drawn pixel", "their eigenvectors, at the middle noise level"),
    "length": Variable("length", "updates of a perceptron on eight Gaussians"),
    "toy_error": Variable("training length time sample", "|D - truth|^2 of a perceptron"),
    "toy_leading": Variable("training length time sample", "largest |eigenvalue| of its J"),
    "toy_exact": Variable("time sample", "largest eigenvalue of the closed form of J"),
    "toy_products": Variable("time sample", "the same by products of the oracle's denoiser"),
}
STUDY = Study(
    "quality",
    Quality,
    compute,
    table,
    plot,
    models=model_weights,
    answer=ANSWER,
    variables=VARIABLES,
    findings=findings,
)

r"""What J tells of memorisation: sharpness, where, and the phases of generation.

Small denoisers are trained on few and on many digits, each as long. The Jacobian of the score of
x_t is `H = (alpha J - I) / sigma^2`, so that an eigenvalue of `alpha J` near 0 is a sharp direction
of the density (the most negative eigenvalue of H, -1 / sigma^2) and one near 1 a flat one. Here the
flat directions are the eigenvalues of `alpha (J + J^T) / 2` above one half.

* Jeon, Kim, No (2024), arXiv 2412.04140: a memorised sample is sharp, with many large negative
  eigenvalues. Memorised is a sample whose nearest training digit is much nearer than the second
  nearest; the share of samples that are nearer to training digits than to as many held-out ones is
  one half without memorisation.
* Kim, Lee (2026), arXiv 2605.26756: where the variance of pixels collapses, a sample is memorised;
  the difference from a model that did not memorise tells this from pixels that never vary. The
  known truth: digits whose upper half is that of one of ten digits and whose lower half is that of
  any other, on which one more denoiser is trained.
* Ventura et al. (2024), arXiv 2410.05898: as noise falls, directions open (manifold coverage) until
  a gap remains at the dimension (consolidation); a model that memorises loses them again.

The oracle is the posterior mean of K images, `studies.claims.point_masses`, which memorises all.
J is taken at samples of each denoiser, to which noise is added anew. A trained network falls short
of the exact mean of its few digits at low noise: there it keeps a few flat directions, as it
denoises locally whatever it was trained on. The spectrum of digits has no gap: it decays smoothly.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from jacobian_lab import (
    Denoiser,
    DerivativeWarning,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
)
from mnist.evaluate import ddim_samples, noisy_digit
from studies.claims.memorisation_plot import plot
from studies.claims.memorisation_table import ANSWER, findings, flat_directions, table
from studies.claims.point_masses import PointMasses
from studies.claims.small_models import (
    SMALL,
    Trains,
    filling,
    small_denoiser,
    small_recipe,
    trained,
    with_weights,
)
from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect

REPEATED = 10
"""Digits whose upper halves the denoiser of half-memorised digits sees again and again."""


@dataclass(frozen=True)
class Memorisation(Trains):
    """Ask what J tells of memorised digits. Example: jacobian-lab memorisation --updates 300
    --sizes 10 1000.
    """

    updates: int = 1_000
    """Updates of each denoiser, by AdamW."""
    sizes: tuple[int, ...] = (10, 100, 1_000, 10_000)
    """Training digits of the denoisers, from few to many; at most those at hand."""
    times: tuple[int, ...] = (50, 100, 200, 300, 500, 700)
    """Noise levels, from low, 0 (clean) to 999 (noise)."""
    samples: int = 200
    """Samples of each denoiser, by DDIM."""
    steps: int = 30
    """Steps of DDIM for each sample."""
    tested: int = 10
    """Samples at which J is taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        if len(self.sizes) < 2 or sorted(set(self.sizes)) != list(self.sizes) or self.sizes[0] < 3:
            raise InputError(f"--sizes must be two or more rising numbers from 3: got {self.sizes}")
        if list(self.times) != sorted(self.times):
            raise InputError(f"--times must rise: got {self.times}")
        if not 2 <= self.tested <= self.samples:
            raise InputError(
                f"--tested must lie from 2 to --samples, {self.samples}: got {self.tested}"
            )


def compute(config: Memorisation, pieces: Pieces) -> Arrays:
    """Return distances of samples and spectra of J by size of the training set."""
    images, _ = config.digits()
    sizes = sorted({min(size, len(images)) for size in config.sizes})
    if len(sizes) < 2:
        raise InputError(
            f"--sizes {' '.join(map(str, config.sizes))} are one size, since {len(images):,}"
            " training digits are at hand: expected two or more that differ"
        )
    recipe = small_recipe(config)
    sets = {str(size): images[:size] for size in sizes} | {"half": half_memorised(images)}
    work = {
        f"training-{name}": partial(trained, recipe, filling(chosen, recipe.batch_size))
        for name, chosen in sets.items()
    }
    weights = dict(zip(sets, pieces.each("training", work), strict=True))
    models = {name: with_weights(small_denoiser(recipe), w) for name, w in weights.items()}

    def at(size: int) -> Arrays:
        return measured_on(config, models[str(size)], images[:size])

    where = pieces("where", lambda: mapped(config, models["half"], models[str(sizes[-1])]))
    return (
        collect(pieces, "measuring", at, size=sizes)
        | where
        | known_masses(images[: REPEATED * 2].double(), config)
        | {
            "size": np.array(sizes),
            "time": np.array(config.times),
            "subject": np.array(
                f"denoisers of digits at 16x16, {config.updates} updates each, J at"
                f" {config.tested} of their samples, seed {config.seed}"
            ),
        }
    )


def half_memorised(images: Tensor) -> Tensor:
    """Return digits, each with the upper half of one of the first few."""
    half = images.shape[-2] // 2
    upper = images[:REPEATED, :, :half].repeat(-(-len(images) // REPEATED), 1, 1, 1)
    return torch.cat([upper[: len(images)], images[:, :, half:]], dim=2)


def measured_on(config: Memorisation, denoiser: Denoiser, training: Tensor) -> Arrays:
    """Return distances of a denoiser's samples to its training digits, and the spectra of J at
    noisy samples, beside those of the posterior mean of the training digits.
    """
    samples = ddim_samples(denoiser, range(config.samples), config.steps)
    ideal = PointMasses(training.double(), denoiser.schedule)
    found = [
        [spectra_at(config, denoiser, ideal, samples[k], t, k) for k in range(config.tested)]
        for t in config.times
    ]
    spectra = {key: np.array([[f[key] for f in row] for row in found]) for key in found[0][0]}
    return spectra | nearness(samples, training, config.test_digits)


def nearness(samples: Tensor, training: Tensor, others: Tensor) -> Arrays:
    """Return the distance of samples to the nearest training digit over that to the second nearest,
    and whether the nearest of as many training and held-out digits is of the training.
    """
    flat = samples.flatten(1)
    nearest = torch.cdist(flat, training.flatten(1)).topk(2, largest=False).values
    count = min(len(training), len(others))
    to_training, to_others = (
        torch.cdist(flat, digits[:count].flatten(1)).amin(1) for digits in (training, others)
    )
    return {
        "ratio": (nearest[:, 0] / nearest[:, 1].clamp(min=1e-12)).numpy(),
        "of_training": (to_training < to_others).numpy(),
    }


def spectra_at(
    config: Memorisation, denoiser: Denoiser, ideal: PointMasses, image: Tensor, t: int, k: int
) -> Arrays:
    """Return the eigenvalues of alpha (J + J^T) / 2 at a sample with noise, from the largest, and
    those of the ideal.
    """
    x_t = noisy_digit(denoiser, image, t, config.seed, k)
    alpha = float(denoiser.schedule(t)[0])
    J = JacobianOperator(denoiser, x_t, t).dense().astype(np.float64)
    values = alpha * np.linalg.eigvalsh((J + J.T) / 2)[::-1]
    known = alpha * np.linalg.eigvalsh(ideal.jacobian(x_t.double(), t)[0].numpy())[::-1]
    return {"spectrum": values, "ideal_spectrum": known}


def mapped(config: Memorisation, half: Denoiser, whole: Denoiser) -> Arrays:
    """Return diag J of the denoiser of half-memorised digits, and of the one of most digits, at
    noisy samples of the former, (times, points, 16, 16).
    """
    samples = ddim_samples(half, range(config.tested), config.steps)

    def diagonal_of(denoiser: Denoiser) -> np.ndarray:
        points = [
            [noisy_digit(half, image, t, config.seed, k) for k, image in enumerate(samples)]
            for t in config.times
        ]
        found = [
            [np.diag(JacobianOperator(denoiser, x, t).dense()) for x in row]
            for row, t in zip(points, config.times, strict=True)
        ]
        return np.array(found).reshape(len(config.times), len(samples), *SMALL[1:])

    return {
        "half_sample": samples[:, 0].numpy(),
        "half_diagonal": diagonal_of(half),
        "whole_diagonal": diagonal_of(whole),
    }


def known_masses(images: Tensor, config: Memorisation) -> Arrays:
    """Return how far products are from the closed form of the posterior mean of K images, and the
    flat directions that it has at an image with noise.
    """
    prior = PointMasses(images, DiscreteSchedule.linear())
    errors, flat, rank = [], [], []
    for t in config.times:
        x_t = noisy_digit(prior.denoiser(), images[0], t, config.seed)
        truth = prior.jacobian(x_t, t)[0].numpy()
        with warnings.catch_warnings():
            # near an image J is zero to rounding, which looks like a piecewise constant function
            warnings.simplefilter("ignore", DerivativeWarning)
            J = JacobianOperator(prior.denoiser(), x_t, t).dense()
        # near an image J itself is zero: alpha / sigma^2 times the images' variance is its scale
        alpha, sigma = map(float, prior.schedule(t))
        scale = alpha / sigma**2 * float(prior.images.var(0, correction=0).sum())
        errors.append(np.linalg.norm(J - truth) / scale)
        values = np.linalg.eigvalsh(truth)
        flat.append(int(flat_directions(alpha * values)))
        rank.append(int((values > 1e-9 * max(values[-1], 1e-6)).sum()))
    return {
        "masses_error": np.array(errors),
        "masses_flat": np.array(flat),
        "masses_rank": np.array(rank),
        "masses": np.array(len(images)),
    }


def no_models(_config: Memorisation) -> dict[str, str]:
    """Return the models with weights that ship and are used: none."""
    return {}


VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "size": Variable("size", "training digits of the denoiser"),
    "ratio": Variable("size sample", "distance to the nearest training digit over the second"),
    "of_training": Variable("size sample", "whether nearer to training than to held-out digits"),
    "spectrum": Variable("size time point eigenvalue", "eigenvalues of alpha (J + J^T) / 2"),
    "ideal_spectrum": Variable("size time point eigenvalue", "the same of the training set's mean"),
    "half_sample": Variable("point row column", "samples of half-memorised digits"),
    "half_diagonal": Variable("time point row column", "diag J of their denoiser"),
    "whole_diagonal": Variable("time point row column", "diag J of the denoiser of most digits"),
    "masses_error": Variable("time", "|J - truth|_F of K images by products, over the scale of J"),
    "masses_flat": Variable("time", "flat directions of J of K images, in closed form"),
    "masses_rank": Variable("time", "rank of that J"),
    "masses": Variable("", "K of the oracle"),
}
STUDY = Study(
    "memorisation",
    Memorisation,
    compute,
    table,
    plot,
    models=no_models,
    answer=ANSWER,
    variables=VARIABLES,
    findings=findings,
)

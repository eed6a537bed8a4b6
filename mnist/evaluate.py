"""How good is a denoiser: its error per noise level, its samples against real digits, and the
health of its Jacobian.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jacobian_lab import (
    Denoiser,
    JacobianOperator,
    _require,
    asymmetry,
    eigenpairs,
    symmetric_part,
    trace,
)
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from mnist.classifier import Classifier, check_images

Array = NDArray[Any]


@dataclass(frozen=True)
class Health:
    """The dense Jacobian at one noisy digit, in numbers that a posterior mean's would have to
    satisfy.
    """

    trace: float
    """tr J; non-negative for a posterior mean, and on average `(alpha / sigma^2) E |x_0 - D|^2`
    (Tweedie).
    """
    asymmetry: float
    """|J - J^T|_F / |J + J^T|_F; zero for a posterior mean."""
    smallest: float
    """Smallest eigenvalue of the symmetric part; non-negative for a posterior mean."""
    largest: float
    """Largest eigenvalue of the symmetric part."""
    trace_error: float = 0.0
    """Standard error of the trace, where it is an estimate."""
    asymmetry_error: float = 0.0
    """The same of the asymmetry."""


@torch.no_grad()
def squared_errors(
    denoiser: Denoiser, images: Tensor, t: int | float, seed: int, batch_size: int = 250
) -> Tensor:
    """Return each image's mean squared error of D at time t.

    Parameters
    ----------
    denoiser : Denoiser
    images : Tensor, shape (N, 1, 32, 32)
        In [-1, 1].
    t : int or float
        Time of the denoiser's schedule.
    seed : int
        Of the noise; each image has its own, whatever the batch size.
    batch_size : int
        Images of one pass.

    Returns
    -------
    Tensor, shape (N,)
        Times (alpha_t / sigma_t)^2 it is the error of epsilon.
    """
    denoiser.batched(images)
    seed = _require.seed(seed)
    errors = []
    for i in range(0, len(images), batch_size):
        x0 = images[i : i + batch_size]
        seeds = [
            seed_of(seed, round(1000 * t) if isinstance(t, float) else t, i + k)
            for k in range(len(x0))
        ]
        x_t = denoiser.schedule.add_noise(
            x0, t, seeded_noise(seeds, denoiser.shape, x0.device, x0.dtype)
        )
        errors.append((denoiser(x_t, t) - x0).square().flatten(1).mean(1))
    return torch.cat(errors)


def noisy_digit(denoiser: Denoiser, image: Tensor, t: int | float, *seeds: int) -> Tensor:
    """Return one image with noise.

    Parameters
    ----------
    denoiser : Denoiser
    image : Tensor, shape (1, H, W)
    t : int or float
        Time of the denoiser's schedule.
    *seeds : int
        Fix the noise, which is the same at every t.

    Returns
    -------
    Tensor, shape (1, 1, H, W)
    """
    noise = seeded_noise([seed_of(*seeds)], denoiser.shape, image.device, image.dtype)
    return denoiser.schedule.add_noise(image.unsqueeze(0), t, noise)


def ddim_samples(
    denoiser: Denoiser,
    seeds: Sequence[int],
    steps: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return samples by DDIM.

    Parameters
    ----------
    denoiser : Denoiser
    seeds : sequence of int
        One for each sample.
    steps : int
        Of DDIM, evenly spaced.
    device : torch.device or str
    dtype : torch.dtype
        Of the network.

    Returns
    -------
    Tensor, shape (N, C, H, W)
        In [-1, 1].
    """
    noise = seeded_noise(seeds, denoiser.shape, device, dtype)
    *_, last = sample(denoiser, noise, denoiser.schedule.times(steps))
    return last.x0.clamp(-1, 1)


def health(denoiser: Denoiser, x_t: Tensor, t: int | float) -> Health:
    """Return the health of J at one noisy sample, from the dense Jacobian: n products.

    Parameters
    ----------
    denoiser : Denoiser
    x_t : Tensor, shape (C, H, W) or (1, C, H, W)
    t : int or float
        Time of the denoiser's schedule.
    """
    J = JacobianOperator(denoiser, x_t, t).dense().astype(np.float64)
    values = np.linalg.eigvalsh((J + J.T) / 2)
    asymmetry = np.linalg.norm(J - J.T) / np.linalg.norm(J + J.T)
    return Health(float(np.trace(J)), float(asymmetry), float(values[0]), float(values[-1]))


def health_by_products(denoiser: Denoiser, x_t: Tensor, t: int | float) -> Health:
    """Return the health of J at one noisy sample from products only: estimates for a J that is too
    large to be dense.

    Parameters
    ----------
    denoiser, x_t, t
        As in `health`.

    Warns
    -----
    ConvergenceWarning
        If an end of the spectrum of the symmetric part was not found.
    """
    J = JacobianOperator(denoiser, x_t, t)
    S = symmetric_part(J)
    low, high = (
        eigenpairs(S, 1, which, symmetric=True, rtol=1e-3).values[0] for which in ("SR", "LR")
    )
    total, apart = trace(J), asymmetry(J)
    return Health(
        total.value,
        apart.value,
        float(low.real),
        float(high.real),
        total.standard_error,
        apart.standard_error,
    )


def distances(
    classifier: Classifier, images: Tensor, reference: Tensor, batch_size: int = 500
) -> dict[str, float]:
    """Return the Frechet and the kernel distance between two sets of images in the classifier's
    features.

    Parameters
    ----------
    images, reference : Tensor, (N, 1, 32, 32) in [-1, 1]
        Sets of one size: the Frechet distance is biased by it, and halves of real digits of that
        size calibrate it.

    Returns
    -------
    dict
        "frechet", "kernel" and "kernel_deviation", the standard deviation of the kernel distance
        over 100 subsets of 500, or of half where there are fewer than 1,000.

    References
    ----------
    Heusel et al. (2017), *GANs trained by a two time-scale update rule*; Binkowski et al. (2018),
    *Demystifying MMD GANs*.
    """
    from torchmetrics.image.fid import (
        FrechetInceptionDistance,  # seconds: not for those who only look at J
    )
    from torchmetrics.image.kid import KernelInceptionDistance

    for name, given in (("images", images), ("reference", reference)):
        check_images(name, given)
    features, fewest = Features(classifier), min(len(images), len(reference))
    frechet = FrechetInceptionDistance(feature=features)
    with warnings.catch_warnings():
        # 1 MB here
        warnings.filterwarnings(
            "ignore", "Metric `Kernel Inception Distance` will save all extracted features"
        )
        kernel = KernelInceptionDistance(
            feature=features, subsets=100, subset_size=max(2, min(500, fewest // 2))
        )
    for real, batch in [(True, reference), (False, images)]:
        for i in range(0, len(batch), batch_size):
            for metric in (frechet, kernel):
                metric.update(batch[i : i + batch_size], real=real)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # the subsets
        mean, deviation = kernel.compute()
    return {
        "frechet": float(frechet.compute()),
        "kernel": float(mean),
        "kernel_deviation": float(deviation),
    }


class Features(nn.Module):
    """The classifier's features as torchmetrics wants them, a module with `num_features`; images
    are in [-1, 1].
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.num_features = classifier.num_features

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features, (N, num_features)."""
        return self.classifier.features(images).cpu()  # where torchmetrics sums them, in float64

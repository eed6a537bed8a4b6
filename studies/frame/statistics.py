"""Scores of images against the truth, and means and rates with 95 % intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mnist.classifier import Classifier

Interval = tuple[float, float, float]
NORMAL = 1.959963984540054
"""The normal distribution's quantile at 0.975."""


def mean_interval(values: ArrayLike, together: int = 1) -> Interval:
    """Return the mean and its 95 % interval by Student's t: (mean, low, high); the interval is NaN
    for one value. Of several intervals `together` says how many shall hold at once (Bonferroni).
    """
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    from scipy.stats import t  # takes a quarter of a second to import

    error = values.std(ddof=1) / np.sqrt(len(values))
    reach = float(t.isf(0.025 / together, len(values) - 1) * error)
    return mean, mean - reach, mean + reach


def over_digits(values: ArrayLike, digits: ArrayLike) -> NDArray[Any]:
    """Return the mean over the samples of each digit, along the first axis: noises of one digit are
    not independent samples, and an interval counts them as one.
    """
    values, digits = np.asarray(values), np.asarray(digits)
    return np.stack([values[digits == digit].mean(0) for digit in dict.fromkeys(digits.tolist())])


def ratio_interval(values: ArrayLike, references: ArrayLike, *, together: int = 1) -> Interval:
    """Return the ratio of the means of pairs and its 95 % interval by the delta method: (ratio,
    low, high); see `mean_interval`.
    """
    values, references = (np.asarray(given, dtype=np.float64) for given in (values, references))
    ratio, scale = float(values.mean() / references.mean()), float(references.mean())
    _, low, high = mean_interval((values - ratio * references) / scale, together)
    return ratio, ratio + low, ratio + high


def rate_interval(successes: float, trials: int) -> Interval:
    """Return a rate and its 95 % interval by Wilson's score: (rate, low, high).

    Of trials that are themselves means of several outcomes, their sum is no integer, and the
    interval is too wide: a mean in [0, 1] varies no more than an outcome.
    """
    rate, share = successes / trials, NORMAL**2 / trials
    middle = (rate + share / 2) / (1 + share)
    reach = np.sqrt(rate * (1 - rate) * share + share**2 / 4) / (1 + share)
    return rate, float(max(middle - reach, 0)), float(min(middle + reach, 1))


def fraction_interval(values: ArrayLike) -> Interval:
    """Return the mean of values in [0, 1], one for each independent sample, with `rate_interval`:
    Student's t has no width where all are 0 or 1.
    """
    values = np.asarray(values, dtype=np.float64)
    return rate_interval(float(values.sum()), len(values))


def middle_of(times: ArrayLike) -> int:
    """Return where the middle one of some noise levels stands, in whatever order they are."""
    order = np.argsort(times)
    return int(order[len(order) // 2])


WINDOW = 11
"""Pixels of the window of SSIM, half of which is mirrored at the edges."""


@torch.no_grad()
def fidelity(images: Tensor, truth: Tensor) -> dict[str, NDArray[Any]]:
    """Return "psnr" in dB (peak 2) and, from 6x6 pixels on, "ssim" of images, (N, c, H, W), clamped
    to [-1, 1], arrays of shape (N,).
    """
    images = images.clamp(-1, 1)
    error = (images - truth).square().flatten(1).mean(1).clamp(min=1e-10)
    psnr = {"psnr": (10 * torch.log10(4 / error)).cpu().numpy()}
    if min(images.shape[-2:]) < WINDOW // 2 + 1:
        return psnr
    from torchmetrics.functional import image as metrics  # takes seconds to import

    ssim = metrics.structural_similarity_index_measure(
        images, truth, data_range=(-1.0, 1.0), reduction="none"
    )
    assert isinstance(ssim, Tensor)
    return psnr | {"ssim": ssim.cpu().numpy()}


def class_of(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, (N,); -1 where they are no numbers, as of a sample
    that diverged.
    """
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


@torch.no_grad()
def scores(
    images: Tensor, truth: Tensor, labels: Tensor, classifier: Classifier
) -> dict[str, NDArray[Any]]:
    """Return what each image of a digit is worth, arrays of shape (N,).

    Parameters
    ----------
    images, truth : Tensor, shape (N, 1, 32, 32)
        Images are clamped to [-1, 1].
    labels : Tensor, shape (N,)
        The true digits.
    classifier : Classifier
        The judge.

    Returns
    -------
    dict
        What `fidelity` returns, "agreement" (whether the judge names the true digit) and "doubt",
        the judge's cross-entropy of it in nats; an image that is no number shows no digit.
    """
    logits = classifier(images.clamp(-1, 1))
    doubt = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return fidelity(images, truth) | {
        "agreement": (class_of(logits) == labels).cpu().numpy(),
        "doubt": doubt.cpu().numpy(),
    }

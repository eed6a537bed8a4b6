r"""The dimension of the manifold of digits around a digit, from J of a denoiser, in two ways.

    FLIPD     alpha tr J + |x_t - alpha D|^2 / sigma^2     at the noiseless input x_t = alpha x0
    the gap   eigenvalues of alpha (J + J^T) / 2 before the largest gap     at x_t with noise

*FLIPD* (Kamkari et al., NeurIPS 2024, arXiv 2406.03537). The data blurred by `tau = sigma / alpha`
have a density p, which near a manifold of dimension d is proportional to tau^(d - n). By the heat
equation `d log p / d log tau = tau^2 (div s + |s|^2)` with the score s. Tweedie's `D = y + tau^2 s`
at `y = x_t / alpha` gives `tau^2 div s = alpha tr J - n` and `tau^2 |s|^2 = |x_t - alpha D|^2 /
sigma^2`, so that d, which is n plus the derivative, is the line above.

Its bias is c tau^2 to first order (c = 1 / 4 R^2 on a circle of radius R), so that two levels
extrapolate to tau = 0. The *stated interval* is the extrapolated value, give or take the correction
and the interval of the trace; nothing in it is fitted.

*The gap* (Stanczuk et al., ICML 2024, arXiv 2212.12611, by the scores in place of J): alpha J
becomes the projection on the tangent space as tau goes to 0, with d eigenvalues near 1 and the
others near 0. The count is stated as exact.

Four results on digits need an explanation.

* FLIPD is negative, because tr J is. For a posterior mean J is a covariance, and tr J is not
  negative: ten Gaussians on the same digits show it. But at the noiseless input the network is no
  posterior mean, because it never saw so little noise at that time. In the background it has to
  return the noise by `eps = (x_t - alpha D) / sigma`, whose slope has to be 1 / sigma. Without
  noise the slope is up to a fifth too large, so that alpha J_ii is negative by that share, in each
  of 600 to 800 pixels. The slope depends on the noise of the whole image, as the network's
  normalisation over all pixels suggests: noise in the other half alone more than halves
  the excess. With all the noise tr J is positive, and background pixels add nothing to it.
* The rank correlation with PNG owes to the same: with fewer pixels of background less is
  subtracted, and the file is larger. The table has it also for digits of equal background.
* With the noise in place FLIPD says nothing of a dimension: `p (div s + |s|^2)` is a divergence,
  whose integral is 0, so that the mean of FLIPD over x_t is n = 1,024 for every distribution.
* The spectrum on digits decays without a gap. The largest gap lies behind the first few
  eigenvalues, where it separates large eigenvalues from larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

import mnist
from jacobian_lab import (
    Denoiser,
    Estimate,
    GaussianMixture,
    InputError,
    JacobianOperator,
    restriction,
    trace,
)
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from studies.claims.dimension_plot import plot
from studies.claims.dimension_table import findings, table
from studies.claims.manifolds import MANIFOLDS
from studies.frame.answer import Answer
from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.figure_text import subject
from studies.frame.models import load_model
from studies.frame.options import OnDigits, model_files
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect

DIMENSIONS = (1, 2, 5, 10)
LEVELS = (50, 100)
"""Times on the manifolds: sigma / alpha is 0.18 and 0.34, where pixels are of size 1."""
LEADING = 32
"""Eigenvalues that are kept of those on manifolds."""
PROBES = {"sketch": 0, "probes": 16}
"""Of the trace on digits: without noise J is far from a low rank, and a sketch would be wasted."""
MIDDLE = SHAPE[-1] // 2
"""Column at which an image is halved."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the noise, from the noiseless input of FLIPD to x_t."""


@dataclass(frozen=True)
class Dimension(OnDigits):
    """Estimate the local dimension of digits from J. Example: jacobian-lab dimension --digits 20
    --spectra 2 --seeds 2.
    """

    digits: int = 100
    """Digits of FLIPD, from `digit` on; classes alternate."""
    spectra: int = 10
    """Digits among them whose dense J is taken, for the gap and for where tr J is negative."""
    times: tuple[int | float, ...] = (50, 100, 200, 300)
    """Noise levels, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    seeds: int = 20
    """Manifolds of each kind and dimension, 1, 2, 5 and 10."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        self.check_digits()
        if self.digits % 10 or self.digits < 20:
            raise InputError(f"--digits must be a multiple of 10 from 20 on: got {self.digits}")
        if not 2 <= self.spectra <= self.digits:
            raise InputError(f"--spectra must lie from 2 to {self.digits}: got {self.spectra}")
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1: got {self.seeds}")


def compute(config: Dimension, pieces: Pieces) -> Arrays:
    """Return the parts of FLIPD and spectra, on manifolds, on the mixture and on digits."""
    seeds = range(config.seed, config.seed + config.seeds)
    known = collect(
        pieces, "manifolds", on_manifold, kind=tuple(MANIFOLDS), dimension=DIMENSIONS, drawn=seeds
    )
    denoiser = load_model(config.model, config.device)
    numbers = range(config.digit, config.digit + config.digits)
    images = mnist.digits("held-out")[0][list(numbers)]
    alpha = {t: float(denoiser.schedule(t)[0]) for t in config.times}
    clean, count = images.to(config.device), [range(config.digits), range(config.spectra)]
    noiseless = collect(
        pieces,
        "digits",
        lambda t, k: flipd(denoiser, alpha[t] * clean[k], t, numbers[k], **PROBES),
        time=config.times,
        digit=count[0],
    )
    near = partial(_with_noise, config, denoiser, images)
    noisy = collect(pieces, "spectra", near, time=config.times, digit=count[1])
    mixture = pieces("mixture", lambda: on_mixture(denoiser, images, config.times))
    return {
        **known,
        **noiseless,
        **noisy,
        **mixture,
        **subject(config),
        "kind": np.array(list(MANIFOLDS)),
        "dimension": np.array(DIMENSIONS),
        "time": np.array(config.times),
        "ratio": np.array([float(s / a) for a, s in map(denoiser.schedule, config.times)]),
        "share": np.array(SHARES),
        "label": np.array([number % 10 for number in numbers]),
        "png": np.array([png_size(image) for image in images]),
        "background": background(images).sum((1, 2, 3)).numpy(),
        "far": (background(images[: config.spectra]) & far()).sum((1, 2, 3)).numpy(),
    }


def flipd(
    denoiser: Denoiser, x: Tensor, t: int | float, seed: int, sketch: int = 16, probes: int = 32
) -> Arrays:
    """Return the parts of FLIPD at an input, (1, 32, 32): `alpha tr J` with its standard error, by
    the random vectors of a seed, and `|x - alpha D|^2 / sigma^2`.
    """
    alpha_t = float(denoiser.schedule(t)[0])
    total = trace(JacobianOperator(denoiser, x, t), sketch=sketch, probes=probes, seed=seed)
    return _scaled("trace", alpha_t, total) | {
        "misfit": np.array(noise_energy(denoiser, x, t)),
        "trace_reach": np.array(alpha_t * np.ptp(total.interval()) / 2),
    }


@torch.no_grad()
def noise_energy(denoiser: Denoiser, x: Tensor, t: int | float) -> float:
    """Return `|x_t - alpha D|^2 / sigma^2`, the squared length of the noise that is seen."""
    alpha_t, sigma_t = map(float, denoiser.schedule(t))
    return float((x - alpha_t * denoiser(x, t)).double().square().sum()) / sigma_t**2


def symmetric_spectrum(denoiser: Denoiser, dense: NDArray[Any], t: int | float) -> NDArray[Any]:
    """Return the eigenvalues of `alpha (J + J^T) / 2`, falling."""
    alpha_t = float(denoiser.schedule(t)[0])
    return alpha_t * np.linalg.eigvalsh((dense + dense.T).astype(np.float64) / 2)[::-1]


def on_manifold(kind: str, dimension: int, drawn: int) -> Arrays:
    """Return the parts of FLIPD at a point of a manifold at both levels, and the leading
    eigenvalues at the first with noise.
    """
    denoiser, x0 = MANIFOLDS[kind](dimension, drawn)
    schedule, found = denoiser.schedule, dict[str, list[Any]]()
    for t in LEVELS:
        alpha_t, sigma_t = map(float, schedule(t))
        for name, value in flipd(denoiser, alpha_t * x0, t, drawn).items():
            found.setdefault(f"known_{name}", []).append(value)
        found.setdefault("known_ratio", []).append(sigma_t / alpha_t)
    x_t = noisy_digit(denoiser, x0, LEVELS[0], drawn)
    J = JacobianOperator(denoiser, x_t, LEVELS[0])
    leading = symmetric_spectrum(denoiser, J.dense(), LEVELS[0])[:LEADING]
    return {name: np.array(values) for name, values in found.items()} | {"leading": leading}


def _with_noise(
    config: Dimension, denoiser: Denoiser, images: Tensor, t: int | float, digit: int
) -> Arrays:
    """Return the spectrum at a digit with noise, the parts of FLIPD with shares of it, and the
    background's share of `alpha tr J`, without noise and with it.
    """
    image, number = images[digit].to(config.device), config.digit + digit
    alpha_t = float(denoiser.schedule(t)[0])
    clean = alpha_t * image
    x_t = noisy_digit(denoiser, image, t, config.seed, number)[0]
    dense = JacobianOperator(denoiser, x_t, t).dense()
    parts = [
        flipd(denoiser, clean + share * (x_t - clean), t, number, **PROBES) for share in SHARES
    ]
    inside = background(images[digit][None])[0]
    without = restriction(JacobianOperator(denoiser, clean, t), inside)
    half = torch.cat([x_t[..., :MIDDLE], clean[..., MIDDLE:]], dim=-1)
    beside = restriction(JacobianOperator(denoiser, half, t), inside & far())
    return {
        "spectrum": symmetric_spectrum(denoiser, dense, t),
        "background_noisy": alpha_t * np.diag(dense)[inside.flatten().numpy()].sum(),
        **_scaled("background_trace", alpha_t, trace(without, seed=number, **PROBES)),
        **_scaled("far_trace", alpha_t, trace(beside, seed=number, **PROBES)),
        **{f"share_{name}": np.array([part[name] for part in parts]) for name in parts[0]},
    }


def background(images: Tensor) -> Tensor:
    """Return where an image, (N, 1, 32, 32), is black two pixels around: bool."""
    return max_pool2d(images, 5, 1, 2) <= -1


def far() -> Tensor:
    """Return the pixels that are six or more beyond the middle column, (1, 32, 32): bool."""
    return (torch.arange(SHAPE[-1]) >= MIDDLE + 6).expand(SHAPE)


def png_size(image: Tensor) -> int:
    """Return the bytes of a digit, (1, 32, 32), as a PNG of 8 bits."""
    from PIL import Image

    pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return buffer.tell()


def on_mixture(denoiser: Denoiser, images: Tensor, times: tuple[int | float, ...]) -> Arrays:
    """Return FLIPD of ten Gaussians at noiseless digits, (times, digits)."""
    oracle: GaussianMixture = load_oracle(dtype=torch.float64).network.oracle  # type: ignore[attr-defined]
    ratios = [sigma / alpha for alpha, sigma in map(denoiser.schedule, times)]
    near = [int(oracle.schedule.time_of(ratio)) for ratio in ratios]
    found = [mixture_flipd(oracle, images.double(), t) for t in near]
    return {"mixture_flipd": torch.stack(found).numpy()}


def mixture_flipd(oracle: GaussianMixture, x0: Tensor, t: int) -> Tensor:
    """Return FLIPD of a mixture at noiseless samples, (B, *shape) -> (B,), exact: there is `alpha
    tr J = (alpha / sigma)^2 tr Cov[x0 | x_t]`.
    """
    alpha_t, sigma_t = map(float, oracle.schedule(t))
    flat = x0.flatten(1)
    weights, means, variances = oracle.posterior(alpha_t * flat, t)
    mean = torch.einsum("bk,bki->bi", weights, means)
    spread = (means - mean[:, None]).square().sum(-1)
    total = (weights * (variances.sum(-1) + spread)).sum(1)
    return (alpha_t / sigma_t) ** 2 * (total + (flat - mean).square().sum(1))


def _scaled(name: str, factor: float, found: Estimate[float]) -> Arrays:
    return {
        name: np.array(factor * found.value),
        f"{name}_error": np.array(factor * found.standard_error),
    }


KNOWN, AT = "kind dimension drawn level", "time spectrum_digit"
VARIABLES = {
    **SUBJECT,
    "kind": Variable("kind", "manifold: a random subspace, or a product of circles"),
    "dimension": Variable("dimension", "of the manifold"),
    "known_trace": Variable(KNOWN, "alpha tr J at a point of the manifold"),
    "known_trace_error": Variable(KNOWN, "its standard error"),
    "known_trace_reach": Variable(KNOWN, "half of its 95 % interval"),
    "known_misfit": Variable(KNOWN, "|x_t - alpha D|^2 / sigma^2 there"),
    "known_ratio": Variable(KNOWN, "sigma / alpha"),
    "leading": Variable("kind dimension drawn eigenvalue", "of alpha (J + J^T) / 2, with noise"),
    "time": TIME,
    "ratio": Variable("time", "sigma / alpha"),
    "share": Variable("share", "share of the noise in the input"),
    "label": Variable("digit", "what the digit shows"),
    "png": Variable("digit", "size of the digit as a PNG of 32x32 pixels", "bytes"),
    "trace": Variable("time digit", "alpha tr J at the noiseless digit"),
    "trace_error": Variable("time digit", "its standard error"),
    "trace_reach": Variable("time digit", "half of its 95 % interval"),
    "misfit": Variable("time digit", "|x_t - alpha D|^2 / sigma^2 there"),
    "mixture_flipd": Variable("time digit", "FLIPD of ten Gaussians there, exact"),
    "spectrum": Variable(f"{AT} mode", "eigenvalues of alpha (J + J^T) / 2 with noise, falling"),
    "share_trace": Variable(f"{AT} share", "alpha tr J with a share of the noise"),
    "share_trace_error": Variable(f"{AT} share", "its standard error"),
    "share_trace_reach": Variable(f"{AT} share", "half of its 95 % interval"),
    "share_misfit": Variable(f"{AT} share", "|x_t - alpha D|^2 / sigma^2 there"),
    "background": Variable("digit", "pixels that are black two pixels around"),
    "background_trace": Variable(AT, "part of alpha tr J in the background, without noise"),
    "background_trace_error": Variable(AT, "its standard error"),
    "far": Variable("spectrum_digit", "pixels of the background six beyond the middle column"),
    "far_trace": Variable(AT, "part of alpha tr J in them, with noise in the other half alone"),
    "far_trace_error": Variable(AT, "its standard error"),
    "background_noisy": Variable(AT, "part of alpha tr J in the background, with noise"),
}
STUDY = Study(
    "dimension",
    Dimension,
    compute,
    table,
    plot,
    models=model_files,
    answer=Answer(
        keeps=lambda row: row["answer"] == "yes", columns=("quantity", "of", "value"), across="of"
    ),
    variables=VARIABLES,
    findings=findings,
)

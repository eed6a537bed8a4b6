r"""Editing directions: moves of x_t that change a region of the clean estimate and nothing else.

With the rows of J of a region, `A = P J`, and those of the rest, `B = (I - P) J`, LOCO-Edit takes

    v      the leading right singular vector of A
    v_0    v less its part in the leading right singular vectors of B,  (I - V V^T) v

and moves x_t along v_0: to first order the rest stays. V holds as many vectors as have a share of
|B|_F^2. How far first order reaches, D tells: `D(x_t + s v) - D(x_t)` against `s J v`.

Directions of a bottleneck's Jacobian H (Park et al. 2023) are looked at beside: how much of |J| its
leading right singular vector has.

References
----------
Chen, Zhang, Wang, Fessler, Ravishankar, Qu (2024), *Exploring low-dimensional subspaces in
diffusion models for controllable image editing*, arXiv 2409.02374. Park, Kwon, Choi, Jo, Uh (2023),
*Understanding the latent space of diffusion models through the lens of Riemannian geometry*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    GaussianMixture,
    InputError,
    JacobianOperator,
    gaussian,
    inner_layer,
    operator_of,
    singular_values,
)
from studies.claims.editing_plot import plot
from studies.claims.editing_report import ANSWER, SHOWN, STEPS, WAYS, findings, table
from studies.frame.dataset import IMAGE, SAMPLES, SUBJECT, TIME, Variable
from studies.frame.figure_text import subject
from studies.frame.options import model_files
from studies.frame.study import Arrays, Pieces, Study
from studies.frame.survey import Points, Survey, collect

Array = NDArray[np.float64]
LARGEST = 4096
"""Size n of the largest dense J."""
BOTTLENECK = "middle_b"
"""The bottleneck of the models that ship."""


@dataclass(frozen=True)
class Editing(Survey):
    """Edit a region of a digit along one direction. Example: jacobian-lab editing --digits 4
    --times 500.
    """

    digits: int = 20
    """Digits of the survey: this many, from `digit` on."""
    times: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels of the survey, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    energy: float = 0.99
    """Share of |B|_F^2 that the singular vectors hold which are projected out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.energy < 1:
            raise InputError(f"--energy must lie between 0 and 1: got {self.energy:g}")


def region_of(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the region that is edited, the right upper quarter, (C, H, W)."""
    mask = np.zeros(shape, dtype=bool)
    mask[..., : shape[-2] // 2, shape[-1] // 2 :] = True
    return mask


def directions(J: Array, region: NDArray[np.bool_], share: float) -> tuple[Array, int]:
    """Return unit vectors, (2, n): the leading right singular vector of the region's rows of J, and
    the same without its part in those of the other rows; and how many of these there are.
    """
    inside = region.reshape(-1)
    leading = np.linalg.svd(J[inside], full_matrices=False)[2][0]
    _, sizes, V = np.linalg.svd(J[~inside], full_matrices=False)
    held = np.cumsum(sizes**2) / np.sum(sizes**2)
    rank = int(np.searchsorted(held, share)) + 1
    projected = leading - V[:rank].T @ (V[:rank] @ leading)
    return np.stack([leading, projected / np.linalg.norm(projected)]), rank


def changes(denoiser: Denoiser, x_t: Tensor, t: int | float, moves: Array) -> Array:
    """Return D(x_t + move) - D(x_t) of moves, (k, n), in float64."""
    moved = x_t + torch.from_numpy(moves).to(x_t).reshape(-1, *x_t.shape[1:])
    with torch.no_grad():
        found = torch.cat([denoiser(one, t) for one in torch.split(moved, 64)]) - denoiser(x_t, t)
    return np.asarray(found.double().flatten(1).cpu().numpy())


def edited(points: Points, share: float, t: int | float, sample: int) -> Arrays:
    """Return what the edits of one noisy sample change, in the region and beside it."""
    J = points.operator(t, sample)
    denoiser, x_t = J.products.denoiser, J.products.x
    region = region_of(J.sample_shape)
    dense = J.dense().astype(np.float64)
    found, rank = directions(dense, region, share)
    rng = np.random.default_rng(sample)
    noise = np.where(region.reshape(-1), rng.standard_normal(J.shape[0]), 0.0)
    ways = np.stack([*found, noise / np.linalg.norm(noise)])
    length = float(x_t.double().norm())
    moves = np.concatenate([s * length * sign * ways for s in STEPS for sign in (1, -1)])
    moved = changes(denoiser, x_t, t, moves).reshape(len(STEPS), 2, len(WAYS), -1)
    expected = ways @ dense.T
    told = np.array(STEPS)[:, None, None, None] * length * np.array([1, -1])[:, None, None]
    k = STEPS.index(SHOWN)
    return {
        "leak": _leak(moved, region).mean(1),
        "leak_to_first_order": _leak(expected, region),
        "cosine": _cosine(moved, told * expected).mean(1),
        "change": np.linalg.norm(moved, axis=-1).mean(1) / np.sqrt(J.shape[0]),
        "rank": np.array(rank),
        "of_bottleneck": np.array(of_bottleneck(denoiser, x_t, t, dense)),
        "clean": J.products.d.double().reshape(J.sample_shape).cpu().numpy(),
        "edit": moved[k].reshape(2, len(WAYS), *J.sample_shape),
    }


def of_bottleneck(denoiser: Denoiser, x_t: Tensor, t: int | float, J: Array) -> float:
    """Return |J h| / |J| for the leading right singular vector h of the bottleneck's Jacobian; NaN
    if the network has no such layer.
    """
    network = denoiser.network
    if not isinstance(network, nn.Module) or BOTTLENECK not in dict(network.named_modules()):
        return float("nan")
    H = operator_of(inner_layer(denoiser, t, BOTTLENECK), x_t)
    found = singular_values(H, 1, rtol=1e-4)
    return float(np.linalg.norm(J @ found.right[:, 0]) / np.linalg.norm(J, 2))


def oracle(share: float = 1 - 1e-12) -> Arrays:
    """Return what is known of a Gaussian whose region and rest share some directions, and what the
    edit finds.

    D is affine, so that first order is exact; J has rank 12, of which the rest sees 8, so that the
    projected direction changes nothing there.
    """
    rng, shape = np.random.default_rng(0), (1, 8, 8)
    region = region_of(shape).reshape(-1)
    factor = rng.standard_normal((64, 12))
    factor[~region, 8:] = 0  # four directions of the region alone
    covariance = torch.from_numpy(factor @ factor.T)
    prior: GaussianMixture = gaussian(
        torch.zeros(64, dtype=torch.float64), covariance, DiscreteSchedule.linear(), shape
    )
    denoiser, t = prior.denoiser(), 500
    x_t = torch.from_numpy(rng.standard_normal((1, *shape)))
    J = JacobianOperator(denoiser, x_t, t).dense()
    truth = prior.jacobian(x_t, t)[0].numpy()
    found, rank = directions(truth, region, share)
    moved = changes(denoiser, x_t, t, 0.5 * float(x_t.norm()) * found)
    told = 0.5 * float(x_t.norm()) * found @ truth.T
    return {
        "oracle": np.array(
            [
                np.linalg.norm(J - truth) / np.linalg.norm(truth),
                np.linalg.norm(moved - told) / np.linalg.norm(told),
                _leak(moved, region)[1],
                float(abs(rank - 8)),
            ]
        )
    }


def compute(config: Editing, pieces: Pieces) -> Arrays:
    """Return leaks, (times, samples, steps, ways), and what belongs to them."""
    points = config.points()
    if points.model.size > LARGEST or len(points.model.denoiser.shape) != 3:
        raise InputError(
            f"editing takes the dense J of images, and --model {config.model} has samples of"
            f" {points.model.denoiser.shape}: expected (C, H, W) of at most {LARGEST:,} numbers"
        )
    found = collect(
        pieces,
        "editing",
        lambda t, sample: edited(points, config.energy, t, sample),
        time=config.times,
        sample=range(len(points.samples)),
    )
    return (
        found
        | oracle()
        | {
            "time": np.array(config.times),
            "step": np.array(STEPS),
            "way": np.array(WAYS),
            "region": region_of(points.model.denoiser.shape),
            **points.coordinates(),
            **subject(config),
        }
    )


def _leak(change: Array, region: NDArray[np.bool_]) -> Array:
    """Return the share of a change, (..., n), that lies outside of the region."""
    outside = change[..., ~region.reshape(-1)]
    return np.asarray(np.linalg.norm(outside, axis=-1) / np.linalg.norm(change, axis=-1))


def _cosine(a: Array, b: Array) -> Array:
    return np.asarray((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))


OF_STEPS = "time sample step way"
VARIABLES: dict[str, Any] = {
    **SUBJECT,
    **SAMPLES,
    "time": TIME,
    "step": Variable("step", "length of the move of x_t, relative to |x_t|"),
    "way": Variable("way", "which direction x_t moves along"),
    "region": Variable(IMAGE, "the region that is edited"),
    "leak": Variable(OF_STEPS, "share of |D(x_t + s v) - D(x_t)| outside of the region"),
    "leak_to_first_order": Variable("time sample way", "the same of J v"),
    "cosine": Variable(OF_STEPS, "cosine of D(x_t + s v) - D(x_t) and J v, mean of s and -s"),
    "change": Variable(OF_STEPS, "root mean square of D(x_t + s v) - D(x_t)"),
    "rank": Variable("time sample", "singular vectors that were projected out"),
    "of_bottleneck": Variable("time sample", "|J h| / |J|, h of the bottleneck's Jacobian"),
    "clean": Variable(f"time sample {IMAGE}", "D(x_t)"),
    "edit": Variable(f"time sample sign way {IMAGE}", "D(x_t + s v) - D(x_t) and with -s"),
    "oracle": Variable("check", "errors on a Gaussian: of J, of first order, leak, rank"),
}
STUDY = Study(
    "editing",
    Editing,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
    findings=findings,
)

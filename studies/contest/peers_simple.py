r"""What all peers share, and the methods that are a few lines on a `Denoiser`: DDIM alone, MPGD and
DDNM.

A run is `run(denoiser, problem, seeds, steps, **parameters) -> images`: a linear problem `y = A x +
sigma noise` of B samples in, as many estimates out, (B, C, H, W), in [-1, 1] but not clamped. Each
sample has its own seed, for the noise that it starts from and for all that is added on the way, so
that a run does not depend on its batch (`SeededNoise`). Times are those of our sampler,
`denoiser.schedule.times(steps)`, the last step leading to the clean image, with one exception,
DiffPIR.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import DiscreteSchedule
from jacobian_lab.sampling.sampler import sample
from studies.contest.methods.noise_levels import even_steps, stepped
from studies.contest.methods.seeds import SeededNoise, start_noise


def unconstrained(denoiser: Denoiser, _: Constraint, seeds: Sequence[int], steps: int) -> Tensor:
    """Return samples of DDIM that have not heard of the problem: what every method has to improve
    on.
    """
    *_states, last = sample(denoiser, start_noise(denoiser, seeds), denoiser.schedule.times(steps))
    return last.x0


def time_table(denoiser: Denoiser) -> list[int] | list[float]:
    """Return the times that the libraries know, from the least noise on: those of a table, or 1,000
    even ones of a continuous schedule, which leave out pure noise, where alpha is 0.
    """
    schedule = denoiser.schedule
    if isinstance(schedule, DiscreteSchedule):
        return list(range(schedule.steps))
    return schedule.times(1001)[:0:-1]


@torch.no_grad()
def mpgd(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    scale: float = 7.5,
    eta: float = 0.5,
) -> Tensor:
    r"""Manifold preserving guided diffusion, without an autoencoder: DPS whose gradient stops at
    the clean image.

        x_0 = clamp(D(x_t)),   x_s = DDIM(x_0, x_t) - scale grad |y - A x_0|, by x_0

    Parameters
    ----------
    scale : float
        The authors take 17.5, 7.5, 4 for 20, 50, 100 steps, on 3 x 256 x 256 pixels; |y - A x_0|
        grows with the root of the number of observations, and the scale with it.
    eta : float
        Noise of DDIM.

    References
    ----------
    He et al. (2024), *Manifold preserving guided diffusion*, arXiv 2311.16424, as in the authors'
    linear_inv, mpgd_wo_proj.
    """
    x = start_noise(denoiser, seeds)
    with SeededNoise(seeds):
        for now, after in even_steps(denoiser, steps):
            x0 = now.mean(denoiser, x).clamp(-1, 1)
            missing = problem.missing(x0)
            size = (
                missing.flatten(1)
                .norm(dim=1)
                .clamp(min=torch.finfo(x.dtype).tiny)
                .reshape(-1, 1, 1, 1)
            )
            x = stepped(denoiser, x, x0, now, after, eta) + scale * problem.adjoint(missing) / size
    return x


@torch.no_grad()
def ddnm(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    eta: float = 0.85,
) -> Tensor:
    r"""Denoising diffusion null-space model, in its variant for noise with one weight for all of
    the range (DDNM+).

        x_0 = D + lambda A^+ (y - A D),   x_s = alpha_s x_0 + gamma (eta z + sqrt(1 - eta^2) noise)

    with `lambda = min(1, sigma_s / (alpha_s sigma_y))` and `gamma^2 = sigma_s^2 - (alpha_s lambda
    sigma_y)^2`, sigma_y being the noise of `A^+ y` in a pixel; without noise lambda is 1 and y is
    met exactly.

    Parameters
    ----------
    eta : float
        Share of fresh noise z; 0.85 is the authors'.

    References
    ----------
    Wang, Yu, Zhang (2023), *Zero-shot image restoration using denoising diffusion null-space
    model*, arXiv 2212.00490, eqs. 13 and 17-19, in DDIM's form as in the authors' code; there
    sigma_y is the noise of y, since A^+ keeps its size.
    """
    x = start_noise(denoiser, seeds)
    sigma_y = problem.sigma * _gain(problem, len(seeds)).to(x)
    with SeededNoise(seeds):
        for now, after in even_steps(denoiser, steps):
            D = now.mean(denoiser, x)
            noise = (x - now.alpha * D) / now.sigma
            weight = (
                (after.ratio / sigma_y).clamp(max=1) if problem.sigma else torch.ones_like(sigma_y)
            )
            gamma = (after.sigma**2 - (after.alpha * weight * sigma_y) ** 2).clamp(min=0).sqrt()
            x0 = D + weight * problem.pseudo_inverse(problem.missing(D))
            fresh = eta * torch.randn_like(x) + (1 - eta**2) ** 0.5 * noise
            x = after.alpha * x0 + gamma * fresh
    return x


def _gain(problem: LinearConstraint, batch: int) -> Tensor:
    """Return by how much A^+ amplifies noise in the range of A, (B, 1, 1, 1): 1 for a mask."""
    probe = torch.randn(problem.y.shape[1:], generator=torch.Generator().manual_seed(0))
    probe = probe.to(problem.y).expand(batch, *problem.y.shape[1:])
    image = problem.pseudo_inverse(probe)
    return (image.flatten(1).norm(dim=1) / problem.forward(image).flatten(1).norm(dim=1)).reshape(
        -1, 1, 1, 1
    )

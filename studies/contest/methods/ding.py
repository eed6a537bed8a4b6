r"""DInG: decoupled inpainting guidance, for masks.

From t to s, with the predicted clean image D = D(x_t, t) and noise eps(x) = (x - alpha D) / sigma:

    z ~ N(alpha_s D + sqrt(sigma_s^2 - d^2) eps(x_t), d^2),   d = sigma_s (1 - alpha_s)
    x_s: the known pixels of z seen as alpha_s y + sigma_s eps(z), noise alpha_s sigma_y

that is, x_s is drawn from the product of that normal density of z and the likelihood, by pixels.
Two passes a step, and one for the last image: N steps cost 2 N - 1.

References
----------
Moufad et al. (2026), *Efficient zero-shot inpainting with decoupled diffusion guidance*, ICLR,
arXiv 2512.18365, as in the authors' code, d and sigma_y for observations without noise included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from studies.contest.methods.misfit import SMALLEST_NOISE, noise_of
from studies.contest.methods.noise_levels import even_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise


@torch.no_grad()
def ding(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    power: float = 1.0,
) -> Tensor:
    """Return samples.

    Parameters
    ----------
    power : float
        In d = sigma_s (1 - alpha_s)^power; the authors' "square" is 1, their "default" 1/2.
    """
    if not isinstance(problem, Inpainting):
        raise InputError(f"DInG knows masks only: got {type(problem).__name__}")
    x, sigma = start_noise(denoiser, seeds), noise_of(problem, SMALLEST_NOISE)
    problem.missing(x)  # tells whether y is a batch
    y, mask = problem.y.to(x), problem.mask.to(x.device).expand_as(x)
    with SeededNoise(seeds):
        for now, after in even_steps(denoiser, steps):
            D = now.mean(denoiser, x)
            if after.time is None:
                return D
            d = after.sigma * (1 - after.alpha) ** power
            eps = denoiser.noise(x, D, now.time)  # type: ignore[arg-type]
            mean = after.alpha * D + max(0.0, after.sigma**2 - d**2) ** 0.5 * eps
            z = mean + d * torch.randn_like(mean)
            eps = denoiser.noise(z, after.mean(denoiser, z), after.time)
            seen = after.alpha * y + after.sigma * eps
            precision = mask / (after.alpha * sigma) ** 2 + 1 / d**2
            mean = (mask * seen / (after.alpha * sigma) ** 2 + mean / d**2) / precision
            x = mean + precision**-0.5 * torch.randn_like(mean)
    return x


DING = Peer(
    "DInG",
    "ours",
    ding,
    {"power": 1.0},
    {"power": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)},
    Passes(2),
    28,
    "Moufad et al. 2026",
)

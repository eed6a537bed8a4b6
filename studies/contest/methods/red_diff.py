r"""RED-diff: an image that Adam moves, with the denoiser as its regulariser.

From mu = A^+ y, or 0 where A is not linear, one step of Adam at each time, from the noisiest down,
on

    |y - A mu|^2 / (2 m) + weight (sigma_t / alpha_t) <noise predicted - noise added, mu> / n

with x_t = alpha_t mu + sigma_t noise and the predictions held fixed: with the weight sigma_t /
alpha_t of the paper, the second term's gradient is `weight (mu - D(x_t)) / n`, which needs no pass
backward, and no sigma_t / alpha_t, infinite at the noisiest time of a flow.

References
----------
Mardani et al. (2024), *A variational perspective on solving inverse problems with diffusion
models*, ICLR, arXiv 2305.04391, algorithm 1; start, Adam's betas and weight as in the authors'
code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.misfit import observed_count, per_sample_shape, slope
from studies.contest.methods.noise_levels import even_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise


@torch.no_grad()
def red_diff(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    rate: float = 0.1,
    weight: float = 0.25,
) -> Tensor:
    """Return estimates: modes rather than samples.

    Parameters
    ----------
    rate : float
        Adam's.
    weight : float
        Of the regulariser.
    """
    like = start_noise(denoiser, seeds)
    mu = torch.zeros_like(like)
    if isinstance(problem, LinearConstraint):
        mu = mu + problem.pseudo_inverse(problem.y.to(like))
    m = torch.as_tensor(observed_count(problem)).to(like).reshape(-1)
    adam = torch.optim.Adam([mu], lr=rate, betas=(0.9, 0.99))
    with SeededNoise(seeds):
        for now, _ in even_steps(denoiser, steps):
            x = now.alpha * mu + now.sigma * torch.randn_like(mu)
            away = weight * (mu - now.mean(denoiser, x)) / mu[0].numel()
            mu.grad = slope(problem, mu) / per_sample_shape(m, mu) + away
            adam.step()
    return mu


RED_DIFF = Peer(
    "RED-diff",
    "ours",
    red_diff,
    {"rate": 0.1, "weight": 0.25},
    {"rate": (0.03, 0.1, 0.3, 1.0), "weight": (0.015, 0.06, 0.25, 1.0)},
    Passes(1),
    1000,
    "Mardani et al. 2024",
)

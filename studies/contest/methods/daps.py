r"""DAPS: decoupled annealing posterior sampling, in pixels and in latents.

At each noise level r of an annealing, with x = x_t / alpha_t:

    x_hat = x carried to r = 0.01 along the probability-flow ODE, `ode` steps of Euler's
    z ~ exp(-|z - x_hat|^2 / (2 r^2) - |y - A z|^2 / (2 tau^2)), `inner` Langevin steps from x_hat
    x = z + r' noise,  r' the next level

The Langevin steps, of size eta = rate (1 - 0.99 k / (N + 1)) at level k of N, need no pass
of the denoiser. With a momentum m > 0 they are those of damped Hamiltonian dynamics:

    v = m v + sqrt(eta) score(z) + sqrt(2 (1 - m)) noise,   z = z + sqrt(eta) v

References
----------
Zhang et al. (2025), *Improving diffusion inverse problem solving with decoupled noise annealing*,
CVPR, arXiv 2407.01521; momentum, levels and rates as in the authors' code. That code differentiates
`|y - A z|^2 / tau^2`; here it is halved, as in a Gaussian's likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.misfit import slope
from studies.contest.methods.noise_levels import NoiseLevel, ladder, ladder_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise


@torch.no_grad()
def daps(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    rate: float = 1e-4,
    ode: int = 5,
    tau: float = 0.01,
    inner: int = 100,
    momentum: float = 0.0,
    largest: float = 100.0,
) -> Tensor:
    """Return samples.

    Parameters
    ----------
    rate : float
        Size of a Langevin step at the first level; a hundredth of it is left at the last.
    ode : int
        Euler steps, a pass each, for each level.
    tau : float
        Noise that is taken for that of y, whatever it is.
    inner : int
        Langevin steps for each level.
    momentum : float
        In [0, 1); 0 is Langevin's.
    largest : float
        First noise level r; the last is near 0.1.
    """
    levels = ladder_steps(denoiser, steps, largest, 0.1)
    x = levels[0][0].ratio * start_noise(denoiser, seeds)
    with SeededNoise(seeds):
        for k, (now, after) in enumerate(levels):
            x_hat = _flow(denoiser, x, now, ode)
            eta = rate * (1 - 0.99 * k / (steps + 1))
            z = langevin(problem, x_hat, now.ratio, tau, eta, inner, momentum)
            x = z + after.ratio * torch.randn_like(z)
    return x


def _flow(denoiser: Denoiser, x: Tensor, start: NoiseLevel, steps: int) -> Tensor:
    """Return x, of noise `start`, with the little noise 0.01 left, by Euler's method in r."""
    levels = [start, *ladder(denoiser, steps + 1, start.ratio, 0.01)[1:]]
    for now, after in pairwise(levels):
        D = now.mean(denoiser, x, now.alpha)
        x = D + after.ratio / now.ratio * (x - D)
    return x


def langevin(
    problem: Constraint,
    x_hat: Tensor,
    r: float,
    tau: float,
    eta: float,
    steps: int,
    momentum: float,
) -> Tensor:
    """Return z after some steps of size eta from x_hat."""
    z = x_hat
    velocity = torch.randn_like(z) if momentum else torch.zeros_like(z)
    for _ in range(steps):
        score = (x_hat - z) / r**2 - slope(problem, z) / tau**2
        kick = (2 * (1 - momentum)) ** 0.5 * torch.randn_like(z)
        velocity = momentum * velocity + eta**0.5 * score + kick
        z = z + eta**0.5 * velocity
    return z


DAPS = Peer(
    "DAPS",
    "ours",
    daps,
    {"rate": 1e-4, "ode": 5, "tau": 0.01, "inner": 100, "momentum": 0.0, "largest": 100.0},
    {"rate": (3e-5, 1e-4, 1.8e-4, 1e-3), "ode": (1, 2, 5)},
    Passes(5),
    200,
    "Zhang et al. 2025",
)
LATENT_DAPS = Peer(
    "DAPS, latent",
    "ours",
    daps,
    {"rate": 1e-5, "ode": 2, "tau": 0.01, "inner": 30, "momentum": 0.9, "largest": 10.0},
    {"rate": (1e-6, 3e-6, 1e-5, 3e-5), "ode": (1, 2, 5)},
    Passes(2),
    50,
    "Zhang et al. 2025",
)

r"""PnP-Flow: gradient steps on the data, each followed by a flow's way there and back.

With s from 1 down to 1 / N in N steps,

    z = x - rate s^power A^T (A x - y)
    x = mean over `draws` of D((1 - s) z + s noise)

The rate is that of the paper over the variance of y's noise, which cancels there. A denoiser of
another schedule is asked at the time of the same sigma_t / alpha_t, of which it is the flow.

References
----------
Martin et al. (2025), *PnP-Flow: plug-and-play image restoration with flow matching*, ICLR, arXiv
2410.02423, algorithm 3 (time runs the other way there); settings as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.misfit import slope
from studies.contest.methods.noise_levels import flow_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise


@torch.no_grad()
def pnp_flow(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    rate: float = 1.0,
    power: float = 1.0,
    draws: int = 5,
) -> Tensor:
    """Return estimates: means rather than samples.

    Parameters
    ----------
    rate, power : float
        Of the gradient steps.
    draws : int
        Noisy images that are denoised at each step, a pass each.
    """
    x = torch.zeros_like(start_noise(denoiser, seeds))  # is forgotten at s = 1
    with SeededNoise(seeds):
        for now, _ in flow_steps(denoiser, steps):
            z = x - rate * now.share**power * slope(problem, x)
            x = torch.zeros_like(z)
            for _ in range(draws):
                noisy = now.alpha * z + now.sigma * torch.randn_like(z)
                x = x + now.mean(denoiser, noisy) / draws
    return x


PNP_FLOW = Peer(
    "PnP-Flow",
    "ours",
    pnp_flow,
    {"rate": 1.0, "power": 1.0, "draws": 5},
    {"rate": (0.5, 1.0, 1.8, 6.0, 20.0), "power": (0.0, 1.0), "draws": (1, 5)},
    Passes(5),
    100,
    "Martin et al. 2025",
)

r"""FlowChef: Euler's method along a flow, with a gradient step on the data whose gradient stops at
the clean image.

With x = x_t / (alpha_t + sigma_t), s its time as a flow's, s' the next and D the clean image:

    velocity v = (x - D) / s
    x = x - rate grad |y - A D|^2 / m, by D, at all steps but the last
    x = x + (s' - s) v

with m the size of y as a tensor, unknown pixels of a mask included, so that the gradient is that of
the mean of squares.

References
----------
Patel et al. (2025), *Steering rectified flow models in the vector field for controlled image
generation* (FlowChef), ICCV, arXiv 2412.00100, algorithm 1; step and settings as in the authors'
code for pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.misfit import missing, slope
from studies.contest.methods.noise_levels import flow_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import start_noise


@torch.no_grad()
def flow_chef(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    rate: float = 500.0,
) -> Tensor:
    """Return samples.

    Parameters
    ----------
    rate : float
        Of the gradient steps.
    """
    x = start_noise(denoiser, seeds)
    for now, after in flow_steps(denoiser, steps):
        D = now.mean(denoiser, x, now.alpha + now.sigma)
        velocity = (x - D) / now.share
        if after.time is not None:
            x = x - 2 * rate / missing(problem, D)[0].numel() * slope(problem, D)
        x = x + (after.share - now.share) * velocity
    return x


FLOW_CHEF = Peer(
    "FlowChef",
    "ours",
    flow_chef,
    {"rate": 500.0},
    {"rate": (30.0, 100.0, 250.0, 500.0, 800.0, 1000.0)},
    Passes(1),
    100,
    "Patel et al. 2025",
)

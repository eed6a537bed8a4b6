r"""FlowDPS: a flow's clean image and noise, each mixed with something better before the next step.

With x = x_t / (alpha_t + sigma_t), s its time as a flow's, s' the next, D the clean image and
x_1 = (x - (1 - s) D) / s the noise:

    d = D, then three times d = d - rate grad |A^T (y - A d)|, by d; A^+ for A^T where y has fewer
        numbers than x, as in super-resolution
    x_0 = (1 - s) D + s d,   noise = sqrt(s') x_1 + sqrt(1 - s') fresh
    x = (1 - s') x_0 + s' noise

References
----------
Kim, Kim, Ye (2025), *FlowDPS: flow-driven posterior sampling for inverse problems*, ICCV, arXiv
2503.08136, algorithm 1; the norm, three steps, their size and the times, shifted by 4, as in the
authors' code, which does this in latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.misfit import linear, per_sample_shape
from studies.contest.methods.noise_levels import flow_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise


@torch.no_grad()
def flow_dps(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    rate: float = 15.0,
    shift: float = 4.0,
    inner: int = 3,
) -> Tensor:
    """Return samples.

    Parameters
    ----------
    rate : float
        Of a gradient step; the gradient is at most as long as A^T A is large.
    shift : float
        Of the times; see `flow_steps`.
    inner : int
        Gradient steps at each time, without a pass of the denoiser.
    """
    observed = linear(problem, "FlowDPS")
    x = start_noise(denoiser, seeds)
    small = observed.y[0].numel() < x[0].numel()
    back = observed.pseudo_inverse if small else observed.adjoint
    with SeededNoise(seeds):
        for now, after in flow_steps(denoiser, steps, shift):
            s, s_after = now.share, after.share
            D = now.mean(denoiser, x, now.alpha + now.sigma)
            x1, d = (x - (1 - s) * D) / s, D
            for _ in range(inner):
                e = back(observed.missing(d))
                length = e.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
                d = d + rate * back(observed.forward(e / per_sample_shape(length, e)))
            noise = s_after**0.5 * x1 + (1 - s_after) ** 0.5 * torch.randn_like(x1)
            x = (1 - s_after) * ((1 - s) * D + s * d) + s_after * noise
    return x


FLOW_DPS = Peer(
    "FlowDPS",
    "ours",
    flow_dps,
    {"rate": 15.0, "shift": 4.0, "inner": 3},
    {"rate": (0.5, 1.5, 5.0, 15.0, 50.0, 150.0), "shift": (1.0, 4.0)},
    Passes(1),
    28,
    "Kim, Kim, Ye 2025",
)

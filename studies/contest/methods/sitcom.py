r"""SITCOM: step-wise triple-consistent sampling.

At each time the input of the denoiser is moved, by `inner` steps of Adam from x_t, until what it
predicts fits:

    v = argmin |y - A clamp(D(v, t))|^2 + weight |v - x_t|^2,   x_0 = clamp(D(v, t))
    x_s = alpha_s x_0 + sigma_s noise,   fresh

A sample whose |y - A x_0| is what noise explains, sigma sqrt(m), stays; once all do, the rest of
the steps is left out, so that a run may cost less than its price.

References
----------
Alkhouri et al. (2025), *SITCOM: step-wise triple-consistent diffusion sampling for inverse
problems*, ICML, arXiv 2410.04479; the clamp, the rate and the weight, 0, as in the authors' code.
That code hands out the best of its images, which it finds by the truth; this one hands out the
last.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.fitting import moved_until_fit
from studies.contest.methods.noise_levels import NoiseLevel, even_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise


def sitcom(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    rate: float = 0.02,
    inner: int = 30,
    weight: float = 0.0,
) -> Tensor:
    """Return samples.

    Parameters
    ----------
    rate : float
        Adam's.
    inner : int
        Steps of Adam at each time, a forward and a backward pass each; a forward pass follows.
    weight : float
        Of the way from x_t.
    """
    x = start_noise(denoiser, seeds)
    with SeededNoise(seeds):
        for now, after in even_steps(denoiser, steps):
            x0 = fitted(denoiser, problem, x, now, rate, inner, weight)
            x = after.alpha * x0 + after.sigma * torch.randn_like(x0)
    return x


def fitted(
    denoiser: Denoiser,
    problem: Constraint,
    x: Tensor,
    now: NoiseLevel,
    rate: float,
    inner: int,
    weight: float,
) -> Tensor:
    """Return x_0 = clamp(D(v, t)) at the v that Adam finds from x."""

    def clean(v: Tensor) -> Tensor:
        return now.mean(denoiser, v).clamp(-1, 1)

    v = moved_until_fit(x, clean, problem, torch.optim.Adam, rate, inner, weight=weight)
    with torch.no_grad():
        return clean(v)


SITCOM = Peer(
    "SITCOM",
    "ours",
    sitcom,
    {"rate": 0.02, "inner": 30, "weight": 0.0},
    {"rate": (0.02, 0.06, 0.2, 0.6), "inner": (3, 10, 30)},
    Passes(31, 30),
    20,
    "Alkhouri et al. 2025",
)

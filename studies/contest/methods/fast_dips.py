r"""FAST-DIPS: a projection onto what the noise allows, and steps of exact length.

At each noise level r, with x_0 = D, a few steps of ADMM on

    min |x - x_0|^2 / (2 r^2)   so that   |A x - y| <= epsilon

whose steps in x are steepest descent on F = |x - x_0|^2 / (2 r^2) + rho |A x - b|^2 / 2, of the
length that is best for the A linearised at x, halved while F grows:

    g = (x - x_0) / r^2 + rho A'^T (A x - b)
    length = (<x - x_0, g> / r^2 + rho <A x - b, A' g>) / (|g|^2 / r^2 + rho |A' g|^2), at most 1

Then x becomes noisy again at the next level. The last level hands out its x_0. A pass of the
denoiser a level: derivatives are A's only, A' g a difference where A is not linear.

References
----------
Kim, Shin, Lim (2026), *FAST-DIPS: adjoint-free analytic steps and hard-constrained likelihood
correction for diffusion-prior inverse problems*, ICLR, arXiv 2603.01591; levels and settings as in
the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from studies.contest.methods.misfit import per_sample_shape
from studies.contest.methods.noise_levels import ladder_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise

PROBE = 1e-3
HALVINGS = 8


@torch.no_grad()
def fast_dips(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    rho: float = 200.0,
    admm: int = 3,
    descent: int = 1,
    epsilon: float = 0.05,
) -> Tensor:
    """Return samples, clamped to [-1, 1].

    Parameters
    ----------
    rho : float
        Penalty of ADMM.
    admm, descent : int
        Steps of ADMM at each level, and of descent in each.
    epsilon : float
        Length that y - A x may have.
    """
    if not hasattr(problem, "forward") or not hasattr(problem, "y"):
        raise InputError(
            f"FAST-DIPS projects A x towards y: it needs observations, got {type(problem).__name__}"
        )
    levels = ladder_steps(denoiser, steps, 100.0, 0.1)
    x = levels[0][0].ratio * start_noise(denoiser, seeds)
    with SeededNoise(seeds):
        for now, after in levels:
            x0 = now.mean(denoiser, x, now.alpha)
            if after.time is None:
                return x0.clamp(-1, 1)
            corrected = admm_steps(problem, x0, now.ratio**2, rho, admm, descent, epsilon)
            x = corrected + after.ratio * torch.randn_like(x0)
    return x


def admm_steps(
    problem: Any, x0: Tensor, r2: float, rho: float, admm: int, descent: int, epsilon: float
) -> Tensor:
    """Return x after some steps of ADMM from x_0."""
    y = problem.y.to(x0)
    x, v = x0, problem.forward(x0)
    u = torch.zeros_like(v)
    for _ in range(admm):
        for _ in range(descent):
            x = descended(problem, x, x0, v - u, r2, rho)
        seen = problem.forward(x)
        off = seen + u - y
        length = off.flatten(1).norm(dim=1).clamp(min=1e-12)
        v = y + per_sample_shape((epsilon / length).clamp(max=1), off) * off
        u = u + seen - v
    return x


def descended(problem: Any, x: Tensor, x0: Tensor, b: Tensor, r2: float, rho: float) -> Tensor:
    """Return x after a step of steepest descent on F."""
    seen, pulled = _pulled_back(problem, x, b)
    g = (x - x0) / r2 + rho * pulled
    if isinstance(problem, LinearConstraint):
        pushed = problem.forward(g)
    else:
        pushed = (problem.forward(x + PROBE * g) - seen) / PROBE
    slope = _inner(x - x0, g) / r2 + rho * _inner(seen - b, pushed)
    curvature = _inner(g, g) / r2 + rho * _inner(pushed, pushed)
    length = (slope / curvature.clamp(min=1e-12)).clamp(0, 1)

    def energy(z: Tensor) -> Tensor:
        off = problem.forward(z) - b
        return (_inner(z - x0, z - x0) / r2 + rho * _inner(off, off)) / 2

    here = energy(x)
    for _ in range(HALVINGS):
        worse = energy(x - per_sample_shape(length, x) * g) > here
        length = torch.where(worse, length / 2, length)
    return x - per_sample_shape(length, x) * g


def _pulled_back(problem: Any, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return A x and A'^T (A x - b)."""
    if isinstance(problem, LinearConstraint):
        seen = problem.forward(x)
        return seen, problem.adjoint(seen - b)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        seen = problem.forward(leaf)
        (pulled,) = torch.autograd.grad(seen, leaf, seen.detach() - b)
    return seen.detach(), pulled


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


FAST_DIPS = Peer(
    "FAST-DIPS",
    "ours",
    fast_dips,
    {"rho": 200.0, "admm": 3, "descent": 1, "epsilon": 0.05},
    {"rho": (8.0, 30.0, 200.0, 1200.0), "admm": (1, 2, 3, 9, 27)},
    Passes(1),
    75,
    "Kim, Shin, Lim 2026",
)

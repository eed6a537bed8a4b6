r"""PnP-DM: a Gibbs sampler that alternates between the likelihood and the denoiser.

With a coupling rho that falls from step to step, rho_k = max(first decay^k, last):

    z ~ exp(-|y - A z|^2 / (2 sigma^2) - |z - x|^2 / (2 rho^2)), exactly
    x ~ p(x_0 | x_0 + rho noise = z), by `inner` ancestral steps of the reverse diffusion from rho

A draw of the first is what perturbed data pull a perturbed x to (y' = y + sigma noise, x' = x + rho
noise): `z = x' + A^T (A A^T + (sigma / rho)^2)^{-1} (y' - A x')`, by conjugate gradients.

(1) The authors take those of 100 fixed noise levels that lie below rho, 67 at first and 30 in the
end, and Euler-Maruyama steps; here the levels are as many at each step, and the steps ancestral,
which are exact where the clean image is known.

References
----------
Wu et al. (2024), *Principled probabilistic imaging using diffusion models as plug-and-play priors*,
NeurIPS, arXiv 2405.18782, algorithm 1; rho as in the authors' code for linear problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.misfit import SMALLEST_NOISE, linear, noise_of, per_sample_shape
from studies.contest.methods.noise_levels import CLEAN, ladder
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise

CG_STEPS, CG_TOLERANCE = 300, 1e-5


@torch.no_grad()
def pnp_dm(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    decay: float = 0.9,
    last: float = 0.3,
    inner: int = 30,
    first: float = 10.0,
) -> Tensor:
    """Return samples.

    Parameters
    ----------
    decay, last, first : float
        Of rho.
    inner : int
        Passes of the denoiser in each step.
    """
    observed, sigma = linear(problem, "PnP-DM"), noise_of(problem, SMALLEST_NOISE)
    x = torch.zeros_like(start_noise(denoiser, seeds))
    with SeededNoise(seeds):
        for k in range(steps):
            rho = max(first * decay**k, last)
            z = likelihood_draw(observed, x, sigma, rho)
            x = prior_draw(denoiser, z, rho, inner)
    return x


def likelihood_draw(problem: LinearConstraint, x: Tensor, sigma: float, rho: float) -> Tensor:
    """Return z, given x."""
    moved = x + rho * torch.randn_like(x)
    off = problem.missing(moved)
    off = off + sigma * torch.randn_like(off)
    return moved + problem.adjoint(_solved(problem, off, (sigma / rho) ** 2))


def prior_draw(denoiser: Denoiser, z: Tensor, rho: float, inner: int) -> Tensor:
    """Return x, given z: the denoiser's draw of a clean image."""
    levels = [*ladder(denoiser, inner + 1, rho, 0.01)[:-1], CLEAN]
    x, r = z, rho
    for now, after in pairwise(levels):
        D, s = now.mean(denoiser, x, now.alpha), after.ratio
        kept = (s / r) ** 2  # s^2 / r^2 of x, the rest of D
        x = kept * x + (1 - kept) * D + s * max(0.0, 1 - kept) ** 0.5 * torch.randn_like(x)
        r = s
    return x


def _solved(problem: LinearConstraint, b: Tensor, damping: float) -> Tensor:
    """Return `(A A^T + damping)^{-1} b` by conjugate gradients, each sample by itself."""

    def inner(u: Tensor, v: Tensor) -> Tensor:
        return per_sample_shape((u * v).flatten(1).sum(1), u)

    found, r, p = torch.zeros_like(b), b, b
    size = start = inner(r, r)
    for _ in range(CG_STEPS):
        going = size > CG_TOLERANCE**2 * start
        if not going.any():
            break
        Ap = problem.forward(problem.adjoint(p)) + damping * p
        step = torch.where(going, size / inner(p, Ap).clamp(min=torch.finfo(b.dtype).tiny), 0)
        found, r = found + step * p, r - step * Ap
        before, size = size, torch.where(going, inner(r, r), size)
        p = torch.where(going, r + size / before.clamp(min=torch.finfo(b.dtype).tiny) * p, p)
    return found


PNP_DM = Peer(
    "PnP-DM",
    "ours",
    pnp_dm,
    {"decay": 0.9, "last": 0.3, "inner": 30, "first": 10.0},
    {"decay": (0.5, 0.7, 0.9), "last": (0.1, 0.3), "inner": (1, 3, 30)},
    Passes(30),
    100,
    "Wu et al. 2024",
)

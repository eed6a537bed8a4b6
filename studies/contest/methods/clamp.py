r"""CLAMP: a damped Gauss-Newton step at each noise level, its curvature pulled back through the
denoiser once.

With x = x_t / alpha_t, r its noise, D and J = dD/dx there, g the direction of x - D, and r' the
next level:

    c = J^T A^T (A D - y) / tau^2
    (J^T A^T A / tau^2 + kappa (damping + g g^T)) delta = -c,   `inner` steps of GMRES
    kappa = |x - D| / (|J^T A^T (A D - y)| r'^2)
    x = x + delta + (r_down - r) (x - D) / r + r_up noise
    r_down = r - sqrt(r^2 - r'^2),   r_up = sqrt(r'^2 - r_down^2)

The curvature is one-sided, J^T A^T A in place of J^T A^T A J, so that it needs no product J v: a
step is one forward pass and 1 + `inner` backward passes. Where A is not linear, A^T and A are its
Jacobian's.

References
----------
Shin, Kim, Kim, Lim (2026), *Geometry-correct diffusion posterior sampling with denoiser-pullback
curvature guidance and manifold-aligned damping*, ICML, arXiv 2605.27990; levels and settings as in
the authors' code, without its factor of 16 in kappa for observations of 64 rows. For the last level
r' in kappa is r, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.many_systems import gmres_batch
from studies.contest.methods.noise_levels import NoiseLevel, ladder_steps
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise

Map = Callable[[Tensor], Tensor]


def clamp_langevin(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    damping: float = 2.0,
    inner: int = 5,
    tau: float = 0.01,
) -> Tensor:
    """Return samples.

    Parameters
    ----------
    damping : float
        Of all directions; that of x - D has 1 more.
    inner : int
        Steps of GMRES, a backward pass each.
    tau : float
        Noise that is taken for that of y, whatever it is.
    """
    if not hasattr(problem, "forward") or not hasattr(problem, "missing"):
        raise InputError(
            f"CLAMP needs A x and y - A x, of observations: got {type(problem).__name__}"
        )
    levels = ladder_steps(denoiser, steps, 100.0, 0.1)
    x = levels[0][0].ratio * start_noise(denoiser, seeds)
    with SeededNoise(seeds):
        for now, after in levels:
            r, s = now.ratio, after.ratio
            D, delta = newton_correction(denoiser, problem, x, now, s or r, damping, inner, tau)
            down = r - max(0.0, r**2 - s**2) ** 0.5
            up = max(0.0, s**2 - down**2) ** 0.5
            x = x + delta + (down - r) / r * (x - D) + up * torch.randn_like(x)
    return x


def newton_correction(
    denoiser: Denoiser,
    problem: Any,
    x: Tensor,
    now: NoiseLevel,
    s: float,
    damping: float,
    inner: int,
    tau: float,
) -> tuple[Tensor, Tensor]:
    """Return D and delta; s is r' in kappa."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        D = now.mean(denoiser, leaf, now.alpha)
    push, pull = _linearised(problem, D.detach())

    def pull_back(u: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(D, leaf, pull(u), retain_graph=True)
        return found

    with torch.no_grad():
        c = pull_back(-problem.missing(D.detach()))
        off = x - D.detach()
        length = off.flatten(1).norm(dim=1)
        g = off.flatten(1) / length.clamp(min=1e-12)[:, None]
        kappa = (length / c.flatten(1).norm(dim=1).clamp(min=1e-12) / s**2)[:, None]

        def product(v: Tensor) -> Tensor:
            curved = pull_back(push(v.reshape(x.shape))).flatten(1) / tau**2
            return curved + kappa * (damping * v + (g * v).sum(1, keepdim=True) * g)

        found = gmres_batch(
            lambda v: product(torch.from_numpy(v).to(x)).cpu().numpy(),
            (-c.flatten(1) / tau**2).cpu().double().numpy(),
            inner,
        )
    return D.detach(), torch.from_numpy(found).to(x).reshape(x.shape)


def _linearised(problem: Any, D: Tensor) -> tuple[Map, Map]:
    """Return products with A's Jacobian at D and with its transpose."""
    if isinstance(problem, LinearConstraint):
        return problem.forward, problem.adjoint
    with torch.enable_grad():
        leaf = D.clone().requires_grad_()
        seen = problem.forward(leaf)
        dual = torch.zeros_like(seen, requires_grad=True)
        (pulled,) = torch.autograd.grad(seen, leaf, dual, create_graph=True)  # linear in the dual
    return (
        lambda v: torch.autograd.grad(pulled, dual, v, retain_graph=True)[0],
        lambda u: torch.autograd.grad(seen, leaf, u, retain_graph=True)[0],
    )


CLAMP = Peer(
    "CLAMP",
    "ours",
    clamp_langevin,
    {"damping": 2.0, "inner": 5, "tau": 0.01},
    {"damping": (0.02, 0.1, 0.5, 2.0, 8.0), "inner": (1, 2, 5)},
    Passes(1, 6),
    50,
    "Shin et al. 2026",
)

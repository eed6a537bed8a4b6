r"""The mean of x_0 given x_t and an observation `y = A x_0 + sigma noise`, by forward passes only.

    E[x_0 | x_t, y] = D + J A^T z,   (A J A^T + sigma^2 alpha_t / sigma_t^2) z = y - A D

This holds where p(x_0 | x_t) is Gaussian, with the covariance `sigma_t^2 / alpha_t J` that
Tweedie's formula gives it. A sampler that takes this mean in place of D, and leaves x_t where it
is, draws from p(x_0 | y). Rozet et al. compute `J^T A^T z`, a backward pass for each Krylov step; J
is symmetric, so that `J A^T z`, a forward pass, is the same.

k steps of GMRES take k products, of which `J A^T z` is a sum: no pass beyond them and D.

References
----------
Rozet et al. (2024), *Learning diffusion priors from observations by expectation maximization*,
arXiv 2405.13712 (MMPS).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.observations import widened
from jacobian_lab.diffusion.schedule import per_sample
from jacobian_lab.krylov.many_systems import gmres_batch
from jacobian_lab.linops.batch_jacobian import BatchJacobian


class ConditionalMean(NamedTuple):
    """An estimate of E[x_0 | x_t, y], and how far its equation is solved."""

    mean: Tensor
    """(B, *shape)."""
    unsolved: Tensor
    """`|y - A D - (A J A^T + ...) z| / |y - A D|`, (B,), by the products that were taken: their own
    errors are beside it. 0 where D meets y.
    """


def conditional_mean(
    J: BatchJacobian, constraint: LinearConstraint, krylov_steps: int
) -> ConditionalMean:
    """Return the estimate of E[x_0 | x_t, y], each sample by itself.

    Parameters
    ----------
    J : BatchJacobian
        At x_t; it counts what is spent: D, and a product for each Krylov step.
    constraint : LinearConstraint
        The observation. Its noise counts; its damping does not.
    krylov_steps : int
        Steps of GMRES, at least 1; as many as there are observed numbers solve the equation.

    Raises
    ------
    InputError
        If the constraint is not a linear observation.
    """
    _require.instance("J", J, BatchJacobian)
    _require.instance("constraint", constraint, LinearConstraint)
    _require.integer("krylov_steps", krylov_steps, 1)
    alpha_t, sigma_t = (float(c) for c in J.denoiser.schedule(J.t))
    missing = constraint.missing(J.d)
    if not sigma_t:  # x_t is clean: nothing is uncertain
        return ConditionalMean(J.d, missing.new_zeros(len(missing)))
    noise = constraint.sigma**2 * alpha_t / sigma_t**2
    basis: list[Tensor] = []  # orthonormal, of the space in which z is sought
    moves: list[Tensor] = []  # J A^T of them

    def product(v: NDArray[np.float64]) -> NDArray[np.float64]:
        basis.append(torch.from_numpy(v).to(missing).reshape(missing.shape))
        moves.append(J.jvp(constraint.adjoint(basis[-1])))
        return J.arrays(constraint.forward(moves[-1]) + noise * basis[-1])

    solution = gmres_batch(product, J.arrays(missing), krylov_steps)
    # z is large where J is small, and half precision would overflow
    z = torch.from_numpy(solution).to(widened(missing)).reshape(missing.shape)
    parts = [
        per_sample((z * q).flatten(1).sum(1), move) * move
        for q, move in zip(basis, map(widened, moves), strict=True)
    ]
    move = torch.stack(parts).sum(0).to(J.d)
    left = (missing - constraint.forward(move) - noise * z).flatten(1).norm(dim=1).to(missing)
    size = missing.flatten(1).norm(dim=1)
    return ConditionalMean(J.d + move, torch.where(size == 0, size, left / size))

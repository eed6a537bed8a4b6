r"""The part of a vector field that is no gradient, from samples: the solenoidal part of a Helmholtz
decomposition that is orthogonal in the mean over their density p.

The gradient that is nearest to e in L^2(p) leaves a rest u with `div(p u) = 0`, which moves no
density. The potentials tried here are all quadratic ones and random Fourier features at three
scales; a richer set would explain more, so that what is left is an upper bound.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES, EACH = (0.3, 0.7, 1.5), 120
"""Standard deviations of the random frequencies, and how many there are of each."""
RIDGE = 1e-6
"""Of the fit, relative to the mean square of the features."""


def gradient_residual(x: Tensor, field: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Fit a gradient to the first half of the samples; return the squares of what it leaves of the
    field at the second half, and of the field there, (N / 2,) each.

    Parameters
    ----------
    x, field : Tensor, shape (N, n)
        Samples, and the field there.
    seed : int
        Of the frequencies.
    """
    half = len(x) // 2
    gradients = potential_gradients(x, seed)  # (N, n, F)
    A, b = gradients[:half].flatten(0, 1), field[:half].flatten()
    scale = A.square().mean(0).sqrt()
    A = A / scale
    normal = A.T @ A + RIDGE * len(A) * torch.eye(A.shape[1]).to(A)
    weights = torch.linalg.solve(normal, A.T @ b) / scale
    rest = field[half:] - gradients[half:] @ weights
    return rest.square().sum(1), field[half:].square().sum(1)


def potential_gradients(x: Tensor, seed: int) -> Tensor:
    """Return the gradients of all potentials at samples, (N, n, F)."""
    count, n = x.shape
    g = torch.Generator().manual_seed(seed)
    frequencies = torch.cat([s * torch.randn(EACH, n, generator=g) for s in SCALES]).to(x)
    phases = (2 * torch.pi * torch.rand(len(frequencies), generator=g)).to(x)
    waves = -torch.sin(x @ frequencies.T + phases)[:, None] * frequencies.T
    identity = torch.eye(n).to(x)
    rows, columns = torch.triu_indices(n, n)
    products = x[:, None, rows] * identity[:, columns] + x[:, None, columns] * identity[:, rows]
    return torch.cat([waves, products, identity.expand(count, n, n)], dim=2)

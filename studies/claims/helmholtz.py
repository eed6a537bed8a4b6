r"""How much of a vector field is no gradient, from samples: bounds of the solenoidal part of the
Helmholtz decomposition that is orthogonal in the mean over the samples' density p.

    e = grad phi + u,   div(p u) = 0,   E <grad phi, u> = 0

A field u with div(p u) = 0 moves no density. Of the share E|u|^2 / E|e|^2

* what is left of e by the nearest gradient of many potentials is an upper bound: more potentials
  would leave less;
* what the nearest of many fields with div(p u) = 0 explains is a lower bound. For a skew matrix S
  and a function f they are `u = S (grad f + f s)`, s = grad log p the score, since
  `p u = S grad(f p)`, whose divergence is zero.

Functions and potentials are linear, quadratic, and random Fourier features at three scales. Fields
are fitted to one half of the samples and tried on the other, so that neither bound is a product of
the fit: each is off by the sampling error only.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (0.3, 0.7, 1.5)
"""Standard deviations of the random frequencies."""
POTENTIALS, FUNCTIONS = 120, 6
"""Frequencies of each scale: of potentials, and of the functions of each plane of rotation."""
RIDGE = 1e-6
"""Of the fit, relative to the mean square of the fields."""


def gradient_residual(x: Tensor, field: Tensor) -> Tensor:
    """Return |field - gradient|^2 at the second half of the samples, (N / 2,), for the gradient
    that is fitted to the first.

    Parameters
    ----------
    x, field : Tensor, shape (N, n)
        Samples, and the field there.
    """
    _, gradients = potentials(x, POTENTIALS)
    return _rest(gradients, field).square().sum(1)


def solenoidal_residual(x: Tensor, field: Tensor, score: Tensor) -> Tensor:
    """Return the same for the nearest field with div(p u) = 0; `score` is grad log p at x."""
    return _rest(solenoidal_fields(x, score), field).square().sum(1)


def solenoidal_fields(x: Tensor, score: Tensor) -> Tensor:
    """Return fields with div(p u) = 0 at samples, (N, n, F): one for each function and plane."""
    n = x.shape[1]
    functions, gradients = potentials(x, FUNCTIONS, quadratic=False)
    given = gradients + functions[:, None] * score[:, :, None]
    rows, columns = torch.triu_indices(n, n, 1)
    identity = torch.eye(n).to(x)
    # S e_b = e_a and S e_a = -e_b, of the plane (a, b)
    fields = identity[:, rows, None] * given[:, None, columns]
    fields = fields - identity[:, columns, None] * given[:, None, rows]
    return fields.flatten(2)


def potentials(x: Tensor, count: int, quadratic: bool = True) -> tuple[Tensor, Tensor]:
    """Return functions at samples, (N, F), and their gradients, (N, n, F): `count` waves of each
    scale, linear ones, and either quadratic ones or a constant.
    """
    number, n = x.shape
    g = torch.Generator().manual_seed(0)
    frequencies = torch.cat([s * torch.randn(count, n, generator=g) for s in SCALES]).to(x)
    angles = x @ frequencies.T + (2 * torch.pi * torch.rand(len(frequencies), generator=g)).to(x)
    identity = torch.eye(n).to(x)
    rows, columns = torch.triu_indices(n, n)
    products = x[:, None, rows] * identity[:, columns] + x[:, None, columns] * identity[:, rows]
    more = (x[:, rows] * x[:, columns], products)
    constant = (torch.ones(number, 1).to(x), torch.zeros(number, n, 1).to(x))
    values, gradients = more if quadratic else constant
    waves = -torch.sin(angles)[:, None] * frequencies.T
    return (
        torch.cat([torch.cos(angles), x, values], dim=1),
        torch.cat([waves, identity.expand(number, n, n), gradients], dim=2),
    )


def _rest(fields: Tensor, field: Tensor) -> Tensor:
    """Return what the best combination of fields, fitted to the first half, leaves of the second
    half of a field.
    """
    half = len(field) // 2
    A, b = fields[:half].flatten(0, 1), field[:half].flatten()
    scale = A.square().mean(0).sqrt()
    A = A / scale
    normal = A.T @ A + RIDGE * len(A) * torch.eye(A.shape[1]).to(A)
    weights = torch.linalg.solve(normal, A.T @ b) / scale
    return field[half:] - fields[half:] @ weights

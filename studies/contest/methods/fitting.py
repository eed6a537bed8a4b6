"""Adam on a misfit, each sample until it fits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint
from studies.contest.methods.misfit import misfit, noise_of, observed_count, per_sample_shape


def moved_until_fit(
    start: Tensor,
    images: Callable[[Tensor], Tensor],
    problem: Constraint,
    optimiser: type[torch.optim.Adam | torch.optim.AdamW],
    rate: float,
    steps: int,
    *,
    weight: float = 0.0,
    least: float = 0.0,
) -> Tensor:
    """Return v, moved from the start by some steps on `|y - A images(v)|^2 + weight |v - start|^2`.

    A sample whose `|y - A images(v)|^2` is what noise explains, `sigma^2 m`, stays; once all do,
    the rest of the steps is left out.

    Parameters
    ----------
    least : float
        Noise that is taken where sigma is less.
    """
    target = noise_of(problem, least) ** 2 * observed_count(problem)
    v = start.detach().clone().requires_grad_()
    adam = optimiser([v], lr=rate)
    for _ in range(steps):
        with torch.enable_grad():
            fit = misfit(problem, images(v))
            loss = fit.sum() + weight * (v - start).square().sum()
        going = fit.detach() > target
        if not going.any():
            break
        before = v.detach().clone()
        (v.grad,) = torch.autograd.grad(loss, v)
        adam.step()
        with torch.no_grad():
            v.copy_(torch.where(per_sample_shape(going, v), v, before))
    return v.detach()

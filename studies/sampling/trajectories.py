"""A sampler's path, state by state, of digits of which some may diverge."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from tqdm import tqdm

from jacobian_lab import Denoiser
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample
from studies.frame.study import Arrays


def trajectory(
    denoiser: Denoiser,
    constraint: LinearConstraint,
    noise: Tensor,
    times: Sequence[int] | Sequence[float],
    newton: Newton,
) -> Arrays:
    """Sample, and say how it went; where a digit diverges, the others go on without it.

    Returns
    -------
    dict
        Of each digit and state: "residual" and "mean_square", that of x_t, (digits, states); "x_t"
        and "x0", (digits, states, C, H, W); "passes", (digits, states, 3): forward, J v and J^T u.
        NaN, and no passes, after a digit's divergence; its last residual is kept.
    """
    states = len(times) * (newton.steps + 1) if newton.refresh else len(times) * newton.steps + 1
    residual, mean_square = (np.full((len(noise), states), np.nan) for _ in range(2))
    x_t, x0 = (
        np.full((len(noise), states, *denoiser.shape), np.nan, dtype=np.float32) for _ in range(2)
    )
    passes = np.zeros((len(noise), states, 3), dtype=int)
    path = sample(denoiser, noise, times, constraint, newton)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"samples? .* diverged")  # NaN says so
        try:
            for k, state in enumerate(tqdm(path, total=states, desc="states", leave=False)):
                assert state.residual is not None
                residual[:, k] = state.residual.cpu().numpy()
                mean_square[:, k] = state.x_t.square().mean((1, 2, 3)).cpu().numpy()
                x_t[:, k], x0[:, k] = state.x_t.cpu().numpy(), state.x0.cpu().numpy()
                spent = state.spent.forward, state.spent.jvp, state.spent.vjp
                passes[state.alive.cpu().numpy(), k] = spent
        except DivergenceError as stop:  # of all that were left
            residual[:, len(stop.trace) - 1] = stop.trace[-1][1]
    return {
        "residual": residual,
        "mean_square": mean_square,
        "x_t": x_t,
        "x0": x0,
        "passes": passes,
    }

r"""Sampling as a generator of states: from noise to data along a decreasing list of times.

With D the posterior mean, one DDIM step from t to s < t keeps the noise that D implies and changes its amount:

    x_s = alpha_s D + (sigma_s / sigma_t) (x_t - alpha_t D)

On a rectified flow this is Euler's method. The last step goes to the clean sample, `x = D`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from jacobian_lab.denoiser import Denoiser, Shape
from jacobian_lab.errors import InputError


@dataclass(frozen=True)
class State:
    """Where the sampler is: at time `t`, with the noisy samples `x_t` and their posterior means `x0`, (B, C, H, W)."""

    t: int | float
    x_t: Tensor
    x0: Tensor


def seed_of(*numbers: int) -> int:
    """Return a seed that mixes the numbers (at least 0), so that neighbours share nothing: (seed, step), (seed, digit)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded_noise(seeds: Sequence[int], shape: Shape, device: torch.device | str = "cpu",
                 dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal noise, (B, C, H, W), each sample from its own seed.

    It is drawn on the CPU in float32 and moved: a seed means the same on every device, in every precision and every batch.
    """
    samples = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(samples).to(device, dtype)


@torch.no_grad()
def sample(denoiser: Denoiser, noise: Tensor, times: Sequence[int] | Sequence[float]) -> Iterator[State]:
    """Yield the state at each time; the `x0` of the last one is the sample.

    Parameters
    ----------
    denoiser : Denoiser
    noise : Tensor, shape (B, C, H, W)
        Standard normal; see `seeded_noise`. It is scaled by `sqrt(alpha^2 + sigma^2)` at the first time, so as to have the
        variance of x_t for data of unit variance; the mean of the data, times alpha, is left out.
    times : sequence
        Decreasing; `denoiser.schedule.times(steps)` spaces them evenly.
    """
    if len(times) < 1 or any(s >= t for t, s in pairwise(times)):
        raise InputError(f"times must decrease: got {list(times)}; denoiser.schedule.times(steps) makes such a list")
    alpha_t, sigma_t = (float(c) for c in denoiser.schedule(times[0]))
    x_t = noise * (alpha_t**2 + sigma_t**2) ** 0.5
    for t, s in zip(times, [*times[1:], None], strict=True):
        x0 = denoiser(x_t, t)
        yield State(t, x_t, x0)
        if s is not None:
            alpha_s, sigma_s = (float(c) for c in denoiser.schedule(s))
            x_t = alpha_s * x0 + sigma_s * denoiser.noise(x_t, x0, t)

"""A prior on digits whose denoiser and Jacobian are known in closed form: ten Gaussians, fitted to
the held-out digits.
"""

from __future__ import annotations

import torch

from jacobian_lab import Denoiser, DiscreteSchedule, _require
from jacobian_lab.diffusion.oracle import GaussianMixture
from mnist.data import SHAPE, digits

RIDGE = 1e-3
"""Variance that every pixel has beyond the digits' own."""


def load_oracle(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Denoiser:
    """Return the exact posterior mean of a mixture of ten Gaussians, one for each class, on the
    linear DDPM schedule.

    `denoiser.network.oracle` is the `GaussianMixture`, whose `jacobian(x_t, t)` is the truth. A few
    seconds.
    """
    _require.device(device)
    _require.precision(dtype)
    images, labels = digits("held-out")
    classes = [images[labels == c].double().flatten(1) for c in range(10)]
    n = classes[0].shape[1]
    covariances = torch.stack([x.T.cov() + RIDGE * torch.eye(n, dtype=x.dtype) for x in classes])
    means = torch.stack([x.mean(0) for x in classes])
    oracle = GaussianMixture(means, covariances, DiscreteSchedule.linear(), shape=SHAPE)
    return oracle.denoiser().to(device, dtype).eval().requires_grad_(False)

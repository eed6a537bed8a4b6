r"""The denoiser that memorises: the posterior mean where the prior is K training images and nothing
else.

    w_k = softmax_k(-|x_t - alpha x_k|^2 / (2 sigma^2))
    D   = sum_k w_k x_k
    J   = (alpha / sigma^2) sum_k w_k (x_k - D) (x_k - D)^T

It has the least denoising loss that K images allow, and its samples are those images. The rank of J
is less than K, and where one weight is nearly 1, as at little noise near an image, J is nearly
zero; for two images at distance d its one eigenvalue is `(alpha / sigma^2) w (1 - w) d^2`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jacobian_lab import Denoiser, Schedule


class PointMasses(nn.Module):
    """A prior of K equally likely images, with its denoiser and Jacobian in closed form.

    Parameters
    ----------
    images : Tensor, shape (K, *shape)
        Computations run in their dtype.
    schedule : Schedule
    """

    def __init__(self, images: Tensor, schedule: Schedule) -> None:
        super().__init__()
        self.schedule, self.shape = schedule, tuple(images.shape[1:])
        self.images: Tensor
        self.register_buffer("images", images.flatten(1))
        self.eval()

    def weights(self, x_t: Tensor, t: int | float | Tensor) -> Tensor:
        """Return the posterior probability of each image, (B, K), given `x_t`, (B, *shape)."""
        alpha, sigma = (c.to(x_t).reshape(-1, 1) for c in self.schedule(t))
        x = x_t.flatten(1)
        # |x - alpha x_k|^2 without the term that all k share
        distance = alpha**2 * self.images.square().sum(1) - 2 * alpha * (x @ self.images.T)
        return torch.softmax(-distance / (2 * sigma**2), dim=1)

    def forward(self, x_t: Tensor, t: int | float | Tensor) -> Tensor:
        """Return `D(x_t, t)`, of the shape of `x_t`, (B, *shape)."""
        return (self.weights(x_t, t) @ self.images).reshape(x_t.shape)

    def jacobian(self, x_t: Tensor, t: int | float) -> Tensor:
        """Return J, shape (B, n, n), for `x_t` of shape (B, *shape)."""
        alpha, sigma = (c.to(x_t) for c in self.schedule(t))
        found = []
        for w in self.weights(x_t, t):
            apart = self.images - w @ self.images
            found.append(alpha / sigma**2 * (w[:, None] * apart).T @ apart)
        return torch.stack(found)

    def denoiser(self) -> Denoiser:
        """Return the posterior mean as a denoiser."""
        return Denoiser(self, self.schedule, "sample", self.shape)

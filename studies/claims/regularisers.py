r"""Losses that regularise the Jacobian of a denoiser while it is trained, each a `loss_of` of
`small_models.trained`.

    shifted_loss      the denoising loss, half of it at x_t + s alpha_t (D(x_t) - x_0): the input
                      moved along the model's own error, with the target x_0 as before
    contracting_loss  the denoising loss + w |J v|^2 / n by differences, one more forward pass
    symmetric_loss    the denoising loss + w |(J - J^T) v|^2 / n by one J v and one J^T v

Where s is small the moved half is `|e + s alpha J e|^2` with e = D - x_0: it rewards `e^T J e`
where s is negative (towards x_0) and punishes it where s is positive (away from x_0). Over Gaussian
v of unit variance the other two are `w |J|_F^2 / n` and `w |J - J^T|_F^2 / n` in the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jacobian_lab import Denoiser
from mnist.tasks import Loss, skew_product, stratified_times

STEP = 1e-2
"""Of the differences: v has entries of size 1, and so has x_t."""


def shifted_loss(denoiser: Denoiser, strength: float) -> Loss:
    """Return the mean of the denoising losses at x_t and at x_t moved along the error, which is
    held fixed.

    Parameters
    ----------
    denoiser : Denoiser
        Its network is the one that is trained, as in the other losses.
    strength : float
        s above; negative moves towards the clean sample.
    """

    def loss(_network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
        x_t, t = noised(denoiser, images)
        clean = denoiser(x_t, t)
        alpha = denoiser.schedule(t)[0].to(x_t).reshape(-1, 1, 1, 1)
        moved = x_t + strength * alpha * (clean.detach() - images)
        plain = raw_error(denoiser, clean, images, x_t, t)
        return (plain + raw_error(denoiser, denoiser(moved, t), images, moved, t)) / 2

    return loss


def contracting_loss(denoiser: Denoiser, weight: float) -> Loss:
    """Return the denoising loss and the weighted |J v|^2 / n by differences of the denoiser."""

    def loss(_network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
        x_t, t = noised(denoiser, images)
        clean = denoiser(x_t, t)
        change = (denoiser(x_t + STEP * torch.randn_like(x_t), t) - clean) / STEP
        return raw_error(denoiser, clean, images, x_t, t) + weight * change.square().mean()

    return loss


def symmetric_loss(denoiser: Denoiser, weight: float) -> Loss:
    """Return the denoising loss and the weighted |(J - J^T) v|^2 / n by products with a graph of
    the weights.
    """

    def loss(_network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
        x_t, t = noised(denoiser, images)
        error = raw_error(denoiser, denoiser(x_t, t), images, x_t, t)
        return error + weight * skew_product(lambda x: denoiser(x, t), x_t).square().mean()

    return loss


def raw_error(denoiser: Denoiser, clean: Tensor, images: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the mean squared error of the raw output, from D."""
    _, c_out = denoiser.coefficients(x_t, t)
    return ((clean - images) / c_out).square().mean()


def noised(denoiser: Denoiser, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return noisy samples and their times, as in the denoising loss."""
    t = stratified_times(denoiser.schedule, len(images)).to(images.device)
    return denoiser.schedule.add_noise(images, t, torch.randn(images.shape).to(images.device)), t

"""What the autoencoder's training minimises: the error of images, and what keeps the encoder E from
being a left inverse of the decoder D, at latents beside the data and to first order, too.

VAE-Newton takes E's Jacobian in place of the inverse of D's (`jacobian_lab.constraints.decoded`).
An autoencoder that has seen nothing but digits and their own latents gives no ground for that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnist.data import digits
from mnist.recipe import AutoencoderRecipe
from mnist.tasks import Loss
from mnist.variations import vary
from mnist.weights import load_classifier

FEATURES = (3, 6)
"""Layers of the classifier whose outputs are compared: the ends of its first two blocks."""
SHIFTS = (0.02, 1.2)
"""Least and largest shift of a latent from the data, in standard deviations; a Newton step moves it
by 0.2.
"""
MOVE = 0.1
"""Length of the move whose image behind D and E is compared with it, in the same unit."""
NOISE = 0.2
"""Largest standard deviation of the pixels' noise between D and E."""


def autoencoder_loss(recipe: AutoencoderRecipe) -> Loss:
    """Return the squared error of pixels and of the classifier's features, the divergence of the
    latents' Gaussians, and what misses in the cycle of latents; see `cycle`.
    """
    features = _features(recipe.device)

    def loss(network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
        count = round(recipe.varied * len(images))
        own, rest = images[count:], images[:count]
        images = torch.cat([own, vary(rest, images.roll(1, 0)[:count])]) if count else own
        mean, log_variance = moments(network, images)
        latents = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape).to(mean)
        drawn = network.decode(latents).sample.float()  # type: ignore[operator]
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        seen = zip(features(drawn[: len(own)]), features(own), strict=True)
        perceptual = torch.stack([F.mse_loss(a.float(), b.float()) for a, b in seen]).mean()
        return (
            F.mse_loss(drawn, images)
            + recipe.perceptual * perceptual
            + recipe.divergence * divergence
            + recipe.cycle * cycle(network, mean.detach())
        )

    return loss


def moments(autoencoder: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance of the images' latents, (B, C, h, w) each."""
    found = autoencoder.encode(images).latent_dist.parameters.float()  # type: ignore[operator]
    mean, log_variance = found.chunk(2, 1)
    return mean, log_variance.clamp(-30, 20)


def cycle(autoencoder: nn.Module, latents: Tensor) -> Tensor:
    """Return how far E is from a left inverse of D: at points z beside the latents |E(D(z) + n) -
    z|^2 over the size of the shift, and half of |E(D(z + v) + n) - E(D(z) + n) - v|^2 / |v|^2 for
    small moves v.

    n is noise of the pixels. Where D hardly answers to v, E cannot tell v from n: D learns to
    answer to every v, and E to leave out what D cannot draw.

    Parameters
    ----------
    autoencoder : nn.Module
    latents : Tensor, shape (B, C, h, w)
        Of images. Half of them are taken, each with another one: half of these mixed, as a
        posterior mean is at high noise, then all shifted at random, by `SHIFTS` spread evenly by
        their logarithm; half of the moves lead towards the other one.
    """
    unit = latents.std((0, 2, 3), keepdim=True).clamp(min=torch.finfo(latents.dtype).tiny)
    latents = latents / unit
    own, others = latents[::2], latents.flip(0)[::2]
    draws = torch.rand(5, len(own), 1, 1, 1).to(latents)
    size = SHIFTS[0] * (SHIFTS[1] / SHIFTS[0]) ** draws[0]
    z = torch.where(draws[1] < 0.5, own, torch.lerp(own, others, draws[2]))
    z = z + size * torch.randn(z.shape).to(z)
    v = MOVE * torch.where(draws[3] < 0.5, torch.randn(z.shape).to(z), others - z)
    images = autoencoder.decode(torch.cat([z, z + v]) * unit).sample.float()  # type: ignore[operator]
    noise = NOISE * draws[4] * torch.randn(images[: len(z)].shape).to(z)
    back, moved = (moments(autoencoder, images + noise.repeat(2, 1, 1, 1))[0] / unit).chunk(2)
    missed = (back - z).square().mean((1, 2, 3)) / size.flatten().clamp(min=MOVE)
    turned = (moved - back - v).square().mean((1, 2, 3)) / v.square().mean((1, 2, 3))
    return (missed + 0.5 * turned).mean()


@torch.no_grad()
def standardise(autoencoder: nn.Module, images: Tensor, batch_size: int = 500) -> None:
    """Give the latents of images mean 0 and standard deviation 1, channel by channel: E and D with
    the 1x1 convolutions between which the latents lie, scaled and shifted, draw the same.

    One scaling factor, which is all that a Stable Diffusion knows, then fits every channel.
    """
    parts = images.split(batch_size)  # type: ignore[no-untyped-call]
    found = torch.cat([moments(autoencoder, part)[0] for part in parts])
    std, mean = torch.std_mean(found, (0, 2, 3))
    enter, leave = autoencoder.quant_conv, autoencoder.post_quant_conv
    means, log_variances = enter.bias.chunk(2)  # type: ignore[operator, union-attr]
    means.sub_(mean).div_(std)
    log_variances.sub_(2 * std.log())
    enter.weight[: len(std)].div_(std[:, None, None, None])  # type: ignore[index, union-attr]
    leave.bias.add_(leave.weight.flatten(1) @ mean)  # type: ignore[operator, union-attr]
    leave.weight.mul_(std[:, None, None])  # type: ignore[operator, union-attr]
    autoencoder.half().float()  # as it will be loaded


def _features(device: str) -> Callable[[Tensor], list[Tensor]]:
    """Return the function that gives images' features in the classifier's first blocks."""
    body = load_classifier(device=device).body
    blocks = [body[first:last] for first, last in zip((0, *FEATURES), FEATURES, strict=False)]

    def features(images: Tensor) -> list[Tensor]:
        found = []
        for block in blocks:
            images = block(images)
            found.append(images)
        return found

    return features


@torch.no_grad()
def reconstruction_psnr(autoencoder: nn.Module, batch_size: int = 500) -> float:
    """Return the mean peak signal-to-noise ratio, in dB, of the held-out digits behind encoder and
    decoder.
    """
    images, _ = digits("held-out")
    errors = [
        (
            autoencoder.decode(autoencoder.encode(part).latent_dist.mode()).sample.clamp(  # type: ignore[operator]
                -1, 1
            )
            - part
        )
        .square()
        .flatten(1)
        .mean(1)
        for part in images.split(batch_size)  # type: ignore[no-untyped-call]
    ]
    return float((10 * torch.log10(4 / torch.cat(errors))).mean())

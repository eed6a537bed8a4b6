"""The autoencoder's loss on autoencoders whose inverse is known, and latents of unit variance."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import mnist
from mnist import autoencoder_train
from mnist.autoencoder_train import autoencoder_loss, cycle, moments, standardise
from mnist.latent import AUTOENCODER, build_autoencoder
from mnist.recipe import AutoencoderRecipe

pytest.importorskip("diffusers")

SHAPE = (1, 32, 32)


class Linear(nn.Module):
    """D(z) = Q z, E(x) = R x: R = Q^T is a left inverse, Q of orthonormal columns."""

    def __init__(self, gain=1.0):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.Q = torch.linalg.qr(torch.randn(1024, 256, generator=g))[0]
        self.R = gain * self.Q.T

    def decode(self, z):
        return SimpleNamespace(sample=(z.flatten(1) @ self.Q.T).reshape(-1, *SHAPE))

    def encode(self, x):
        mean = (x.flatten(1) @ self.R.T).reshape(-1, 4, 8, 8)
        parameters = torch.cat([mean, torch.zeros_like(mean)], 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(parameters=parameters))


@pytest.fixture
def latents():
    torch.manual_seed(0)
    return 3 + 2 * torch.randn(64, 4, 8, 8)


def test_a_left_inverse_misses_nothing_and_what_misses_is_counted(latents, monkeypatch):
    monkeypatch.setattr(autoencoder_train, "NOISE", 0.0)
    assert float(cycle(Linear(), latents)) < 1e-8
    monkeypatch.setattr(autoencoder_train, "SHIFTS", (0.5, 0.5))
    # E(D(v)) = 0.8 v: 0.04 of |v|^2 misses, and of |z|^2, z with mean 3/2 and the shift's variance
    z = (1.5**2 + 1 + 0.25) / 0.5
    assert float(cycle(Linear(0.8), latents)) == pytest.approx(0.04 * (z + 0.5), rel=0.1)


def test_noise_of_the_pixels_reaches_the_latents_through_the_encoder(latents):
    torch.manual_seed(0)
    with_noise = float(cycle(Linear(), latents))
    # (NOISE u)^2 of a latent with deviation 2, over the size of the shift
    assert 1e-4 < with_noise < 0.2**2 / 3 / 4 / 0.1


def test_the_loss_of_one_image_is_finite_and_the_cycle_counts_by_its_weight():
    torch.manual_seed(0)
    network = build_autoencoder(AUTOENCODER | {"block_out_channels": (8, 8, 8)})
    network.requires_grad_(False)
    images, labels = mnist.digits("held-out")

    def loss(count, **options):
        torch.manual_seed(1)
        return float(
            autoencoder_loss(AutoencoderRecipe(**options))(network, images[:count], labels)
        )

    assert 0 < loss(1) < 100
    zero, one, two = (loss(4, cycle=weight) for weight in (0.0, 1.0, 2.0))
    assert one > zero + 0.1
    assert two - one == pytest.approx(one - zero, rel=1e-4)
    assert loss(4, varied=0.0) != loss(4, varied=0.5)


def test_standard_latents_draw_the_same_images():
    torch.manual_seed(0)
    network = build_autoencoder(AUTOENCODER | {"block_out_channels": (8, 8, 8)})
    network.eval().requires_grad_(False)
    images = mnist.digits("held-out")[0][:40]
    mean, log_variance = moments(network, images)
    drawn = network.decode(mean).sample
    standardise(network, images, 16)
    after, spread = moments(network, images)
    assert after.mean((0, 2, 3)).abs().max() < 5e-3
    assert (after.std((0, 2, 3)) - 1).abs().max() < 5e-3
    assert (network.decode(after).sample - drawn).abs().max() < 0.02  # half precision's
    unit = mean.std((0, 2, 3)).reshape(-1, 1, 1)
    assert ((0.5 * spread).exp() * unit - (0.5 * log_variance).exp()).abs().max() < 0.02

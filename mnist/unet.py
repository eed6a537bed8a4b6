"""A small time-conditional U-Net, smooth everywhere, so that its Jacobian exists and is tractable.

    (B, 1, 32, 32) -> 2x2 pixels to channels -> 16x16 -> 8x8 -> 4x4 -> 8x8 -> 16x16 -> channels to
    pixels

Activations are SiLU (no kinks), resolution changes by strided convolution and nearest-neighbour
upsampling, attention acts on the two low resolutions, and the time scales and shifts the normalised
features (FiLM). There is no dropout and no batch normalisation: samples of a batch do not see each
other, and J is the same at every call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet(nn.Module):
    """A U-Net `(x, t) -> raw output` for square images whose side is a multiple of 8.

    Parameters
    ----------
    image_channels : int
        Channels of the image, in and out.
    channels : tuple of int
        Features at sides 16, 8 and 4 (for 32x32 images); multiples of 32.
    time_scale : float
        Multiplies t before its embedding, which resolves times 0 ... 1000: 1 for training times,
        1000 for flows.
    """

    def __init__(
        self,
        image_channels: int = 1,
        channels: tuple[int, int, int] = (64, 96, 128),
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        c1, c2, c3 = channels
        features = 4 * c1
        # a seed draws the weights in the order of these lines: another order, and the command on
        # the card trains another model
        self.time = TimeEmbedding(c1, features, time_scale)
        self.entry = nn.Conv2d(4 * image_channels, c1, 3, padding=1)
        self.down1a, self.down1b = ResBlock(c1, c1, features), ResBlock(c1, c1, features)
        self.shrink1 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.down2a, self.down2b = ResBlock(c2, c2, features), ResBlock(c2, c2, features)
        self.attention2 = SelfAttention(c2)
        self.shrink2 = nn.Conv2d(c2, c3, 3, stride=2, padding=1)
        self.middle_a = ResBlock(c3, c3, features)
        self.attention3 = SelfAttention(c3)
        self.middle_b = ResBlock(c3, c3, features)
        self.grow2 = nn.Conv2d(c3, c2, 3, padding=1)
        self.up2a = ResBlock(2 * c2, c2, features)
        self.attention_up2 = SelfAttention(c2)
        self.up2b = ResBlock(c2, c2, features)
        self.grow1 = nn.Conv2d(c2, c1, 3, padding=1)
        self.up1a, self.up1b = ResBlock(2 * c1, c1, features), ResBlock(c1, c1, features)
        self.exit_norm = nn.GroupNorm(8, c1)
        self.exit = nn.Conv2d(c1, 4 * image_channels, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output, shape (B, C, H, W) of `x`, for times `t` of shape (B,)."""
        e = self.time(t)
        h = self.entry(F.pixel_unshuffle(x, 2))
        h1 = self.down1b(self.down1a(h, e), e)
        h2 = self.attention2(self.down2b(self.down2a(self.shrink1(h1), e), e))
        h3 = self.middle_b(self.attention3(self.middle_a(self.shrink2(h2), e)), e)
        h = torch.cat([self.grow2(F.interpolate(h3, scale_factor=2)), h2], dim=1)
        h = self.up2b(self.attention_up2(self.up2a(h, e)), e)
        h = torch.cat([self.grow1(F.interpolate(h, scale_factor=2)), h1], dim=1)
        h = self.up1b(self.up1a(h, e), e)
        return F.pixel_shuffle(self.exit(F.silu(self.exit_norm(h))), 2)


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time at geometric frequencies, then a two-layer perceptron: (B,) ->
    (B, features).

    Parameters
    ----------
    frequencies : int
        Sines and cosines together; even.
    features : int
        Size of the embedding.
    time_scale : float
        Multiplies the time.
    """

    def __init__(self, frequencies: int, features: int, time_scale: float) -> None:
        super().__init__()
        self.time_scale = time_scale
        half = frequencies // 2
        self.rates: Tensor
        self.register_buffer(
            "rates", torch.exp(-math.log(10_000) * torch.arange(half) / half), persistent=False
        )
        self.layers = nn.Sequential(
            nn.Linear(frequencies, features), nn.SiLU(), nn.Linear(features, features)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding of times `t`."""
        angles = (self.time_scale * t[:, None]).to(self.rates) * self.rates
        return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


class ResBlock(nn.Module):
    """Two convolutions around a time-modulated normalisation, plus the identity (or a 1x1
    convolution).

    Parameters
    ----------
    c_in, c_out : int
        Channels in and out; multiples of 8.
    features : int
        Size of the time's embedding.
    """

    def __init__(self, c_in: int, c_out: int, features: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.modulation = nn.Linear(features, 2 * c_out)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, c_in, H, W) to (B, c_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.shortcut(x) + h


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels, plus the identity."""

    def __init__(self, channels: int, head_size: int = 32) -> None:
        super().__init__()
        self.heads = channels // head_size
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to itself; each pixel attends to all."""
        b, c, height, width = x.shape
        q, k, v = (
            self.qkv(self.norm(x))
            .reshape(b, 3, self.heads, c // self.heads, height * width)
            .mT.unbind(1)
        )
        h = F.scaled_dot_product_attention(q, k, v).mT.reshape(b, c, height, width)
        return x + self.project(h)

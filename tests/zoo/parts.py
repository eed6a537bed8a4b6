"""What the networks written by hand are made of."""

import torch
import torch.nn.functional as F
from torch import nn


class Ends(nn.Module):
    """A convolution in, `inner` on 16 channels, a convolution out."""

    def __init__(self, inner, channels=2, width=16, padding_mode="zeros"):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, padding_mode=padding_mode)
        self.last = nn.Conv2d(width, channels, 3, padding=1, padding_mode=padding_mode)
        self.inner = inner

    def forward(self, x, t):
        h = self.first(x) * (1 + 0.001 * t.to(x).reshape(-1, 1, 1, 1))
        return self.last(self.inner(h))


class Layer(nn.Module):
    """A function with weights, `function(modules, h)`."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, h):
        return self.function(h, *self.parts)


def small(channels=2):
    return Ends(
        nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU()),
        channels,
    )


def inner(function, *modules, **options):
    return Ends(Layer(function, *modules), **options)


class ToImage(nn.Module):
    """Features of a backbone, whatever their shape, by a fixed linear head to an image: (B, ...) ->
    (B, C, H, W).
    """

    def __init__(self, backbone, features, side=None):
        super().__init__()
        self.backbone, self.features, self.side, self.head = backbone, features, side, None
        with torch.no_grad():
            found = self.features(backbone.eval(), torch.zeros(2, 3, side or 8, side or 8))
        self.head = nn.Linear(found[0].numel(), 192)

    def forward(self, x, t):
        large = (
            x
            if self.side is None
            else F.interpolate(x, size=(self.side, self.side), mode="bilinear")
        )
        return self.head(self.features(self.backbone, large).flatten(1)).reshape(x.shape)

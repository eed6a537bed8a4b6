"""A small diffusion transformer on digits of half size: the smallest of the family of DiT and SiT.

    (B, 1, 16, 16) -> patches of 2x2 to 64 tokens -> four blocks -> tokens to pixels

A block is attention and a perceptron, each behind a normalisation without weights that the time
scales and shifts, and each scaled by a gate of the time that begins at zero (adaLN-zero).
Activations are smooth, there is no dropout, and samples of a batch do not see each other: J exists
and is the same at every call.

References
----------
Peebles, Xie (2023), *Scalable diffusion models with transformers*; Ma et al. (2024), *SiT*.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab import Denoiser, DiscreteSchedule
from mnist.recipe import DenoiserRecipe
from mnist.unet import TimeEmbedding
from studies.claims.small_models import SMALL

PATCH = 2
"""Side of a patch, in pixels."""


class SmallTransformer(nn.Module):
    """A transformer `(x, t) -> raw output` for digits of half size.

    Parameters
    ----------
    features : int
        Features of a token; a multiple of `heads`.
    depth : int
        Blocks.
    heads : int
        Of the attention.
    """

    def __init__(self, features: int = 64, depth: int = 4, heads: int = 2) -> None:
        super().__init__()
        channels, height, width = SMALL
        tokens, pixels = height * width // PATCH**2, channels * PATCH**2
        self.time = TimeEmbedding(features, features, 1.0)
        self.entry = nn.Linear(pixels, features)
        self.places = nn.Parameter(0.02 * torch.randn(tokens, features))
        self.blocks = nn.ModuleList(TransformerBlock(features, heads) for _ in range(depth))
        self.exit_modulation = _from_zero(nn.Linear(features, 2 * features))
        self.exit = _from_zero(nn.Linear(features, pixels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output, shape (B, 1, 16, 16), for times `t` of shape (B,)."""
        side = x.shape[-1] // PATCH
        e = self.time(t)
        h = self.entry(F.pixel_unshuffle(x, PATCH).flatten(2).mT) + self.places
        for block in self.blocks:
            h = block(h, e)
        scale, shift = self.exit_modulation(F.silu(e))[:, None].chunk(2, dim=-1)
        h = self.exit(_normalised(h) * (1 + scale) + shift)
        return F.pixel_shuffle(h.mT.reshape(len(x), -1, side, side), PATCH)


class TransformerBlock(nn.Module):
    """Attention and a perceptron on tokens, modulated and gated by the time, plus the identity.

    Parameters
    ----------
    features, heads : int
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = _from_zero(nn.Linear(features, 6 * features))
        self.qkv, self.project = nn.Linear(features, 3 * features), nn.Linear(features, features)
        self.widen, self.narrow = (
            nn.Linear(features, 4 * features),
            nn.Linear(4 * features, features),
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Map tokens, (B, N, features), to themselves."""
        parts = self.modulation(F.silu(embedding))[:, None].chunk(6, dim=-1)
        scale, shift, gate, scale_after, shift_after, gate_after = parts
        h = h + gate * self.attention(_normalised(h) * (1 + scale) + shift)
        after = _normalised(h) * (1 + scale_after) + shift_after
        return h + gate_after * self.narrow(F.gelu(self.widen(after), approximate="tanh"))

    def attention(self, h: Tensor) -> Tensor:
        """Let each token attend to all, (B, N, features)."""
        b, n, features = h.shape
        q, k, v = (
            self.qkv(h).reshape(b, n, 3, self.heads, features // self.heads).movedim(1, 3).unbind(1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return torch.as_tensor(self.project(mixed.mT.reshape(b, features, n).mT))


def _normalised(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], eps=1e-6)


def _from_zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def transformer_denoiser(recipe: DenoiserRecipe) -> Denoiser:
    """Return a denoiser with the initial weights of the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        network = SmallTransformer()
    return Denoiser(network, DiscreteSchedule.linear(), recipe.prediction, SMALL)

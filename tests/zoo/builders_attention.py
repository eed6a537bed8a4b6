"""Transformers written by hand: attention in the ways in which people compute it."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from zoo.parts import Layer
from zoo.registry import entry, image, tokens

family = partial(entry, "by hand", shape=(4, 8, 8))


class Block(nn.Module):
    """A transformer's block before normalisation."""

    def __init__(self, width=16, heads=2, attention=None):
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.attention = attention or F.scaled_dot_product_attention

    def forward(self, h):
        b, n, c = h.shape
        q, k, v = (
            self.qkv(self.norm1(h))
            .reshape(b, n, 3, self.heads, c // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        h = h + self.out(self.attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        return h + self.mlp(self.norm2(h))


class Transformer(nn.Module):
    """Patches, blocks, patches; a long skip as in U-ViT where asked for."""

    def __init__(self, channels=4, patch=2, attention=None, skip=False, block=None, depth=2):
        super().__init__()
        self.patch, self.skip = patch, skip
        self.first, self.last = (
            nn.Linear(channels * patch**2, 16),
            nn.Linear(16, channels * patch**2),
        )
        self.blocks = nn.ModuleList(
            [block() if block else Block(attention=attention) for _ in range(depth)]
        )
        self.join = nn.Linear(32, 16)
        self.position = nn.Parameter(0.1 * torch.randn(1, 1, 16))

    def forward(self, x, t):
        h = start = self.first(tokens(x, self.patch)) + self.position * (
            1 + 0.001 * t.to(x).reshape(-1, 1, 1)
        )
        for block in self.blocks:
            h = block(h)
        if self.skip:
            h = self.join(torch.cat([h, start], -1))
        return image(self.last(h), x, self.patch)


@family()
def plain_transformer():
    return Transformer()


@family()
def u_vit():
    return Transformer(skip=True, depth=3)


def attended(attention):
    return Transformer(attention=attention)


@family()
def attention_by_softmax():
    return attended(lambda q, k, v: (q @ k.mT / 8**0.5).softmax(-1) @ v)


@family()
def attention_by_einsum():
    def attention(q, k, v):
        w = torch.einsum("bhqc,bhkc->bhqk", q, k).div_(8**0.5).softmax(-1)
        return torch.einsum("bhqk,bhkc->bhqc", w, v)

    return attended(attention)


@family()
def attention_sliced():
    def attention(q, k, v):
        out = torch.zeros_like(q)
        for i in range(q.shape[1]):
            out[:, i] = (
                torch.baddbmm(
                    torch.empty(len(q), q.shape[2], k.shape[2]).to(q),
                    q[:, i],
                    k[:, i].mT,
                    beta=0,
                    alpha=8**-0.5,
                ).softmax(-1)
                @ v[:, i]
            )
        return out

    return attended(attention)


@family()
def attention_chunked_like_flash():
    """Blocks of keys with a running maximum and sum, in place."""

    def attention(q, k, v):
        top = q.new_full((*q.shape[:-1], 1), -torch.inf)
        total, out = torch.zeros_like(top), torch.zeros_like(q)
        for keys, values in zip(k.split(5, 2), v.split(5, 2), strict=True):
            s = q @ keys.mT / 8**0.5
            new = torch.maximum(top, s.amax(-1, keepdim=True))
            p, shrink = (s - new).exp(), (top - new).exp()
            total = total * shrink + p.sum(-1, keepdim=True)
            out = out * shrink + p @ values
            top = new
        return out / total

    return attended(attention)


class Flash(torch.autograd.Function):
    """Attention with its own backward, which recomputes the probabilities."""

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(q, k, v)
        return (q @ k.mT / 8**0.5).softmax(-1) @ v

    @staticmethod
    def backward(ctx, g):
        q, k, v = ctx.saved_tensors
        p = (q @ k.mT / 8**0.5).softmax(-1)
        dp = g @ v.mT
        ds = p * (dp - (dp * p).sum(-1, keepdim=True)) / 8**0.5
        return ds @ k, ds.mT @ q, p.mT @ g


@family()
def attention_by_autograd_function():
    return attended(Flash.apply)


@family()
def attention_linear():
    return attended(
        lambda q, k, v: (
            (F.elu(q) + 1)
            @ ((F.elu(k) + 1).mT @ v)
            / ((F.elu(q) + 1) @ (F.elu(k) + 1).sum(-2)[..., None])
        )
    )


@family()
def attention_cosine():
    return attended(
        lambda q, k, v: (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 5).softmax(-1) @ v
    )


@family()
def attention_causal():
    return attended(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))


@family()
def attention_masked_fill():
    return attended(
        lambda q, k, v: (q @ k.mT / 8**0.5).masked_fill_(torch.eye(16).bool(), -1e9).softmax(-1) @ v
    )


@family()
def attention_grouped_queries():
    return attended(
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k[:, :1].expand_as(k), v[:, :1].expand_as(v)
        )
    )


@family()
def attention_enable_gqa():
    return attended(
        lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)
    )


@family()
def attention_kept_heads_topk():
    def attention(q, k, v):
        s = q @ k.mT
        least = s.topk(4, -1).values[..., -1:]
        return s.masked_fill(s < least, -torch.inf).softmax(-1) @ v

    return attended(attention)


def rope_complex(q):
    angles = torch.outer(
        torch.arange(q.shape[-2], dtype=torch.float64),
        torch.tensor([1.0, 0.1, 0.01, 0.001]).double(),
    )
    turn = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(
        torch.view_as_complex(q.reshape(*q.shape[:-1], 4, 2).contiguous()) * turn
    ).flatten(-2)


def rope_written(q):
    angles = torch.outer(
        torch.arange(q.shape[-2], dtype=torch.float64),
        torch.tensor([1.0, 0.1, 0.01, 0.001]).double(),
    )
    out = torch.empty_like(q)
    out[..., 0::2] = q[..., 0::2] * angles.cos() - q[..., 1::2] * angles.sin()
    out[..., 1::2] = q[..., 0::2] * angles.sin() + q[..., 1::2] * angles.cos()
    return out


@family(prediction="flow")
def rotary_complex():
    return attended(
        lambda q, k, v: F.scaled_dot_product_attention(rope_complex(q), rope_complex(k), v)
    )


@family(prediction="flow")
def rotary_written_into_slices():
    return attended(
        lambda q, k, v: F.scaled_dot_product_attention(rope_written(q), rope_written(k), v)
    )


@family()
def multihead_attention_module():
    return Transformer(
        block=lambda: Layer(
            lambda h, a: h + a(h, h, h, need_weights=False)[0],
            nn.MultiheadAttention(16, 2, batch_first=True),
        )
    )


@family()
def transformer_encoder_layer():
    return Transformer(
        block=lambda: nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
    )

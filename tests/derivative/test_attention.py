"""Attention against PyTorch's own Jacobian, by the math kernel, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab.derivative.linearisation import Linearisation

from conftest import relative
from linear_maps import SHAPE, check, in_channels_last, module, weights


def qkv(x):
    return x.flatten(2).reshape(2, 4, 2, 18).transpose(1, 2)  # (2, 2 heads, 4 tokens, 18)


ATTENTION = {
    "attention, nothing to attend to": lambda x: F.scaled_dot_product_attention(
        qkv(x), qkv(x).flip(1), qkv(x) ** 2, attn_mask=torch.arange(16).reshape(4, 4) > 3
    ),
    "attention": lambda x: F.scaled_dot_product_attention(qkv(x), qkv(x).flip(1), qkv(x) ** 2),
    "attention, causal": lambda x: F.scaled_dot_product_attention(
        qkv(x), qkv(x), qkv(x), is_causal=True, scale=0.3
    ),
    "attention, masked": lambda x: F.scaled_dot_product_attention(
        qkv(x),
        weights(2, 2, 5, 18),
        weights(2, 2, 5, 7),
        attn_mask=torch.arange(20).reshape(4, 5) % 3 > 0,
    ),
    "attention, biased": lambda x: F.scaled_dot_product_attention(
        weights(2, 2, 3, 18), qkv(x), qkv(x), attn_mask=weights(3, 4)
    ),
    "attention, values only": lambda x: F.scaled_dot_product_attention(
        weights(2, 2, 3, 18), weights(2, 2, 4, 18), qkv(x)
    ),
    "attention, its bias": lambda x: F.scaled_dot_product_attention(
        qkv(x), qkv(x), qkv(x), attn_mask=x[:, :2, :4, :4]
    ),
    "attention, shared heads": lambda x: F.scaled_dot_product_attention(
        qkv(x), qkv(x)[:, :1], qkv(x)[:, :1], enable_gqa=True
    ),
    "multi-head attention": lambda x: module(lambda: nn.MultiheadAttention(6, 2, batch_first=True))(
        x[:, 0], x[:, 1], x[:, 2]
    )[0],
    "transformer layer": lambda x: module(
        lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, activation="gelu")
    )(x[:, 0]),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_agrees_with_its_parts(name, channels_last, monkeypatch):
    if channels_last:
        in_channels_last(monkeypatch)
    with sdpa_kernel(SDPBackend.MATH):
        check(ATTENTION[name], ATTENTION[name], weights(2, *SHAPE, seed=1))


def test_long_attention_is_taken_in_pieces(monkeypatch):
    # three vectors of one head, or three heads
    monkeypatch.setattr("jacobian_lab.derivative.attention.BYTES", {"cpu": 3 * 8 * 4 * 4})
    for name in ("attention", "attention, masked"):
        x = weights(2, *SHAPE, seed=1)
        truth = torch.autograd.functional.jacobian(ATTENTION[name], x).flatten(-4).flatten(0, -2)
        J = Linearisation(ATTENTION[name], x)
        with torch.no_grad():
            for count in (2, 7):
                V, U = weights(count, 2, *SHAPE, seed=2), weights(count, *J.value.shape, seed=3)
                assert relative(J.jvp(V).flatten(1), V.flatten(1) @ truth.T) < 1e-12
                assert relative(J.vjp(U).flatten(1), U.flatten(1) @ truth) < 1e-12

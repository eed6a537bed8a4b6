"""Attention against PyTorch's own Jacobian, in float64, with P kept and with blocks of it computed
anew.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab.derivative import attention
from jacobian_lab.derivative.arguments import tensors
from jacobian_lab.derivative.linear_map import UnsupportedError
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
    "attention, to all alike": lambda x: F.scaled_dot_product_attention(
        qkv(x), qkv(x), qkv(x) ** 2, scale=0.0
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
    "attention, one sample's keys": lambda x: F.scaled_dot_product_attention(
        qkv(x), qkv(x)[:1], qkv(x)[:1]
    ),
    "attention, without heads": lambda x: F.scaled_dot_product_attention(x[0, 0], x[0, 1], x[1, 2]),
    "attention by its kernel": lambda x: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        qkv(x), qkv(x).flip(1), qkv(x) ** 2, attn_mask=weights(1, 1, 4, 4)
    )[0],
    "multi-head attention": lambda x: module(lambda: nn.MultiheadAttention(6, 2, batch_first=True))(
        x[:, 0], x[:, 1], x[:, 2]
    )[0],
    "transformer layer": lambda x: module(
        lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, activation="gelu")
    )(x[:, 0]),
}


@pytest.fixture(params=["kept", "computed anew", "in blocks of a row"])
def blocks(request, monkeypatch):
    """Whether P is kept, or computed anew, for all rows of a head or for one."""
    if request.param != "kept":
        monkeypatch.setattr(attention, "KEPT", 0)
    if request.param == "in blocks of a row":
        monkeypatch.setattr(attention, "BYTES", {"cpu": 1})


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("kernel", "channels_last"), [(SDPBackend.MATH, True), (SDPBackend.FLASH_ATTENTION, False)]
)
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_agrees_with_its_parts(name, kernel, channels_last, blocks, monkeypatch):
    if channels_last:
        in_channels_last(monkeypatch)
    with sdpa_kernel([kernel, SDPBackend.MATH]):
        check(ATTENTION[name], ATTENTION[name], weights(2, *SHAPE, seed=1))


@pytest.mark.parametrize("rows", [1, 3, 4, 11, 12])
def test_any_size_of_block_gives_the_same(rows, monkeypatch):
    # less than the 4 rows of a head; three vectors of one head, or three heads
    monkeypatch.setattr(attention, "BYTES", {"cpu": rows * 4 * 8})
    for kept in (0, 4):
        monkeypatch.setattr(attention, "KEPT", kept)
        for name in ("attention", "attention, masked", "attention, causal"):
            x = weights(2, *SHAPE, seed=1)
            truth = torch.autograd.functional.jacobian(ATTENTION[name], x)
            truth = truth.flatten(-4).flatten(0, -2)
            J = Linearisation(ATTENTION[name], x)
            with torch.no_grad():
                for count in (2, 7):
                    V, U = weights(count, *x.shape, seed=2), weights(count, *J.value.shape, seed=3)
                    assert relative(J.jvp(V).flatten(1), V.flatten(1) @ truth.T) < 1e-12
                    assert relative(J.vjp(U).flatten(1), U.flatten(1) @ truth) < 1e-12


MASKS = {
    "none": lambda b, h, n, m: None,
    "of each pair": lambda b, h, n, m: weights(n, m) > -0.5,
    "of each key": lambda b, h, n, m: weights(b, 1, 1, m) > -0.5,
    "of each head": lambda b, h, n, m: weights(h, n, m),
    "of each sample, expanded": lambda b, h, n, m: weights(b, 1, n, m).expand(b, h, n, m),
    "of each query": lambda b, h, n, m: (weights(b, h, n, 1) > -0.5).expand(b, h, n, m),
    "nowhere": lambda b, h, n, m: torch.zeros(n, m, dtype=torch.bool),
    "with infinity": lambda b, h, n, m: weights(b, h, n, m).masked_fill(
        weights(n, m) > 0, -torch.inf
    ),
}


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.tuples(*(st.integers(1, 3) for _ in range(2)), *(st.integers(1, 9) for _ in range(4))),
    mask=st.sampled_from(sorted(MASKS)),
    causal=st.booleans(),
    scale=st.sampled_from([None, 0.3, 2.0]),
    active=st.sets(st.integers(0, 2), min_size=1),
    count=st.integers(1, 4),
    rows=st.integers(1, 40),
    kept=st.sampled_from([0, 4]),
)
def test_random_attentions_are_right(sizes, mask, causal, scale, active, count, rows, kept):
    b, h, n, m, d, e = sizes
    operands = [
        weights(b, h, *shape, seed=i) for i, shape in enumerate([(n, d), (m, d), (m, e)], start=4)
    ]
    given_mask = None if causal else MASKS[mask](b, h, n, m)
    parts = [operands[i].numel() for i in sorted(active)]

    def function(x):
        arguments = list(operands)
        for i, part in zip(sorted(active), x.split(parts), strict=True):
            arguments[i] = part.reshape(operands[i].shape)
        return F.scaled_dot_product_attention(
            *arguments, attn_mask=given_mask, is_causal=causal, scale=scale
        )

    x = torch.cat([operands[i].reshape(-1) for i in sorted(active)])
    with sdpa_kernel(SDPBackend.MATH):
        truth = torch.autograd.functional.jacobian(function, x).reshape(-1, len(x))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(attention, "BYTES", {"cpu": rows * m * 8})
        patch.setattr(attention, "KEPT", kept)
        J = Linearisation(function, x)
        V, U = weights(count, len(x), seed=2), weights(count, *J.value.shape, seed=3)
        size = truth.norm().clamp(min=1e-3)
        assert (J.jvp(V).flatten(1) - V @ truth.T).norm() < 1e-11 * size * V.norm()
        assert (J.vjp(U) - U.flatten(1) @ truth).norm() < 1e-11 * size * U.norm()


LIMITS = {torch.float32: 2e-6, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@pytest.mark.parametrize("size", [1.0, 5.0])
@pytest.mark.parametrize("dtype", LIMITS)
def test_attention_in_less_than_float64(dtype, size, blocks):
    q, k, v = (
        (factor * weights(1, 2, 96, 8, seed=i)).to(dtype)
        for i, factor in enumerate([size, 1.0, 1.0])
    )
    vectors, cotangents = weights(3, 3, 1, 2, 96, 8, seed=4), weights(3, 1, 2, 96, 8, seed=5)

    def of(x):
        return F.scaled_dot_product_attention(*x)

    x = torch.stack([q, k, v])
    J, exact = Linearisation(of, x), Linearisation(of, x.double())
    with torch.no_grad():
        Jv, Ju = J.jvp(vectors.to(dtype)), J.vjp(cotangents.to(dtype))
        assert Jv.dtype == Ju.dtype == dtype
        assert relative(Jv.double(), exact.jvp(vectors.to(dtype).double())) < LIMITS[dtype]
        assert relative(Ju.double(), exact.vjp(cotangents.to(dtype).double())) < LIMITS[dtype]


def test_a_long_attention_holds_nothing_of_the_size_of_its_matrix():
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.untyped_storage().nbytes() for t in tensors(out))
            return out

    x = weights(1, 4, 1500, 8).float()
    with torch.no_grad():
        J = Linearisation(lambda x: F.scaled_dot_product_attention(x, x, x), x)
        with Sizes():
            J.jvp(x[None])
            J.vjp(x[None])
    assert max(sizes) <= attention.BYTES["cpu"] < 4 * 1500**2 * 4 / 8


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("which", ["queries", "keys", "values", "result"])
def test_what_a_network_overwrites_after_an_attention_is_kept_as_it_was(which, kernel):
    def network(x, in_place):
        # contiguous: the rule then holds what is overwritten, no copy
        given = (qkv(x).contiguous(), qkv(x).flip(1).contiguous(), (qkv(x) ** 2).contiguous())
        parts = dict(zip(("queries", "keys", "values"), given, strict=True))
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out = attend(*given)[0] if kernel else F.scaled_dot_product_attention(*given)
        parts["result"] = out
        twice = out + out
        return twice + (parts[which].sin_() if in_place else parts[which].sin())

    x, v = weights(2, *SHAPE), weights(3, 2, *SHAPE, seed=1)
    with torch.no_grad():
        J, pure = (Linearisation(lambda x, now=now: network(x, now), x) for now in (True, False))
    assert torch.equal(J.value, pure.value)
    assert relative(J.jvp(v), pure.jvp(v)) < 1e-14
    u = weights(3, *J.value.shape, seed=2)
    assert relative(J.vjp(u), pure.vjp(u)) < 1e-14
    assert not J.borrowed


@pytest.mark.parametrize("which", range(3))
def test_a_query_key_or_value_that_is_written_to_later_is_noticed(which):
    seen = []

    def network(x):
        seen.append((qkv(x).clone(), qkv(x).flip(1), qkv(x) ** 2))
        return F.scaled_dot_product_attention(*seen[-1])

    x = weights(2, *SHAPE)
    with torch.no_grad():
        J = Linearisation(network, x)
        J.jvp(x[None])
        seen[0][which].zero_()
        with pytest.raises(UnsupportedError, match="cache"):
            J.jvp(x[None])

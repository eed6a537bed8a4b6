"""Each operation's linearisation against PyTorch's own Jacobian, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import jacobian_lab.derivative.linear_map
from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation

from conftest import relative

SHAPE = (2, 4, 6, 6)


def weights(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def module(make):
    torch.manual_seed(0)
    return make().double().eval()


def normed(norm):
    with torch.no_grad():
        for name, p in norm.named_parameters():
            p.copy_(weights(*p.shape) + ("weight" in name))
    return norm


def batch_norm():
    norm = normed(nn.BatchNorm2d(4)).double()
    norm.running_mean.copy_(weights(4))
    norm.running_var.copy_(weights(4).square() + 0.5)
    return norm.eval()


def checkpointed(x):
    from torch.utils.checkpoint import checkpoint

    return checkpoint(lambda y: torch.tanh(y) * y, x, use_reentrant=False)


def qkv(x):
    return x.flatten(2).reshape(2, 4, 2, 18).transpose(1, 2)  # (2, 2 heads, 4 tokens, 18)


class Halved(torch.autograd.Function):
    """Doubles, and lies about it."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return g / 2


def in_place(x):
    y = F.conv2d(x, weights(4, 4, 1, 1))
    y += x
    y.relu_()
    return F.silu((y * 3).add_(x), inplace=True).mul_(2)


OPERATIONS = {
    "convolution": lambda x: F.conv2d(x, weights(3, 4, 3, 3), weights(3), stride=2, padding=1),
    "depthwise": lambda x: F.conv2d(x, weights(4, 1, 3, 3), groups=4, padding=2, dilation=2),
    "transposed convolution": lambda x: F.conv_transpose2d(
        x, weights(4, 3, 3, 3), weights(3), stride=2, output_padding=1
    ),
    "convolution 1d": lambda x: F.conv1d(x.flatten(2), weights(5, 4, 3)),
    "convolution with itself": lambda x: F.conv2d(x, x[:, :, :3, :3]),
    "linear": lambda x: F.linear(x, weights(3, 6), weights(3)),
    "linear 2d": lambda x: F.linear(x.flatten(1), weights(3, 144), weights(3)),
    "matrix product of itself": lambda x: x @ x.mT @ x,
    "matrix products": lambda x: weights(6, 6) @ x @ weights(6, 2),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x**2),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5, alpha=2),
    "addmm": lambda x: torch.addmm(x[0, 0], x[0, 1], x[1, 2], beta=2, alpha=0.5),
    "vectors": lambda x: torch.mv(x[0, 0], x[0, 1, 0]) + torch.dot(x[0, 0, 0], x[1, 1, 1]),
    "softmax": lambda x: torch.softmax(x, 1) * torch.log_softmax(x, -1),
    "group norm": lambda x: normed(nn.GroupNorm(2, 4)).double()(x),
    "group norm, plain": lambda x: F.group_norm(x, 4),
    "group norm, channels last": lambda x: F.group_norm(
        x.contiguous(memory_format=torch.channels_last), 2
    ),
    "layer norm": lambda x: normed(nn.LayerNorm(6)).double()(x),
    "layer norm, two": lambda x: F.layer_norm(x, (6, 6)),
    "rms norm": lambda x: F.rms_norm(x, (6,), weights(6)),
    "instance norm": lambda x: F.instance_norm(x),
    "batch norm": lambda x: batch_norm()(x),
    "activations": (
        lambda x: (
            F.silu(x)
            + F.gelu(x)
            + F.gelu(x, approximate="tanh") * F.mish(x)
            + F.softplus(x)
            + F.elu(x)
        )
    ),
    "kinks": (
        lambda x: (
            F.relu(x)
            + F.leaky_relu(x)
            + F.hardswish(x)
            + x.abs()
            + x.clamp(-0.5, 0.5)
            + F.relu6(2 * x)
        )
    ),
    "elementary": (
        lambda x: (
            torch.exp(x)
            + torch.log(x**2 + 1)
            + torch.sqrt(x.abs() + 1)
            + torch.sin(x) * torch.erf(x)
        )
    ),
    "quotient by integers": lambda x: x / torch.arange(3, 9),
    "upsampling 1d": lambda x: F.interpolate(x[:, 0], scale_factor=2) ** 2,
    "attention, nothing to attend to": lambda x: F.scaled_dot_product_attention(
        qkv(x), qkv(x).flip(1), qkv(x) ** 2, attn_mask=torch.arange(16).reshape(4, 4) > 3
    ),
    "quotients": lambda x: x / (1 + x**2) + 2 / (3 + x.square()) - (1 - x) / 3,
    "broadcasting": (
        lambda x: x * x[:, :1] + x[0] - x.mean((2, 3), keepdim=True) / (1 + x[:, :, :1, :1] ** 2)
    ),
    "enlarging": lambda x: x[:, :, 0, 0][:, :, None, None] * weights(6, 6) + x[0, 0, 0, 0],
    "where": (
        lambda x: (
            torch.where(x > 0, x**3, x) + torch.maximum(x, x.flip(2)) + x.masked_fill(x < 0.1, 0)
        )
    ),
    "lerp, addcmul": lambda x: torch.lerp(x, x**2, 0.3) + torch.addcmul(x, x, x[:1], value=2),
    "powers": lambda x: (x.abs() + 1) ** x + x**3 + 2**x + torch.rsqrt(x**2 + 1),
    "pools": (
        lambda x: F.avg_pool2d(x, 3, 2, 1).mean() * F.max_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 3)
    ),
    "upsampling": (
        lambda x: (
            F.interpolate(x, scale_factor=2) * F.interpolate(x, size=(12, 12), mode="bilinear")
        )
    ),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", antialias=True),
    "pixel shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2) ** 2, 3),
    "padding": (
        lambda x: F.pad(x, (1, -1, 2, 0)) + F.pad(x, (1, 1, 1, 1), mode="reflect")[..., :8, :6]
    ),
    "replicated": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "pieces": lambda x: torch.cat(
        [x.chunk(2, 1)[1], x.split([1, 3], 1)[1] ** 2, weights(2, 1, 6, 6)], 1
    ),
    "unbound": (
        lambda x: (
            x.unbind(1)[2] * x.unbind(1)[0] + torch.stack([x[:, 0], weights(2, 6, 6)], 1).prod(1)
        )
    ),
    "slices": lambda x: x[:, ::2, 1:-1, -3:] + x[:, 1, None, None, 2, :3],
    "indices": lambda x: (
        x[:, [0, 0, 3]]
        + x.index_select(1, torch.tensor([1, 2, 2])) * x.gather(1, torch.zeros(2, 3, 6, 6).long())
    ),
    "rearranged": (
        lambda x: (
            x.flip(-1)
            + x.roll(1, 2)
            + x.permute(0, 1, 3, 2)
            + x.transpose(2, 3).tril()
            + x.movedim(2, 3)
        )
    ),
    "repeated": lambda x: x.repeat(1, 2, 1, 1) + x.expand(2, 4, 6, 6).repeat_interleave(2, 1),
    "reductions": lambda x: (
        x.sum()
        + x.mean(1)[:, :4]
        + x.sum((2, 3))[:, :, None]
        + x.var(1)[:, :4]
        + x.std((0, 1))[:4]
        + x.norm(dim=1)[:, :4]
    ),
    "extremes": (
        lambda x: (
            x.amax(1)
            + x.max(2).values.sum(1, keepdim=True)
            + x.logsumexp((1, 2))[:, None]
            + x.cumsum(1)[:, 1]
        )
    ),
    "sorted": lambda x: x.sort(1).values[:, :2] + x.topk(2, 1).values,
    "in place": in_place,
    "no_grad inside": lambda x: x + torch.no_grad()(torch.tanh)(x),
    "detach inside": lambda x: x * x.detach() + x.data,
    "checkpointed": checkpointed,
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
    "zeros like": lambda x: torch.zeros_like(x) + x.new_ones(6) * x,
    "precision and back": lambda x: (x.float().double() + x).to(torch.float64),
    "another autograd": lambda x: torch.func.jvp(torch.tanh, (x,), (x,))[1],
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_agrees_with_pytorch(name, channels_last, monkeypatch):
    if channels_last:  # what float32 does with many vectors on a CPU
        monkeypatch.setattr(
            jacobian_lab.derivative.linear_map, "_is_better_channels_last", lambda x: x.ndim == 4
        )
    function, x = OPERATIONS[name], weights(*SHAPE, seed=1)
    with sdpa_kernel(SDPBackend.MATH):
        truth = torch.autograd.functional.jacobian(honest(name), x)
        J = Linearisation(function, x)
    m, n = J.value.numel(), x.numel()
    truth, exact = truth.reshape(m, n), 1e-6 if name == "precision and back" else 1e-12
    assert relative(J.value, function(x)) < 1e-14
    for count in (1, 3):
        V, U = weights(count, n, seed=2), weights(count, m, seed=3)
        with torch.no_grad():
            pushed, pulled = (
                J.jvp(V.reshape(count, *SHAPE)),
                J.vjp(U.reshape(count, *J.value.shape)),
            )
        assert pushed.shape == (count, *J.value.shape)
        assert pulled.shape == (count, *SHAPE)
        assert relative(pushed.reshape(count, m), V @ truth.T) < exact
        assert relative(pulled.reshape(count, n), U @ truth) < exact


def honest(name):
    """The function as autograd must see it to find the derivative of what is computed."""
    return {
        "no_grad inside": lambda x: x + torch.tanh(x),
        "detach inside": lambda x: x * x + x,
    }.get(name, OPERATIONS[name])


def test_what_is_computed_is_differentiated_not_what_a_custom_backward_says():
    with torch.no_grad():
        J = Linearisation(lambda x: Halved.apply(x), weights(*SHAPE))
        assert relative(J.jvp(weights(1, *SHAPE)), 2 * weights(1, *SHAPE)) < 1e-15


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.zeros_like(x), "does not depend on x"),
        (lambda x: weights(6, 6)[x.argmax(-1)], "only through argmax"),
        (lambda x: torch.native_layer_norm(x, (6,), None, None, 1e-5)[1] * 2, "statistics"),
        (lambda x: (lambda y: (y.resize_(3, 96), y)[1])(x * 2), "resize_"),
        (lambda x: x.view(torch.int64).float() * x, "read in another way"),
        (lambda x: (x * 1).to_sparse().to_dense(), "sparse"),
        (lambda x: torch.sparse.mm(torch.eye(6, dtype=x.dtype).to_sparse(), x[0, 0]), "sparse"),
        (lambda x: x * torch.bernoulli(torch.sigmoid(x)), "random"),
        (lambda x: x + F.rrelu(x, training=True), "rrelu"),
    ],
)
def test_what_cannot_be_recorded_is_refused_by_name(function, message):
    with pytest.raises(UnsupportedError, match=message):
        Linearisation(function, weights(*SHAPE))


def test_diagonals_are_merged_and_dead_ends_left_out():
    def function(x):
        torch.exp(x) @ x  # unused
        return F.silu(2 * torch.tanh(x).detach() + 1) * 3

    assert len(Linearisation(function, weights(*SHAPE)).steps) == 1


def test_long_attention_is_taken_in_pieces(monkeypatch):
    # three vectors of one head, or three heads
    monkeypatch.setattr("jacobian_lab.derivative.attention.BYTES", {"cpu": 3 * 8 * 4 * 4})
    for name in ("attention", "attention, masked"):
        x = weights(*SHAPE, seed=1)
        truth = torch.autograd.functional.jacobian(OPERATIONS[name], x).flatten(-4).flatten(0, -2)
        J = Linearisation(OPERATIONS[name], x)
        with torch.no_grad():
            for count in (2, 7):
                V, U = weights(count, *SHAPE, seed=2), weights(count, *J.value.shape, seed=3)
                assert relative(J.jvp(V).flatten(1), V.flatten(1) @ truth.T) < 1e-12
                assert relative(J.vjp(U).flatten(1), U.flatten(1) @ truth) < 1e-12


def test_memory_does_not_grow_with_the_depth():
    deep = Linearisation(
        lambda x: nn.Sequential(*[nn.SiLU(), nn.Conv2d(4, 4, 1)] * 20).double()(x), weights(*SHAPE)
    )
    assert deep.bytes_per_vector() <= 2 * 3 * weights(*SHAPE).nbytes

"""Elementwise operations, sums, products and resampling against PyTorch's Jacobian, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linear_maps import SHAPE, check, in_channels_last, module, weights

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
    "quotient by integers": lambda x: x / torch.arange(3, 9),
    "upsampling 1d": lambda x: F.interpolate(x[:, 0], scale_factor=2) ** 2,
    "quotients": lambda x: x / (1 + x**2) + 2 / (3 + x.square()) - (1 - x) / 3,
    "broadcasting": (
        lambda x: x * x[:, :1] + x[0] - x.mean((2, 3), keepdim=True) / (1 + x[:, :, :1, :1] ** 2)
    ),
    "enlarging": lambda x: x[:, :, 0, 0][:, :, None, None] * weights(6, 6) + x[0, 0, 0, 0],
    "pools": (
        lambda x: F.avg_pool2d(x, 3, 2, 1).mean() * F.max_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 3)
    ),
    "upsampling": (
        lambda x: (
            F.interpolate(x, scale_factor=2) * F.interpolate(x, size=(12, 12), mode="bilinear")
        )
    ),
    "pixel shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2) ** 2, 3),
    "gates": lambda x: F.glu(x, 1)[:, :, :, :3] * F.glu(x)[:, :2],
    "activations": lambda x: F.silu(x) + F.gelu(x, approximate="tanh") * F.mish(x) + x.tanh(),
    "sequences": lambda x: (
        F.interpolate(x[:, 0], scale_factor=2, mode="linear")[:, :, 4:]
        * F.pad(x[:, 1], (1, 1), mode="reflect")
    ),
    "volumes": lambda x: (
        F.interpolate(x[:, None], scale_factor=2)
        * F.interpolate(x[:, None], scale_factor=2, mode="trilinear")
        * F.pad(F.avg_pool3d(x[:, None], 2), (2, 7, 2, 7, 2, 4), mode="replicate")
    ),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "replicated": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "reductions": lambda x: (
        x.sum()
        + x.mean(1)[:, :4]
        + x.sum((2, 3))[:, :, None]
        + x.var(1)[:, :4]
        + x.std((0, 1))[:4]
        + x.norm(dim=1)[:, :4]
    ),
    "zeros like": lambda x: torch.zeros_like(x) + x.new_ones(6) * x,
}
PATTERNS = {
    "cumulative": (
        lambda x: x.cumsum(1) + (1 + x**2).cumprod(2) + x.logcumsumexp(3) + x.cummax(1).values
    ),
    "weights made of x": lambda x: F.conv2d(
        x, x[:1].mean((2, 3), keepdim=True).expand(4, 4, 3, 3) * weights(4, 4, 3, 3), padding=1
    ),
    "linear with weights made of x": lambda x: F.linear(x, x[0, 0] ** 2, x[0, 1, 0]),
    "number of a threshold": lambda x: x * float(int((x > 0).sum())) if bool((x > 0).any()) else x,
    "GRU": lambda x: module(lambda: nn.GRU(6, 5, 2, batch_first=True, bidirectional=True))(x[:, 0])[
        0
    ],
    "LSTM": lambda x: module(lambda: nn.LSTM(6, 5, batch_first=True))(x[:, 0])[0],
    "RNN cell": lambda x: module(lambda: nn.GRUCell(6, 6))(x[:, 0, 0], x[:, 1, 0]),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_agrees_with_pytorch(name, channels_last, monkeypatch):
    if channels_last:
        in_channels_last(monkeypatch)
    check(OPERATIONS[name], OPERATIONS[name], weights(2, *SHAPE, seed=1))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_agrees_with_pytorch(name, batch):
    J = check(PATTERNS[name], PATTERNS[name], weights(batch, *SHAPE, seed=1), 1e-10)
    assert J.reads == ()

"""Lower and mixed precision are recorded, with tangents in the precision of their values."""

import copy
import weakref

import pytest
import torch
from torch import nn

from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.derivative.recorder import Recorder

from conftest import relative
from linear_maps import SHAPE, module, weights


def in_half(function, dtype):
    return lambda x: function(x.to(dtype)).to(x.dtype)


def autocast(function, dtype):
    def call(x):
        with torch.autocast("cpu", dtype):
            return function(x).to(x.dtype)

    return call


def mixed():
    """A network; made inside `module`, which seeds its weights: about one in 16 random ones has an
    entry so near the relu's kink that rounding puts it on the other side.
    """
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.ReLU(),
        nn.LayerNorm(6),
        nn.Linear(6, 6),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["island", "autocast"])
def test_lower_precision_inside_is_recorded(kind, dtype):
    if (kind, dtype) == ("autocast", torch.float32):
        pytest.skip("autocast is for half precision")
    network = module(mixed).float()
    inside = (
        in_half(copy.deepcopy(network).to(dtype), dtype)
        if kind == "island"
        else autocast(network, dtype)
    )
    x = weights(1, *SHAPE).float() if dtype is not torch.float32 else weights(1, *SHAPE)
    double = copy.deepcopy(network).double()
    truth = torch.autograd.functional.jacobian(lambda x: double(x) + x**2, x.double()).reshape(
        144, 144
    )
    J = Linearisation(lambda x: inside(x) + x**2, x)
    eps = torch.finfo(dtype).eps
    assert J.coarsest == eps
    for count in (1, 20):
        V, U = (weights(count, *x.shape, seed=seed) for seed in (2, 3))
        with torch.no_grad():
            pushed, pulled = J.jvp(V.to(x.dtype)).double(), J.vjp(U.to(x.dtype)).double()
        assert relative(pushed.flatten(1), V.flatten(1) @ truth.T) < 30 * eps
        assert relative(pulled.flatten(1), U.flatten(1) @ truth) < 30 * eps


MIXED = {
    "sum": lambda x: x.half() + x,
    "difference": lambda x: 2 * x - x.bfloat16(),
    "product": lambda x: x.half() * x,
    "quotient": lambda x: x / (x.half() ** 2 + 1),
    "broadcast": lambda x: x.half().mean((2, 3), keepdim=True) * x,
    "where": lambda x: torch.where(x > 0, x.bfloat16(), x),
    "in place": lambda x: (x * 1).add_(x.half()),
    "into half": lambda x: (x.half() * 1).add_(x).float(),
    "softmax": lambda x: x.half().softmax(-1, dtype=torch.float32),
    "reduction": lambda x: x.half().sum(1, dtype=torch.float32, keepdim=True) + x,
    "lerp": lambda x: torch.lerp(x, x.half().float(), 0.3),
}


@pytest.mark.parametrize("name", MIXED)
def test_precisions_are_mixed(name):
    x, function = weights(1, *SHAPE).float(), MIXED[name]
    J = Linearisation(function, x)
    truth = torch.autograd.functional.jacobian(function, x).reshape(J.value.numel(), -1)
    V, U = (
        weights(3, *x.shape, seed=2).float(),
        weights(3, *J.value.shape, seed=3).to(J.value.dtype),
    )
    with torch.no_grad():
        pushed, pulled = J.jvp(V), J.vjp(U)
    assert pushed.dtype == J.value.dtype
    assert pulled.dtype == x.dtype
    eps = torch.finfo(
        torch.bfloat16 if "bfloat16" in name or name in ("difference", "where") else torch.float16
    ).eps
    assert relative(pushed.flatten(1).float(), V.flatten(1) @ truth.T.float()) < 4 * eps
    assert relative(pulled.flatten(1), U.flatten(1).float() @ truth.float()) < 4 * eps


def test_tangents_are_not_rounded_to_eight_bits():  # PyTorch's own saturate at 448
    J = Linearisation(
        lambda x: x.to(torch.float8_e4m3fn).float() * 1e4 + x, weights(1, *SHAPE).float()
    )
    v = weights(3, 1, *SHAPE, seed=2).float()
    assert J.coarsest == 0.125
    with torch.no_grad():
        assert relative(J.jvp(v), 10001 * v) < 1e-6
        assert relative(J.vjp(v), 10001 * v) < 1e-6


def test_a_run_keeps_no_graph_and_one_that_is_only_watched_no_maps():
    gone = []

    def network(x):
        y = 2 * x
        there = weakref.ref(y)
        z = torch.nn.functional.silu(y)  # of which autograd would keep the argument
        del y
        gone.append(there() is None)
        return z

    recorder = Recorder(network, weights(2, *SHAPE), saved=False)
    assert gone == [True]
    assert len(recorder.tape.calls) == 2
    assert recorder.value.grad_fn is None
    assert Recorder(network, weights(2, *SHAPE), saved=True, maps=False).tape.calls == []
    assert gone == [True, False]


def test_a_network_that_differentiates_itself_is_recorded_with_its_graph():
    def network(x):
        return torch.autograd.grad((x.sin() ** 2).sum(), x, create_graph=True)[0]

    x = weights(1, *SHAPE)
    with pytest.raises(RuntimeError, match="the network differentiates itself"):
        Recorder(network, x, saved=False)
    with torch.no_grad():
        pushed = Linearisation(network, x).jvp(x[None])[0]
    assert relative(pushed, 2 * (2 * x).cos() * x) < 1e-13

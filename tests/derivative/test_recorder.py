"""What a recording must see or refuse: what PyTorch does not compute, what is overwritten later,
and lower precision.
"""

import copy
import ctypes
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation

from conftest import relative
from linear_maps import SHAPE, check, module, weights


class Cache(nn.Module):
    """Computes in a buffer, which another call overwrites."""

    def __init__(self):
        super().__init__()
        self.register_buffer("k", torch.zeros(8, *SHAPE, dtype=torch.float64))

    def forward(self, x):
        self.k[: len(x)] = x**2
        return x @ self.k[: len(x)].mT + self.k[: len(x)] * torch.sin(x)


class Growing(nn.Module):
    """The same in a tensor that the first call makes."""

    def forward(self, x):
        if not hasattr(self, "k"):
            self.k = torch.zeros_like(x)
        self.k.copy_(x**2)
        return x @ self.k.mT


class Clamped(nn.Module):
    """Clamps a weight in place in each forward pass."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0, dtype=torch.float64))

    def forward(self, x):
        with torch.no_grad():
            self.scale.clamp_(max=100.0)
        return torch.tanh(x * self.scale)


@pytest.mark.parametrize("make", [Cache, Clamped])
def test_what_a_recording_holds_is_not_what_the_next_run_overwrites(make):
    network, x = make(), weights(2, *SHAPE)
    v = weights(1, 2, *SHAPE, seed=2)
    with torch.no_grad():
        J = Linearisation(network, x, network.state_dict().values())
        before = J.jvp(v), J.vjp(v)
        network(3 * x)
        assert torch.equal(J.jvp(v), before[0])
        assert torch.equal(J.vjp(v), before[1])
    check(network, make(), x)


def test_a_tensor_of_the_recorded_run_that_is_written_to_later_is_noticed():
    network, x = Growing(), weights(2, *SHAPE)
    with torch.no_grad():
        J = Linearisation(network, x)
        J.jvp(x[None])
        network(3 * x)
        with pytest.raises(UnsupportedError, match="cache"):
            J.jvp(x[None])


# ------------------------------------------------------------- where PyTorch does not see it


def in_numpy(x):
    return torch.from_numpy(np.tanh(x.detach().numpy()))


class Hook(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.tanh(x.numpy()))

    @staticmethod
    def backward(ctx, g):
        return g


def in_a_thread(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.tanh(x.detach())))
    thread.start()
    thread.join()
    return found[0]


def by_pointer(x):
    y, size = x.detach().contiguous(), x.numel()
    out = torch.empty_like(y)
    source, target = ((ctypes.c_double * size).from_address(a.data_ptr()) for a in (y, out))
    target[:] = [v * v for v in source]
    return out


def into_its_own_memory(x):
    y = x * 1
    np.tanh(y.detach().numpy(), out=y.detach().numpy())
    return y


def through_a_buffer(x):
    buffer = torch.zeros_like(x)
    view = buffer.numpy()
    view[...] = np.tanh(x.detach().numpy())
    return buffer


def by_list(x):
    return torch.tensor(x.tolist(), dtype=x.dtype) ** 2


def by_dlpack(x):
    return torch.from_dlpack(np.tanh(np.from_dlpack(x.detach())))


HIDDEN = {
    "numpy": in_numpy,
    "autograd.Function": Hook.apply,
    "numpy under inference": torch.inference_mode()(in_numpy),
    "thread": in_a_thread,
    "pointer": by_pointer,
    "out of numpy": into_its_own_memory,
    "buffer": through_a_buffer,
    "list": by_list,
    "dlpack": by_dlpack,
    "capsule": lambda x: torch.from_dlpack(torch.utils.dlpack.to_dlpack(x.detach() * 1)),
    "numpy function": lambda x: torch.as_tensor(np.tanh(np.asarray(x.detach()))),
    "number of a list": lambda x: torch.tensor([x.std().item()]),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_computed_elsewhere_is_no_constant(name):
    function = HIDDEN[name]
    with pytest.raises(
        UnsupportedError, match=r"no recorded operation made|where PyTorch cannot see it"
    ):
        Linearisation(lambda x: torch.sin(x) + 0.01 * function(x), weights(2, *SHAPE))


def counted(function):
    def count(x):
        count.calls += 1
        return function(x)

    count.calls = 0
    return count


def test_constants_from_elsewhere_are_constants():
    kernel = np.array([1.0, 2.0, 1.0])
    position = weights(6)
    buffer = torch.zeros(6, dtype=torch.float64)

    def function(x):
        buffer.copy_(position)
        scale = (
            torch.from_numpy(np.sin(np.arange(6.0)))
            + torch.tensor(kernel)[0]
            + torch.tensor([1.0, 2.0])[1]
        )
        return torch.tanh(x * scale) + position * buffer.numpy().sum()

    function = counted(function)
    check(function, function, weights(2, *SHAPE))


def test_a_network_of_known_tensors_runs_once():
    network = module(
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 4, 3))
    )
    x = weights(1, *SHAPE)
    for known, runs in (([*network.parameters(), *network.buffers()], 1), ([], 2)):
        function = counted(
            lambda x: (
                network(x) * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=x.dtype)[:, None, None]
                + torch.tensor(2.0)
            )
        )
        Linearisation(function, x, known)
        assert function.calls == runs


def test_numbers_that_are_read_out_are_named():
    x = weights(1, *SHAPE)
    assert Linearisation(lambda x: x / x.std().item(), x).reads == ("_local_scalar_dense",)
    assert Linearisation(lambda x: x * float(np.tanh(x.detach().numpy()).sum()), x).reads == (
        "numpy",
    )
    assert Linearisation(lambda x: x * x.mean((0, 2, 3)).tolist()[0], x).reads == ("tolist",)
    assert Linearisation(lambda x: x if torch.equal(x, x + 1) else 2 * x, x).reads == ("equal",)


# --------------------------------------------------------------------------- mixed precision


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


class LinearAttention(nn.Module):
    """As Sana's: weights in half precision, the quotient in single, and tokens to which nothing is
    attended.
    """

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(4, 4, 1) for _ in range(3))

    def forward(self, x):
        q, k, v = (f(x.to(f.weight.dtype)).flatten(2) for f in (self.q, self.k, self.v))
        q, k, v = torch.relu(q - 0.3), torch.relu(k), F.pad(v, (0, 0, 0, 1), value=1.0)
        q, k, v = (a.to(torch.promote_types(a.dtype, torch.float32)) for a in (q, k, v))
        o = (v @ k.mT) @ q
        o = o[:, :-1] / (o[:, -1:] + 1e-15)
        return o.to(self.q.weight.dtype).to(x.dtype).reshape(x.shape) + x


def test_a_cotangent_that_overflows_in_half_precision():
    torch.manual_seed(1)
    half = LinearAttention().half().eval()
    with torch.no_grad():
        half.q.weight[1:].zero_()
        half.q.bias.fill_(-1)  # most tokens have no query
    exact = LinearAttention().double().eval()
    exact.load_state_dict(half.state_dict())
    x = weights(1, *SHAPE).float()
    x[:, :, :2] *= 10
    J, truth = (
        Linearisation(half, x),
        torch.autograd.functional.jacobian(exact, x.double()).reshape(144, 144),
    )
    for size in (1.0, 1e6, 1e-9):
        V, U = (
            size * weights(20, *SHAPE, seed=2)[:, None],
            size * weights(20, *SHAPE, seed=3)[:, None],
        )
        with torch.no_grad():
            pushed, pulled = J.jvp(V.float()).double(), J.vjp(U.float()).double()
        assert relative(pushed.flatten(1), V.flatten(1) @ truth.T) < 1e-2
        assert relative(pulled.flatten(1), U.flatten(1) @ truth) < 1e-2

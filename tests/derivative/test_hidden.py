"""What PyTorch does not compute is no constant, and constants from elsewhere are."""

import ctypes
import threading

import numpy as np
import pytest
import torch
from torch import nn

from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation

from linear_maps import SHAPE, check, module, weights


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

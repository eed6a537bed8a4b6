"""What rules keep is not what a later write makes of it."""

import numpy as np
import pytest
import torch
from torch import nn

from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation

from linear_maps import SHAPE, check, weights


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


class OfNumpy(nn.Module):
    """Computes a factor in numpy, in the same memory at each call."""

    def __init__(self):
        super().__init__()
        self.time, self.factor = 1.0, np.zeros(SHAPE)

    def forward(self, x):
        self.factor[:] = np.cos(self.time * np.arange(SHAPE[-1]))
        return x.softmax(1) * torch.from_numpy(self.factor)


def test_numpy_s_memory_may_be_written_to_after_the_recording():
    network, x = OfNumpy(), weights(2, *SHAPE)
    with torch.no_grad():
        J = Linearisation(network, x)
        before = J.jvp(x[None])
        network.time = 2.0
        network(x)
        assert torch.equal(J.jvp(x[None]), before)


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

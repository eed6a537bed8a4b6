"""Tangents of any size pass through half precision."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.derivative.scaling import Scaled, aligned, normalised

from conftest import relative
from linear_maps import SHAPE, weights


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


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e14])
def test_each_vector_is_brought_to_size_one_by_a_power_of_two(size):
    t = size * weights(3, 4, 5)
    (found,), scale = normalised([t], None)
    assert torch.equal(found * scale.reshape(3, 1, 1), t)  # nothing is rounded
    assert torch.equal(scale.log2(), scale.log2().round())
    assert ((found.flatten(1).abs().amax(1) >= 1) & (found.flatten(1).abs().amax(1) < 2)).all()


def test_sums_of_differently_scaled_tangents_are_sums():
    a, b = (
        Scaled(weights(2, 3), torch.tensor([4.0, 0.5], dtype=torch.float64)),
        Scaled(weights(2, 3, seed=1)),
    )
    assert relative((a + b).product(), a.product() + b.product()) < 1e-15
    tensors, scale = aligned([a, None, b])
    assert tensors[1] is None
    assert torch.equal(scale, torch.tensor([4.0, 1.0], dtype=torch.float64))


def test_a_vector_of_zeros_stays():
    (found,), scale = normalised([torch.zeros(1, 3)], None)
    assert not found.any()
    assert scale.tolist() == [1.0]

"""A function linearised at one point: what is computed is differentiated, and nothing twice."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation

from conftest import relative
from linear_maps import SHAPE, check, in_channels_last, weights


def checkpointed(x):
    from torch.utils.checkpoint import checkpoint

    return checkpoint(lambda y: torch.tanh(y) * y, x, use_reentrant=False)


def energy(x):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad((torch.tanh(y) * y**2).sum(), y)[0]


class Halved(torch.autograd.Function):
    """Doubles, and lies about it."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return g / 2


OPERATIONS = {
    "no_grad inside": lambda x: x + torch.no_grad()(torch.tanh)(x),
    "detach inside": lambda x: x * x.detach() + x.data,
    "checkpointed": checkpointed,
    "another autograd": lambda x: torch.func.jvp(torch.tanh, (x,), (x,))[1],
    "energy": energy,
}
HONEST = {  # as autograd must see it to find the derivative of what is computed
    "no_grad inside": lambda x: x + torch.tanh(x),
    "detach inside": lambda x: x * x + x,
    "energy": lambda x: (1 - torch.tanh(x) ** 2) * x**2 + 2 * x * torch.tanh(x),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_hides_from_autograd_is_seen(name, channels_last, monkeypatch):
    if channels_last:
        in_channels_last(monkeypatch)
    check(OPERATIONS[name], HONEST.get(name, OPERATIONS[name]), weights(2, *SHAPE, seed=1))


def test_what_is_computed_is_differentiated_not_what_a_custom_backward_says():
    with torch.no_grad():
        J = Linearisation(lambda x: Halved.apply(x), weights(2, *SHAPE))
        assert relative(J.jvp(weights(1, 2, *SHAPE)), 2 * weights(1, 2, *SHAPE)) < 1e-15


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
        Linearisation(function, weights(2, *SHAPE))


def test_diagonals_are_merged_and_dead_ends_left_out():
    def function(x):
        torch.exp(x) @ x  # unused
        return F.silu(2 * torch.tanh(x).detach() + 1) * 3

    assert len(Linearisation(function, weights(2, *SHAPE)).steps) == 1


def test_memory_does_not_grow_with_the_depth():
    deep = Linearisation(
        lambda x: nn.Sequential(*[nn.SiLU(), nn.Conv2d(4, 4, 1)] * 20).double()(x),
        weights(2, *SHAPE),
    )
    assert deep.bytes_per_vector() <= 2 * 3 * weights(2, *SHAPE).nbytes

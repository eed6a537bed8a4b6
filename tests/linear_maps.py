"""A recording against PyTorch's own Jacobian, or differences."""

import torch

import jacobian_lab.derivative.linear_map
from jacobian_lab.derivative.linearisation import Linearisation

from conftest import relative

SHAPE = (4, 6, 6)


def weights(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def module(make):
    torch.manual_seed(0)
    return make().double().eval()


def in_channels_last(monkeypatch):
    """Take the layout that float32 takes with many vectors on a CPU."""
    monkeypatch.setattr(
        jacobian_lab.derivative.linear_map, "_is_better_channels_last", lambda x: x.ndim == 4
    )


def differences(function, x, h=1e-5):
    """The Jacobian by central differences of fourth order, column by column."""
    units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape) * h
    columns = [
        (8 * (function(x + e) - function(x - e)) - function(x + 2 * e) + function(x - 2 * e))
        / (12 * h)
        for e in units
    ]
    return torch.stack([c.reshape(-1) for c in columns], -1)


def check(function, honest, x, exact=1e-12, counts=(1, 3, 20)):
    """J v and J^T u of several batches of vectors against PyTorch's own Jacobian of `honest`."""
    try:
        truth = torch.autograd.functional.jacobian(honest, x)
    except RuntimeError:  # what autograd forbids in place
        truth, exact = differences(honest, x), max(exact, 1e-7)
    before = x.clone()
    J = Linearisation(function, x)
    assert torch.equal(x, before)  # the caller's tensor is never written to
    m, n = J.value.numel(), x.numel()
    assert relative(J.value, honest(x)) < 10 * exact
    truth = truth.reshape(m, n)
    for count in counts:
        V, U = weights(count, n, seed=2).to(x), weights(count, m, seed=3).to(x)
        with torch.no_grad():
            pushed, pulled = (
                J.jvp(V.reshape(count, *x.shape)),
                J.vjp(U.reshape(count, *J.value.shape).to(J.value.dtype)),
            )
        assert relative(pushed.reshape(count, m), V @ truth.T) < exact
        assert relative(pulled.reshape(count, n), U @ truth) < exact
    return J

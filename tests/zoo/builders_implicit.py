"""Mixtures of experts, implicit layers, energies, unrolled solvers."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from zoo.parts import inner, small
from zoo.registry import Wrapped, entry

family = partial(entry, "by hand", shape=(4, 8, 8))


def experts(combine):
    def forward(h, router, *expert):
        flat = h.permute(0, 2, 3, 1).reshape(-1, 16)
        weight, index = router(flat).softmax(-1).topk(2)
        out = combine(flat, weight, index, expert)
        return out.reshape(len(h), 8, 8, 16).permute(0, 3, 1, 2)

    return inner(
        forward, nn.Linear(16, 3), *(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(3))
    )


@family(shape=(2, 8, 8))
def experts_by_index_add():
    def combine(flat, weight, index, expert):
        out = torch.zeros_like(flat)
        for i, net in enumerate(expert):
            row, slot = torch.where(index == i)
            out.index_add_(0, row, net(flat[row]) * weight[row, slot, None])
        return out

    return experts(combine)


@family(shape=(2, 8, 8))
def experts_by_mask():
    return experts(
        lambda flat, weight, index, expert: sum(
            net(flat) * (weight * (index == i)).sum(-1, keepdim=True)
            for i, net in enumerate(expert)
        )
    )


@family(shape=(2, 8, 8))
def experts_by_boolean_assignment():
    def combine(flat, weight, index, expert):
        out = torch.zeros_like(flat)
        for i, net in enumerate(expert):
            chosen = (index == i).any(-1)
            out[chosen] += net(flat[chosen])
        return out * weight.sum(-1, keepdim=True)

    return experts(combine)


@family(shape=(2, 8, 8))
def implicit_fixed_point():
    """A deep equilibrium layer: z = tanh(W z + U x) by 60 steps of iteration."""

    def solve(h, w):
        z = torch.zeros_like(h)
        for _ in range(60):
            z = torch.tanh(0.3 * w(z) + h)
        return z

    return inner(solve, nn.Conv2d(16, 16, 3, padding=1))


@family(shape=(2, 8, 8))
def implicit_by_no_grad_then_one_step():
    """The same, solved under no_grad and differentiated through one step only: autograd's J is
    another one.
    """

    def solve(h, w):
        with torch.no_grad():
            z = torch.zeros_like(h)
            for _ in range(60):
                z = torch.tanh(0.3 * w(z) + h)
        return torch.tanh(0.3 * w(z) + h)

    return inner(solve, nn.Conv2d(16, 16, 3, padding=1))


@family(shape=(2, 8, 8), prediction="epsilon")
def energy_gradient():
    """The network's output is the gradient of an energy, by autograd inside the forward pass."""

    def call(net, x, t):
        with torch.enable_grad():
            z = x if x.requires_grad else x.detach().requires_grad_()
            energy = net(z, t).square().sum() + F.softplus(z).sum()
            return torch.autograd.grad(energy, z, create_graph=True)[0]

    return Wrapped(small(), call)


@family(shape=(2, 8, 8), prediction="epsilon")
def energy_gradient_by_func():
    return Wrapped(
        small(),
        lambda net, x, t: torch.func.grad(lambda z: net(z, t).square().sum() + z.pow(4).sum())(x),
    )


@family(shape=(1, 8, 8), prediction="sample")
def unrolled_gradient_descent():
    """A proximal network: gradient steps on a data term, a learned prior between them."""

    def call(net, x, t):
        z = x
        for _ in range(3):
            z = z - 0.3 * (F.avg_pool2d(z, 2).repeat_interleave(2, -1).repeat_interleave(2, -2) - x)
            z = z + 0.1 * net(z, t)
        return z

    return Wrapped(small(1), call)


@family(shape=(2, 8, 8))
def input_convex():
    class Convex(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(16, 2, 3, padding=1)

        def forward(self, x, t):
            return F.conv_transpose2d(
                F.softplus(F.conv2d(x, self.a.weight, padding=1)), self.a.weight, padding=1
            )

    return Convex()

"""Faults of a network's settings are named, and no others."""

import pytest
import torch
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule, JacobianOperator, audit
from jacobian_lab.linops.network_checks import network_checks
from jacobian_lab.linops.subject import Subject

import networks

X = torch.randn(1, *networks.SHAPE, generator=torch.Generator().manual_seed(0))


class Rounded(nn.Module):
    """A network that computes in another precision than its input has."""

    def __init__(self, inner, dtype):
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, x, t):
        return self.inner(x.to(self.dtype), t).float()


def operator(network):
    return JacobianOperator(
        Denoiser(network.eval(), DiscreteSchedule.linear(), "v", networks.SHAPE), X, 300
    )


def test_training_mode_after_the_operator_was_made_is_named():
    J = operator(networks.Convolutional())
    J.products.denoiser.train()
    assert not audit(J)["evaluation mode"].passed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_told_as_such_and_nothing_else_fails(dtype):
    J = operator(Rounded(networks.unet(torch.float32).network, dtype))
    assert J.path == "linearised"
    assert [check.name for check in audit(J).checks if not check.passed] == ["precision"]


class Stateful(nn.Module):
    """A network that changes with its calls, from one on: the ladder's check does not see it."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.change, self.on = networks.Convolutional(), change, False

    def forward(self, x, t):
        y = self.inner(x, t)
        return self.change(x, y) if self.on else y


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("repeatable", lambda x, y: y + 1e-3 * torch.randn_like(y)),
        ("gradients on", lambda x, y: y * (1 + 0.01 * x.requires_grad)),
        ("input", lambda x, y: y + 0 * x.add_(1.0)),
        ("samples apart", lambda x, y: y + 0.01 * (x - x.mean(0, keepdim=True))),
    ],
)
def test_each_fault_of_the_network_fails_its_own_check(name, change):
    network = Stateful(change)
    subject = Subject(operator(network))
    assert all(check.passed for check in network_checks(subject, 0))
    network.on = True
    failed = {check.name for check in network_checks(subject, 0) if not check.passed}
    assert name in failed
    assert failed <= {name, "repeatable", "gradients on", "samples apart"}

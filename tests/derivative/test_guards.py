"""What must hold of a network: evaluation mode, finite numbers, samples apart."""

import pytest
import torch
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.products import Products

import networks

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def denoiser(network):
    return Denoiser(network, DiscreteSchedule.linear(), "sample", networks.SHAPE)


def test_a_network_in_a_closure_must_be_in_evaluation_mode():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Dropout(0.5)).double()
    with pytest.raises(InputError, match="the network is in training mode"):
        Products(denoiser(lambda x, t: network(x)), X, 500)

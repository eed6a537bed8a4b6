"""An operator is refused once the weights of its network are others."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.products import Products

import networks

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def vector_to_parameters(network):
    vector = nn.utils.parameters_to_vector(network.parameters())
    nn.utils.vector_to_parameters(vector * 1.5, network.parameters())


def swap(network):
    network.first = networks.denoiser(seed=1).network.first


def ema(network):
    for old, new in zip(
        network.parameters(), networks.denoiser(seed=1).network.parameters(), strict=True
    ):
        old.data.copy_(0.5 * old + 0.5 * new)


def add_one(array):
    array += 1


def of_all(change):
    return lambda network: [change(p) for p in network.parameters()]


CHANGES = {
    "mul_": torch.no_grad()(of_all(lambda p: p.mul_(2))),
    "load_state_dict": lambda network: network.load_state_dict(
        networks.denoiser(seed=1).network.state_dict()
    ),
    "average of weights": ema,
    "vector_to_parameters": vector_to_parameters,
    "data": of_all(lambda p: setattr(p, "data", p.data * 2)),
    "data in place": of_all(lambda p: p.data.mul_(2)),
    "numpy": of_all(lambda p: np.multiply(p.detach().numpy(), 2, out=p.detach().numpy())),
    "another precision": lambda network: network.float(),
    "one bias through numpy": lambda network: add_one(network.last.bias.detach().numpy()),
    "new parameter": lambda network: setattr(
        network.first, "weight", nn.Parameter(network.first.weight.detach() * 2)
    ),
    "set_": torch.no_grad()(of_all(lambda p: p.set_(p.clone() * 2))),
    "pruned": lambda network: setattr(network.norm, "weight", None),
}


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_an_operator_does_not_outlive_its_weights(name, hidden):
    model = networks.denoiser()
    network = model.network
    if hidden:  # in a closure, where no module lists it
        model = Denoiser(lambda x, t: network(x, t), model.schedule, model.prediction, model.shape)
    products = [Products(model, X, 300, method) for method in ("exact", "forward")]
    products[0].vjp(V)
    CHANGES[name](network)
    for product in (products[0].jvp, products[1].jvp, products[0].vjp, products[0].jvp):
        with pytest.raises(InputError, match="weights changed since this operator was made"):
            product(V)


def test_a_network_that_counts_its_runs_is_told_what_to_do():
    model = networks.denoiser()
    model.network.register_buffer("runs", torch.zeros((), dtype=torch.int64))

    def count(network, *_):
        network.runs += 1

    model.network.register_forward_hook(count)
    with pytest.raises(InputError, match="writes to a buffer in each run, such as a counter"):
        Products(model, X, 300).jvp(V)


def test_weights_that_are_written_but_keep_their_values_have_not_changed():
    model = networks.denoiser()
    products = Products(model, X, 300)
    before = products.jvp(V)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone().clamp_(max=1e3)
    assert torch.equal(products.jvp(V), before)


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.W = torch.randn(1, 1, 3, 3, dtype=torch.float64)  # no parameter
        self.scale = nn.Parameter(torch.randn(1, 1, 1, 8, dtype=torch.complex128))

    def forward(self, x, _t):
        y = torch.nn.functional.conv2d(x.sin(), self.W, padding=1)
        return (y * self.scale).real + (y * self.scale).imag


@pytest.mark.parametrize("of", ["a plain tensor", "a complex parameter"])
def test_tensors_that_a_network_keeps_beside_real_weights_are_watched(of):
    network = Kept().eval()
    model = Denoiser(network, DiscreteSchedule.linear(), "sample", (1, 8, 8))
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor is an imaginary part dropped
        products = Products(model, x, 500)
        products.jvp(x)
    with torch.no_grad():
        if of == "a plain tensor":
            network.W.mul_(2)
        else:
            network.scale.imag.mul_(-1)
    with pytest.raises(InputError, match=r"changed since|written to since"):
        products.jvp(x)


@pytest.mark.parametrize("change", [lambda w: w.neg_(), lambda w: w.copy_(w.flip(0))])
def test_changes_that_keep_the_norm_are_noticed(change):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))
    network = network.double().eval().requires_grad_(False)
    model = Denoiser(Wrapped(network).eval(), DiscreteSchedule.linear(), "sample", (1, 8, 8))
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    products = Products(model, x, 500)
    products.jvp(x)
    change(network[0].weight)
    with pytest.raises(InputError, match="weights changed"):
        products.jvp(x)


class Wrapped(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, _t):
        return self.network(x)

"""An operator is refused once the weights of its network are others."""

import numpy as np
import pytest
import torch
from torch import nn

from jacobian_lab import Denoiser, InputError
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


def test_weights_that_are_written_but_keep_their_values_have_not_changed():
    model = networks.denoiser()
    products = Products(model, X, 300)
    before = products.jvp(V)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone().clamp_(max=1e3)
    assert torch.equal(products.jvp(V), before)

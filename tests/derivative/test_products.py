"""Products with J: their memory, layout and precision, and the outputs that networks return."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.products import Products

import networks
from conftest import relative

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def denoiser(network):
    return Denoiser(network, DiscreteSchedule.linear(), "sample", networks.SHAPE)


def test_memory_bounds_the_vectors_of_a_pass():
    model = networks.unet()
    whole, one = Products(model, X, 300), Products(model, X, 300, memory=1)
    assert one.chunk() == 1 < whole.chunk()
    assert relative(one.jvp(V), whole.jvp(V)) < 1e-13
    assert relative(one.vjp(V), whole.vjp(V)) < 1e-13
    with pytest.raises(InputError, match="memory in bytes must be positive: got 0"):
        Products(model, X, 300, memory=0)


def test_the_recording_gives_the_value_that_the_network_gives():
    model = networks.unet(torch.float32)
    with torch.no_grad():
        assert torch.equal(Products(model, X.float(), 300).d, model(X.float(), 300))


def test_many_vectors_in_the_layout_of_their_own_are_as_exact_as_few():
    model = networks.unet(torch.float32)
    products, truth = Products(model, X.float(), 300), networks.truth(networks.unet(), X, 300)
    V = torch.randn(40, *networks.SHAPE, generator=torch.Generator().manual_seed(2))
    for vectors in (V, V[:3]):
        assert (
            relative(
                products.jvp(vectors).double().flatten(1), vectors.double().flatten(1) @ truth.T
            )
            < 5e-6
        )
        assert (
            relative(products.vjp(vectors).double().flatten(1), vectors.double().flatten(1) @ truth)
            < 5e-6
        )


def test_modules_that_take_fused_kernels_without_gradients_are_recorded_all_the_same():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, t):
            return self.layer(x[:, 0])[:, None]

    model = denoiser(Wrapped().eval())
    with torch.no_grad():
        products = Products(model, X, 500)
    assert products.path == "linearised"
    assert (
        relative(products.jvp(V).flatten(1), V.flatten(1) @ networks.truth(model, X, 500).T) < 1e-12
    )


class Wrapped(nn.Module):
    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x, t):
        return self.change(self.inner, x, t)


@pytest.mark.parametrize(
    "change",
    [
        lambda f, x, t: SimpleNamespace(sample=f(x, t)),
        lambda f, x, t: {"sample": f(x, t)},
        lambda f, x, t: (f(x, t),),
        lambda f, x, t: f(x.mul_(1.0), t),
        lambda f, x, t: tv_tensors.Image(f(x, t)),
    ],
)
def test_outputs_are_unwrapped_and_inputs_are_left_alone(change):
    model, x = networks.denoiser(), X.clone()
    wrapped = Denoiser(
        Wrapped(model.network, change).eval(), model.schedule, model.prediction, model.shape
    )
    products = Products(wrapped, x, 300)
    assert torch.equal(x, X)
    assert relative(wrapped(x, 300), model(X, 300)) < 1e-14
    assert type(wrapped(x, 300)) is torch.Tensor
    assert relative(products.jvp(V), Products(model, X, 300).jvp(V)) < 1e-13


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda f, x, t: (f(x, t), x), "2 things, a tuple"),
        (lambda f, x, t: None, "NoneType"),
        (lambda f, x, t: f(x, t).long(), "a tensor of torch.int64"),
    ],
)
def test_outputs_that_are_no_image_are_told(change, got):
    model = networks.denoiser()
    wrapped = Denoiser(
        Wrapped(model.network, change).eval(), model.schedule, model.prediction, model.shape
    )
    with pytest.raises(InputError, match=f"the network returned {got}: expected one real"):
        wrapped(X, 300)

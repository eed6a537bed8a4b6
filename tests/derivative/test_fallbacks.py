"""PyTorch's own derivatives and differences, against a dense Jacobian."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab.derivative.fallbacks import Differences, DoubleBackward, ForwardMode
from jacobian_lab.derivative.products import Products
from jacobian_lab.derivative.settings import differentiable

import networks
from conftest import relative

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("engine", [DoubleBackward, ForwardMode])
def test_the_fallbacks_are_right_on_a_network(engine):
    model = networks.unet()
    truth = networks.truth(model, X, 300)
    products = Products(model, X, 300)
    with torch.no_grad():
        other = engine(lambda x: model(x, 300), X)
    with differentiable():
        for _ in range(2):  # the second time from the kept graph
            assert relative(other.jvp(V).flatten(1), V.flatten(1) @ truth.T) < 1e-12
            assert relative(other.vjp(V).flatten(1), V.flatten(1) @ truth) < 1e-12
            assert relative(products.jvp(V), other.jvp(V)) < 1e-12
    other.forget()
    assert other._primal is other._transposed is None


def test_attention_that_the_network_differentiates_itself():
    def energy(x):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            e = F.scaled_dot_product_attention(y, y, y.sin()).square().sum()
            return torch.autograd.grad(e, y, create_graph=True)[0]

    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.jacobian(energy, X).reshape(X.numel(), -1)
    with differentiable():
        other = DoubleBackward(energy, X)
        assert relative(other.vjp(V).flatten(1), V.flatten(1) @ hessian) < 1e-12
        assert relative(other.jvp(V).flatten(1), V.flatten(1) @ hessian) < 1e-12


def test_differences_at_zero():
    model, zero = networks.unet(), torch.zeros_like(X)
    exact = Products(model, zero, 300).jvp(V)
    assert relative(Products(model, zero, 300, "central").jvp(V), exact) < 1e-8
    assert relative(Products(model, zero, 300, "forward").jvp(V), exact) < 1e-5


def test_differences_in_half_precision_along_a_tiny_vector():
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)).half()
    v = 1e-5 * torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    for kind in ("central", "forward"):
        found = Differences(lambda x: 2 * x, x, kind).jvp(v.half())
        assert found.isfinite().all()
        assert relative(found.float(), 2 * v.half().float()) < 0.05

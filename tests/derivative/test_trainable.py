"""Products that can be trained through."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mnist
from jacobian_lab import BatchJacobian, InputError, linearise
from mnist.unet import UNet


class Attention(nn.Module):
    """Attention over 6 tokens of 4 numbers."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.enter, self.leave = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x):
        q, k, v = self.enter(x).chunk(3, -1)
        return self.leave(F.scaled_dot_product_attention(q, k, v))


def points(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(network, loss):
    weights = list(network.parameters())
    found = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def test_products_and_the_weights_gradients_are_those_of_the_closed_form():
    network = nn.Linear(5, 3, bias=False).double()
    x, v, u = points(2, 5), points(2, 5), points(2, 3)
    linear = linearise(lambda x: torch.tanh(network(x)), x)
    slope = 1 - torch.tanh(network(x)) ** 2
    jvp, vjp = slope * network(v), (slope * u) @ network.weight
    torch.testing.assert_close(linear.jvp(v), jvp)
    torch.testing.assert_close(linear.vjp(u), vjp)
    torch.testing.assert_close(linear.value, torch.tanh(network(x)))
    for found, truth in ((linear.jvp(v), jvp), (linear.vjp(u), vjp)):
        torch.testing.assert_close(
            gradients(network, found.square().sum()), gradients(network, truth.square().sum())
        )
    assert linear.error < 1e-7


def test_gradients_go_through_attention_as_differences_of_the_loss_tell():
    network = Attention().double()
    x, v = points(2, 6, 4), points(2, 6, 4)

    def loss():
        return linearise(network, x, check=False).jvp(v).square().sum()

    found, weight = gradients(network, loss()), network.enter.weight
    with torch.no_grad():
        values = []
        for h in (1e-5, -1e-5):
            weight[3, 2] += h
            values.append(loss().item())
            weight[3, 2] -= h
    place = 3 * 4 + 2
    assert found[place] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_of_a_denoiser_in_training_it_is_its_jacobian():
    denoiser = mnist.load_denoiser()
    x, v = (points(2, 1, 32, 32).float(), points(3, 1, 32, 32).float()[1:])
    linear = linearise(lambda x: denoiser(x, 500), x)
    expected = BatchJacobian(denoiser, x, 500, "exact").jvp(v)
    assert (linear.jvp(v) - expected).norm() < 1e-5 * expected.norm()
    assert linear.error < 1e-3


def test_a_penalty_of_the_skew_part_falls_in_training():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 24), nn.SiLU(), nn.Linear(24, 6)).double()
    x, optimizer = points(8, 6), torch.optim.Adam(network.parameters(), 1e-2)
    found = []
    for step in range(60):
        linear, v = linearise(network, x, check=step == 0), points(8, 6).roll(step)
        penalty = (linear.jvp(v) - linear.vjp(v)).square().mean()
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        found.append(penalty.item())
    assert np.mean(found[-5:]) < 0.2 * np.mean(found[:5])


def test_gradients_flow_into_x_too():
    x = points(2, 3).requires_grad_()
    linear = linearise(lambda x: x**3, x)
    (g,) = torch.autograd.grad(linear.jvp(torch.ones_like(x)).sum(), x)
    torch.testing.assert_close(g, 6 * x)


def test_values_of_another_shape_have_products_too():
    x, v = points(2, 3, 4), points(2, 3, 4)
    linear = linearise(lambda x: x.square().sum((1, 2)), x)
    torch.testing.assert_close(linear.jvp(v), (2 * x * v).sum((1, 2)))


def test_a_unet_in_half_of_its_precision_is_checked_at_that_precision():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(channels=(32, 32, 32))
        nn.init.normal_(network.exit.weight, std=0.02)
    x, t = points(2, 1, 16, 16).float(), torch.tensor([100, 800])

    def narrow(x):
        with torch.autocast("cpu", torch.bfloat16):
            return network(x, t).float()

    linear = linearise(narrow, x)
    linear.jvp(x.detach())
    assert 0 < linear.error < 0.5


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x * x.detach(), "disagrees with differences"),
        (lambda x: x + torch.rand(()), "another value at each call"),
        (lambda x: x.detach(), "has no graph"),
    ],
)
@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_what_the_graph_misses_is_found(function, message, product):
    x = points(2, 3)
    with pytest.raises(InputError, match=message):
        getattr(linearise(function, x), product)(torch.ones_like(x))


class Once(torch.autograd.Function):
    """A cube whose backward pass is right, and has no derivative that PyTorch knows of."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return torch.from_numpy(3 * g.detach().numpy() * ctx.saved_tensors[0].detach().numpy() ** 2)


def test_the_first_product_of_the_other_kind_is_checked_too():
    x = points(2, 3)
    linear = linearise(lambda x: Once.apply(x) + x, x)
    torch.testing.assert_close(linear.vjp(x), 3 * x**3 + x)
    with pytest.raises(InputError, match="not adjoint"):
        linear.jvp(x)
    linear = linearise(lambda x: x**3 + x, x)
    linear.vjp(x)
    torch.testing.assert_close(linear.jvp(x), 3 * x**3 + x)


@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_samples_that_see_each_other_are_one_function(product):
    network = nn.BatchNorm1d(3).double().train()
    x, w = points(4, 3), points(4, 3).roll(1, 0)
    linear = linearise(network, x)
    J = torch.autograd.functional.jacobian(nn.BatchNorm1d(3).double().train(), x).reshape(12, 12)
    truth = (J if product == "jvp" else J.T) @ w.flatten()
    torch.testing.assert_close(getattr(linear, product)(w).flatten(), truth)
    assert linear.error < 1e-7


def test_a_dropout_in_training_has_products_without_the_check():
    x = points(2, 50)
    linear = linearise(nn.Dropout(0.5), x, check=False)
    torch.testing.assert_close(linear.jvp(x), linear.value)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(3), r"\(B, \*shape\)"),
        (torch.ones(1, 3, dtype=torch.int64), "floating-point"),
        (torch.full((1, 3), torch.inf), "not finite"),
    ],
)
def test_what_is_no_batch_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        linearise(torch.sin, x)
    with pytest.raises(InputError, match="v has shape"):
        linearise(torch.sin, torch.ones(2, 3)).jvp(torch.ones(3))


def of_a_mean(x):
    return x.sin() * x.mean((1, 2, 3), keepdim=True).detach() * 3


def test_a_first_vector_that_does_not_see_a_hidden_number_is_no_check():
    x, v = points(2, 2, 4, 4), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    v = v - v.mean((1, 2, 3), keepdim=True)  # the mean does not move along it
    with pytest.raises(InputError, match=r"differ|disagree"):
        linearise(of_a_mean, x).jvp(v)


@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_a_zero_vector_leaves_the_check_for_the_next(product):
    linear = linearise(lambda x: x * x.detach(), points(2, 6))
    zero = torch.zeros_like(linear.value)
    assert not getattr(linear, product)(zero).any()
    with pytest.raises(InputError, match=r"differ|disagree"):
        linear.jvp(torch.ones_like(zero))


def test_a_transpose_sees_a_number_that_nothing_else_depends_on():
    def function(x):
        return (x - x.mean()).sin() + x.mean().item()

    linear = linearise(function, points(2, 6))
    with pytest.raises(InputError, match=r"differ|disagree"):
        linear.vjp(points(2, 6))


def test_a_transpose_of_zeros_is_checked():
    network = nn.Linear(6, 6).double()
    linear = linearise(lambda x: network(x.detach()).tanh(), points(2, 6))
    with pytest.raises(InputError, match=r"differ|disagree"):
        linear.vjp(torch.ones(2, 6, dtype=torch.float64))

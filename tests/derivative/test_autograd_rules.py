"""Derivatives that are borrowed from PyTorch, operation by operation: right, or refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab import Denoiser, DiscreteSchedule
from jacobian_lab.derivative import autograd_rules
from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.derivative.products import Products

import networks
from conftest import relative
from linear_maps import SHAPE, check, in_channels_last, weights

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def dynamic_threshold(x):
    s = torch.quantile(x.flatten(1).abs(), 0.9, dim=1)[:, None, None, None]
    return x.clamp(-s, s) / s


BORROWED = {
    "activations": (
        lambda x: (
            F.silu(x)
            + F.gelu(x)
            + F.gelu(x, approximate="tanh") * F.mish(x)
            + F.softplus(x)
            + F.elu(x)
        )
    ),
    "kinks": (
        lambda x: (
            F.relu(x)
            + F.leaky_relu(x)
            + F.hardswish(x)
            + x.abs()
            + x.clamp(-0.5, 0.5)
            + F.relu6(2 * x)
        )
    ),
    "elementary": (
        lambda x: (
            torch.exp(x)
            + torch.log(x**2 + 1)
            + torch.sqrt(x.abs() + 1)
            + torch.sin(x) * torch.erf(x)
        )
    ),
    "where": (
        lambda x: (
            torch.where(x > 0, x**3, x) + torch.maximum(x, x.flip(2)) + x.masked_fill(x < 0.1, 0)
        )
    ),
    "lerp, addcmul": lambda x: torch.lerp(x, x**2, 0.3) + torch.addcmul(x, x, x[:1], value=2),
    "powers": lambda x: (x.abs() + 1) ** x + x**3 + 2**x + torch.rsqrt(x**2 + 1),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", antialias=True),
    "indices": lambda x: (
        x[:, [0, 0, 3]]
        + x.index_select(1, torch.tensor([1, 2, 2])) * x.gather(1, torch.zeros(2, 3, 6, 6).long())
    ),
    "extremes": (
        lambda x: (
            x.amax(1)
            + x.max(2).values.sum(1, keepdim=True)
            + x.logsumexp((1, 2))[:, None]
            + x.cumsum(1)[:, 1]
        )
    ),
    "sorted": lambda x: x.sort(1).values[:, :2] + x.topk(2, 1).values,
}
PATTERNS = {
    "grid sampling": lambda x: F.grid_sample(
        x, torch.tanh(x[:, :2]).movedim(1, -1), align_corners=False
    ),
    "affine grid": lambda x: F.grid_sample(
        x,
        F.affine_grid(x[:, 0, :2, :3], x.shape, False),
        padding_mode="border",
        align_corners=False,
    ),
    "gathered": (
        lambda x: x.gather(2, x.argsort(2)) + torch.take_along_dim(x, x.argmax(1, keepdim=True), 1)
    ),
    "unfold and fold": lambda x: F.fold(F.unfold(x, 3, padding=1) ** 2, (6, 6), 3, padding=1),
    "pools": (
        lambda x: (
            F.max_pool2d(x, 2)[..., :2, :2]
            + F.adaptive_max_pool2d(x, 2)
            + F.lp_pool2d(x.abs() + 1, 2, 3)
        )
    ),
    "nearest code": (
        lambda x: (
            x
            * weights(3, 6)[torch.cdist(x.flatten(0, 2), weights(3, 6)).argmin(1)].reshape(x.shape)
        )
    ),
    "factor, solve": lambda x: (
        torch.linalg.solve(torch.eye(6, dtype=x.dtype) * 5 + x, x)
        + torch.linalg.qr(x + 3 * torch.eye(6))[0]
    ),
    "spectra": (
        lambda x: (
            torch.linalg.svdvals(x)
            + torch.linalg.eigvalsh(x + x.mT)
            + torch.linalg.slogdet(x)[1][..., None]
        )
    ),
    "dynamic thresholding": dynamic_threshold,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", BORROWED)
def test_a_borrowed_derivative_agrees_with_pytorch(name, channels_last, monkeypatch):
    if channels_last:
        in_channels_last(monkeypatch)
    check(BORROWED[name], BORROWED[name], weights(2, *SHAPE, seed=1))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_of_borrowed_derivatives_agrees_with_pytorch(name, batch):
    J = check(PATTERNS[name], PATTERNS[name], weights(batch, *SHAPE, seed=1), 1e-10)
    assert J.reads == ()


def custom(name, forward, backward=None):
    operation = torch.library.custom_op(f"jacobian_lab_test::{name}", mutates_args=())(forward)
    operation.register_fake(lambda x, y: torch.empty_like(x))
    if backward is not None:
        operation.register_autograd(
            backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
        )
    return operation


def hidden_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(x.numpy() * np.tanh(y.numpy()))


def right(ctx, g):
    x, y = ctx.saved_tensors
    return g * torch.tanh(y), g * x * (1 - torch.tanh(y) ** 2)


PRODUCTS = {
    "no_formula": None,
    "zero": lambda ctx, g: (g * 0, g * 0),
    "none": lambda ctx, g: (None, None),
    "half": lambda ctx, g: (right(ctx, g)[0], None),
    "straight_through": lambda ctx, g: (g, g),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_custom_operation_without_its_derivative_is_refused(name):
    operation = custom(name, hidden_product, PRODUCTS[name])
    with pytest.raises(UnsupportedError, match=name):
        Linearisation(lambda x: torch.sin(x) + operation(x, x**2), weights(2, *SHAPE))


def test_a_custom_operation_with_its_derivative_is_borrowed():
    operation = custom("right", hidden_product, right)
    J = check(
        lambda x: torch.sin(x) + operation(x, x**2),
        lambda x: torch.sin(x) + x * torch.tanh(x**2),
        weights(1, *SHAPE),
    )
    assert J.borrowed == ["right"]


class InstanceNormed(nn.Module):
    def __init__(self):
        super().__init__()
        first, last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.layers = nn.Sequential(first, nn.InstanceNorm2d(8), nn.SiLU(), last)

    def forward(self, x, t):
        return self.layers(x)


def instance_normed():
    torch.manual_seed(0)
    return Denoiser(InstanceNormed().eval(), DiscreteSchedule.linear(), "v", networks.SHAPE)


def test_a_borrowed_derivative_is_right_for_many_vectors():
    # PyTorch's batched derivative of its statistics is wrong in channels last
    model = instance_normed()
    truth = networks.truth(instance_normed().double(), X, 300)
    products = Products(model, X.float(), 300)
    assert products.path == "linearised"
    V = torch.randn(40, *networks.SHAPE, generator=torch.Generator().manual_seed(2))
    assert relative(products.jvp(V).double().flatten(1), V.double().flatten(1) @ truth.T) < 5e-6
    assert relative(products.vjp(V).double().flatten(1), V.double().flatten(1) @ truth) < 5e-6


def test_vectors_that_do_not_fit_in_memory_are_borrowed_one_by_one(monkeypatch):
    """The check of a borrowed derivative keeps within the memory of a pass."""
    taken = []
    gradients = autograd_rules._gradients

    def noted(ys, xs, us, batched):
        taken.append(len(us[0]) if batched else 1)
        return gradients(ys, xs, us, batched)

    monkeypatch.setattr(autograd_rules, "_gradients", noted)
    x, v = weights(1, *SHAPE), weights(3, 1, *SHAPE, seed=1)
    for memory, most in ((100 * x.nbytes, 3), (7 * x.nbytes, 1)):
        J = Linearisation(lambda x: x.cumsum(1), x, memory=memory)
        with torch.no_grad():
            assert relative(J.jvp(v), v.cumsum(2)) < 1e-14
        assert J.borrowed == ["cumsum"]
        assert max(taken) == most
        taken.clear()

"""Which path products take, that each is right, and that none fails where another is left."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.fallbacks import DoubleBackward, ForwardMode
from jacobian_lab.derivative.products import Products
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.errors import DerivativeWarning

import networks
from conftest import relative

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Opaque(torch.autograd.Function):
    """A cube that autograd cannot differentiate twice."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 3)  # through numpy: nothing to record

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 3 * g * ctx.saved_tensors[0] ** 2


class Cube(torch.autograd.Function):
    """The same, which it can."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 3)

    @staticmethod
    def backward(ctx, g):
        return 3 * g * ctx.saved_tensors[0] ** 2


def aliased(x, _t):
    y = x**3
    y[:, :, 0].mul_(1)
    return y


def through_numpy(x, _t):
    return torch.from_numpy(x.detach().numpy() ** 3)


def denoiser(network):
    return Denoiser(network, DiscreteSchedule.linear(), "sample", networks.SHAPE)


@pytest.mark.parametrize(
    ("network", "path", "why", "accuracy"),
    [
        (lambda x, t: x**3, "linearised", "every operation has a rule", 1e-14),
        (
            lambda x, t: (
                x * x.cumprod(-1).diff(dim=-1, prepend=x[..., :1]) * 0
                + x**3 * (1 + 0 * x.logsumexp(1, keepdim=True))
            ),
            "linearised",
            "PyTorch's derivative",
            1e-14,
        ),
        (aliased, "linearised", "every operation has a rule", 1e-14),
        (
            lambda x, t: Cube.apply(x),
            "double backward",
            "cannot be recorded: the result does not depend",
            1e-14,
        ),
        (
            lambda x, t: 0.5 * x**3 + 0.5 * Cube.apply(x),
            "double backward",
            "cannot be recorded: a tensor of shape",
            1e-14,
        ),
        (lambda x, t: Opaque.apply(x), "central difference", "no double backward", 1e-9),
        (through_numpy, "central difference", "no double backward", 1e-9),
        (
            lambda x, t: x**3 * x.mean().item() / x.mean().item(),
            "linearised",
            "every operation has a rule",
            1e-14,
        ),
        (
            lambda x, t: x * (x.norm() ** 2).item(),
            "central difference",
            "disagrees with differences of the network's output",
            None,
        ),
    ],
)
def test_the_path_says_itself_and_is_right(network, path, why, accuracy):
    with pytest.warns(DerivativeWarning) if path == "central difference" else nullcontext():
        products = Products(denoiser(network), X, 500)
    assert products.path == path
    assert products.error < 1e-8
    assert why in products.reason
    if accuracy is None:
        return
    assert relative(products.jvp(V), 3 * X**2 * V) < accuracy
    if network is through_numpy:
        with pytest.raises(InputError, match=r"J\^T u needs a derivative"):
            products.vjp(V)
    else:
        assert relative(products.vjp(V), 3 * X**2 * V) < 1e-14


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


def test_a_fault_of_the_network_itself_is_not_hidden_by_a_fallback():
    def broken(x, t):
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        Products(denoiser(broken), X, 500)


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


def test_a_network_in_a_closure_must_be_in_evaluation_mode():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Dropout(0.5)).double()
    with pytest.raises(InputError, match="the network is in training mode"):
        Products(denoiser(lambda x, t: network(x)), X, 500)


def hidden_share(share):
    """Return a cube of which a share is computed where PyTorch cannot see it."""
    return lambda x, t: (1 - share) * x**3 + share * torch.from_numpy(x.detach().numpy() ** 3)


@pytest.mark.parametrize("share", [0.003, 0.01, 0.14, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_part_that_is_hidden_is_noticed_and_not_taken_for_a_constant(share, dtype):
    with pytest.warns(DerivativeWarning, match="by central differences"):
        products = Products(denoiser(hidden_share(share)), X.to(dtype), 500)
    assert relative(products.jvp(V.to(dtype)), 3 * X.to(dtype) ** 2 * V.to(dtype)) < (
        3e-3 if dtype is torch.float32 else 1e-8
    )
    with pytest.raises(InputError, match=r"J\^T u needs a derivative"):
        products.vjp(V.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_inside_keeps_the_recording_and_says_how_rough_it_is(dtype):
    model = networks.unet(torch.float32)
    inner = networks.unet(torch.float32).network.to(dtype)
    products = Products(
        Denoiser(lambda x, t: inner(x.to(dtype), t).float(), model.schedule, "v", model.shape),
        X.float(),
        300,
    )
    assert products.path == "linearised"
    eps = torch.finfo(dtype).eps
    assert (
        relative(products.jvp(V.float()), Products(model, X.float(), 300).jvp(V.float())) < 10 * eps
    )
    assert (
        relative(products.vjp(V.float()), Products(model, X.float(), 300).vjp(V.float())) < 10 * eps
    )
    assert eps / 10 < products.error < 30 * eps


def test_differences_at_zero():
    model, zero = networks.unet(), torch.zeros_like(X)
    exact = Products(model, zero, 300).jvp(V)
    assert relative(Products(model, zero, 300, "central").jvp(V), exact) < 1e-8
    assert relative(Products(model, zero, 300, "forward").jvp(V), exact) < 1e-5

"""Which path products take, that each is right, and that none fails where another is left."""

from contextlib import nullcontext

import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.products import Products
from jacobian_lab.errors import DerivativeWarning
from jacobian_lab.linops.batch_jacobian import BatchJacobian

import networks
from conftest import relative

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def denoiser(network):
    return Denoiser(network, DiscreteSchedule.linear(), "sample", networks.SHAPE)


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


def test_a_fault_of_the_network_itself_is_not_hidden_by_a_fallback():
    def broken(x, t):
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        Products(denoiser(broken), X, 500)


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


@pytest.mark.parametrize("zeros", [(0, 1, 2), (0, 2), (1,)])
@pytest.mark.parametrize("network", [lambda x, _: Cube.apply(x), through_numpy])
@pytest.mark.filterwarnings("ignore:J v by central differences")
def test_a_zero_vector_does_not_pass_for_a_check(network, zeros):
    """J 0 = 0 on every path, also on one that takes the network for a constant."""
    x = X.expand(3, -1, -1, -1) * torch.tensor([1.0, 0.5, 2.0]).reshape(-1, 1, 1, 1)
    first = V.clone()
    first[list(zeros)] = 0
    model = denoiser(network)
    J = BatchJacobian(model, x, 300, "exact")
    found = J.jvp(first)
    assert (found - 3 * x**2 * first).norm() <= 1e-5 * V.norm()
    assert not found[list(zeros)].any()
    assert relative(J.jvp(V), 3 * x**2 * V) < 1e-5


def test_a_zero_vector_does_not_pass_for_a_check_of_the_transpose():
    x = X.expand(3, -1, -1, -1) * torch.tensor([1.0, 0.5, 2.0]).reshape(-1, 1, 1, 1)
    first = V * torch.tensor([0.0, 1.0, 0.0]).reshape(-1, 1, 1, 1)
    for graph in (False, True):
        J = BatchJacobian(denoiser(lambda x, _: x**3), x, 300, "exact", graph)
        assert relative(J.vjp(first), 3 * x**2 * first) < 1e-9
        for u in (V, first, 0 * first):
            hidden = BatchJacobian(denoiser(through_numpy), x, 300, "exact", graph)
            with pytest.raises(InputError, match="needs a derivative"):
                hidden.vjp(u)


class OfMean(torch.nn.Module):
    """Reads the mean of x out as a number, which no derivative sees."""

    def __init__(self, recordable):
        super().__init__()
        self.recordable = recordable

    def forward(self, x, _t):
        if self.recordable:
            return x.sin() * float(x.detach().mean()) * 3
        y = torch.vmap(lambda a: torch.nn.functional.scaled_dot_product_attention(a, a.tanh(), a))(
            x
        )
        return y * x.mean((1, 2, 3), keepdim=True).detach() * 3


@pytest.mark.filterwarnings("default:There is a performance drop:UserWarning")
@pytest.mark.parametrize(("recordable", "batch"), [(True, 1), (False, 1), (False, 3)])
def test_a_first_vector_that_does_not_see_a_hidden_number_is_no_check(recordable, batch):
    model = Denoiser(OfMean(recordable).eval(), DiscreteSchedule.linear(), "sample", (2, 4, 4))
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, batch, 2, 4, 4, generator=generator, dtype=torch.float64)
    v = v - v.mean((1, 2, 3), keepdim=True)
    J = BatchJacobian(model, x, 500, "exact")
    with pytest.warns(DerivativeWarning):
        J.jvp(v)
    ones = torch.ones_like(x)
    ahead, behind = model(x + 1e-4 * ones, 500), model(x - 1e-4 * ones, 500)
    assert relative(J.jvp(ones), (ahead - behind) / 2e-4) < 1e-4


@pytest.mark.parametrize(
    "read", [lambda x: float(x.detach().mean()), lambda x: float(x.detach().numpy().mean())]
)
def test_a_mean_over_the_points_of_the_check_hides_nothing(read):
    def forward(x, _t):
        return 3 * read(x) * x.sin()

    model = denoiser(forward)
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, 1, *model.shape, generator=generator, dtype=torch.float64)
    with pytest.warns(DerivativeWarning):
        products = Products(model, x, 500)
    ahead, behind = model(x + 1e-4 * v, 500), model(x - 1e-4 * v, 500)
    expected = (ahead - behind) / 2e-4
    assert relative(products.jvp(v), expected) < 1e-6
    several = torch.cat([x, v, 2 * x])  # which a mean over a batch of them would mix
    assert relative(products.jvp(several)[1:2], expected) < 1e-6
    with pytest.raises(InputError, match="sees another function"):
        products.vjp(v)
    with pytest.raises(InputError, match="sees another function"):
        BatchJacobian(model, x, 500, "exact").vjp(v)


@pytest.mark.parametrize("graph", [False, True])
def test_a_first_transposed_product_that_is_not_confirmed_is_told(graph):
    def forward(x, _t):
        half = x.bfloat16()
        return (1 + 0.01 * half + 0.2 * half.detach().mean().item()).to(x)

    model, x = denoiser(forward), X.float()
    J = BatchJacobian(model, x, 500, "exact" if not graph else "forward", graph=graph)
    with pytest.warns(DerivativeWarning, match="do not resolve"):
        J.vjp(V[:1].float())


@pytest.mark.parametrize("graph", [False, True])
def test_a_first_transposed_product_sees_a_number_that_nothing_else_depends_on(graph):
    def forward(x, _t):
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean).sin() + torch.stack([x.new_tensor(m.item()) for m in mean]).reshape(
            mean.shape
        )

    model = denoiser(forward)
    J = BatchJacobian(model, X, 500, "exact" if not graph else "forward", graph=graph)
    with pytest.raises(InputError, match="sees another function"):
        J.vjp(V[:1])


def clipped(x, _t):
    """Dynamic thresholding: what is read out is 1 up to some x, and depends on x beyond."""
    most = [max(1.0, float(one.detach().abs().max())) for one in x]
    return torch.stack([(one.clamp(-m, m) / m).sin() for one, m in zip(x, most, strict=True)])


@pytest.mark.parametrize("graph", [False, True])
def test_paths_of_another_point_are_not_taken_over_where_numbers_are_read_out(graph):
    model, method = denoiser(clipped), "forward" if graph else "exact"
    small = BatchJacobian(model, X.clamp(-1, 1) / 2, 500, method, graph=graph)
    small.vjp(V[:1])
    large = BatchJacobian(model, 3 * X, 500, method, graph=graph, like=small)
    with pytest.raises(InputError, match="sees another function"):
        large.vjp(V[:1])


@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_each_sample_is_checked_where_numbers_are_read_out(product):
    x = torch.cat([X.clamp(-1, 1) / 2, 3 * X, X.clamp(-1, 1) / 3])
    J, w = BatchJacobian(denoiser(clipped), x, 500, "exact"), torch.cat([V] * 3)[:3]
    told = pytest.raises(InputError, match="sees another function")
    with told if product == "vjp" else pytest.warns(DerivativeWarning):
        getattr(J, product)(w)


def test_a_number_read_out_of_a_whole_batch_is_seen():
    model = denoiser(lambda x, _t: (x / x.abs().max().item()).sin())
    J = BatchJacobian(model, torch.cat([X, 3 * V[:1]]), 500, "exact")
    with pytest.warns(DerivativeWarning):
        J.jvp(torch.cat([V[1:2], V[2:]]))

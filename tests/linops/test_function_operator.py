"""Operators of any function of a sample, and of inner layers."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

import jacobian_lab
import mnist
from jacobian_lab import DerivativeWarning, InputError, inner_layer, operator_of, singular_values


def generator():
    return torch.Generator().manual_seed(0)


def linear_map(m, n, dtype=torch.float64):
    return torch.randn(m, n, generator=generator(), dtype=dtype)


@pytest.fixture(scope="module")
def denoiser():
    return mnist.load_denoiser()


@pytest.fixture(scope="module")
def x_t(denoiser):
    image = mnist.digits("held-out")[0][:1]
    return denoiser.schedule.add_noise(image, 500, torch.randn(image.shape, generator=generator()))


@pytest.mark.parametrize("columns", [1, 3])
def test_a_product_of_the_identity_is_not_the_callers_own_array(columns):
    A = operator_of(lambda x: x.reshape(x.shape), torch.randn(1, 6, generator=generator()).double())
    V = np.asfortranarray(np.random.default_rng(0).standard_normal((6, columns)))
    for product in (A @ V, A.T @ V, A @ V[:, 0], A.T @ V[:, 0]):
        assert not np.shares_memory(product, V)


@pytest.mark.parametrize(("m", "n"), [(3, 8), (8, 3), (5, 5), (1, 6), (6, 1)])
def test_a_linear_map_of_any_shape_is_its_matrix(m, n):
    W = linear_map(m, n)
    A = operator_of(lambda x: x @ W.T, torch.randn(1, n, generator=generator()).double())
    assert A.shape == (m, n)
    assert A.dtype == np.float64
    np.testing.assert_allclose(A.dense(), W, rtol=0, atol=1e-14)
    u, v = np.arange(1.0, m + 1), np.arange(1.0, n + 1)
    np.testing.assert_allclose(A @ v, W.numpy() @ v, rtol=1e-13)
    np.testing.assert_allclose(A.T @ u, W.numpy().T @ u, rtol=1e-13)
    np.testing.assert_allclose(A.T @ np.zeros(m), np.zeros(n))
    assert A.product_error < 1e-8


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (1, 3, 2), (1, 5)])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flatten(1).square().sum(1),
        lambda x: torch.tanh(x).flatten(1)[:, :3],
        lambda x: torch.stack([x, x**3], 1),
    ],
)
def test_values_of_any_shape_have_the_jacobian_of_autograd(shape, function):
    x = torch.randn(shape, generator=generator(), dtype=torch.float64)
    A = operator_of(function, x)
    truth = torch.autograd.functional.jacobian(function, x).reshape(A.shape)
    np.testing.assert_allclose(A.dense(), truth, rtol=0, atol=1e-12)
    np.testing.assert_allclose(A @ np.eye(A.shape[1]), truth, rtol=0, atol=1e-12)
    assert A.value.shape == function(x).shape


def test_of_the_denoiser_it_is_its_jacobian_and_of_a_part_some_of_its_rows(denoiser, x_t):
    J = jacobian_lab.JacobianOperator(denoiser, x_t, 500)
    v = np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    whole = operator_of(lambda x: denoiser(x, 500), x_t)
    assert np.linalg.norm(whole @ v - J @ v) < 1e-5 * np.linalg.norm(J @ v)
    rows = operator_of(lambda x: denoiser(x, 500)[..., 12:14, :], x_t)
    assert rows.shape == (64, 1024)
    assert np.linalg.norm(rows @ v - (J @ v)[384:448]) < 1e-5 * np.linalg.norm(J @ v)


def test_the_bottleneck_of_the_network_has_singular_values(denoiser, x_t):
    bottleneck = inner_layer(denoiser, 500, "middle_b")
    assert bottleneck(x_t).shape == (1, 128, 4, 4)
    H = operator_of(lambda x: bottleneck(x)[:, :4], x_t)
    assert H.path == "linearised"
    assert H.shape == (64, 1024)
    truth = np.linalg.svd(H.dense().astype(np.float64), compute_uv=False)
    found = singular_values(H, 3, rtol=1e-4)
    np.testing.assert_allclose(found.values, truth[:3], rtol=1e-4)


def test_a_layer_is_told_as_it_was_before_an_activation_in_place():
    """Its zeros were those of the ReLU after it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)).eval()
    schedule = jacobian_lab.RectifiedFlow()
    denoiser = jacobian_lab.Denoiser(First(network), schedule, "v", (4,)).eval()
    entry = inner_layer(denoiser, 0.5, "inner.0")
    x = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    assert (network[0](x) < 0).any()
    torch.testing.assert_close(entry(x), network[0](x))
    np.testing.assert_allclose(operator_of(entry, x).dense(), network[0].weight.detach(), atol=1e-6)


class First(nn.Module):
    """A network of x alone, as one of x and t."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t):
        return self.inner(x)


def test_the_point_is_the_operators_own_also_where_it_is_unpickled():
    """It was the caller's, who had written into it; a graph of it made PyTorch warn."""
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[None].requires_grad_()
    A = operator_of(torch.sin, x)
    truth = A.dense()
    with torch.no_grad():
        x.zero_()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(A)).dense(), truth)
    assert np.allclose(truth, np.diag(np.cos(np.linspace(-1, 1, 5))))


def test_what_a_function_hides_from_autograd_is_still_seen():
    def hides(x):
        return x * x.detach().square().mean()

    A = operator_of(hides, torch.full((1, 4), 2.0, dtype=torch.float64))
    x = torch.full((4,), 2.0, dtype=torch.float64)
    truth = torch.autograd.functional.jacobian(lambda x: x * x.square().mean(), x)
    np.testing.assert_allclose(A.dense(), truth, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_a_hidden_number_is_seen_at_any_scale_of_x(scale):
    """Squares of such entries vanish or overflow in float32."""
    x, at = torch.tensor([[1.0, 1.0, 2.0, 3.0]]) * scale, np.array([1.0, 1, 2, 3])

    def function(x):
        return torch.stack([row * float((row / scale).norm()) for row in x.detach()])

    with pytest.warns(DerivativeWarning, match="central differences"):
        J = operator_of(function, x)
    assert J.product_error < 1e-3
    size = np.linalg.norm(at)
    truth = size * np.eye(4) + np.outer(at, at) / size
    np.testing.assert_allclose(J.dense(), truth, atol=1e-3)


def test_a_piecewise_constant_function_warns():
    with pytest.warns(DerivativeWarning, match="piecewise constant"):
        operator_of(lambda x: torch.round(3 * x), torch.linspace(-1, 1, 7).double()[None])


@pytest.mark.parametrize(
    ("function", "x", "message"),
    [
        (3, torch.zeros(1, 2), "function"),
        (torch.sin, torch.zeros(2), "one sample with a batch dimension"),
        (torch.sin, torch.zeros(2, 2), "one sample with a batch dimension"),
        (torch.sin, torch.tensor([[torch.nan]]), "x has 1 values of 1 that are not finite"),
        (torch.sin, torch.zeros(1, 2, dtype=torch.int64), "floating-point"),
        (lambda x: x.sum(), torch.zeros(1, 2), r"a value for each sample"),
        (lambda x: x > 0, torch.zeros(1, 2), "expected one real floating-point tensor"),
        (lambda x: (x, x), torch.zeros(1, 2), "expected one real floating-point tensor"),
        (lambda x: x / 0, torch.ones(1, 2), "not finite"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), torch.ones(1, 2), "training mode"),
        (lambda x: x + torch.rand(()), torch.ones(1, 2), "draws random numbers"),
    ],
)
def test_what_is_no_function_of_a_sample_is_refused(function, x, message):
    with pytest.raises(InputError, match=message):
        operator_of(function, x)


def test_a_layer_that_is_not_there_is_named_beside_those_that_are(denoiser, x_t):
    with pytest.raises(InputError, match=r"no layer 'middle': it has time, entry, .*middle_b"):
        inner_layer(denoiser, 500, "middle")
    of_function = jacobian_lab.Denoiser(lambda x, _t: x, denoiser.schedule, "v", (1, 32, 32))
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        inner_layer(of_function, 500, "entry")


def test_it_pickles_as_its_function(denoiser, x_t):
    A = operator_of(nn.Sequential(nn.Linear(3, 2), nn.Tanh()).eval(), torch.ones(1, 3))
    again = pickle.loads(pickle.dumps(A))
    np.testing.assert_array_equal(again.dense(), A.dense())

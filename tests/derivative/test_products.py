"""Products with J: their memory, layout and precision, and the outputs that networks return."""

import pickle
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, audit, linearise, operator_of
from jacobian_lab.derivative.products import Products
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.linops.jacobian import JacobianOperator

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


def of_function(model, x):
    A = operator_of(lambda x: model(x, 300), x)
    jvp, vjp = (
        lambda v, f=f: torch.from_numpy(f(v.numpy().ravel())) for f in (A.matvec, A.rmatvec)
    )
    return jvp, vjp


def in_a_batch(products):
    def make(model, x):
        J = BatchJacobian(model, x, 300, products)
        return J.jvp, J.vjp

    return make


def alone(method):
    def make(model, x):
        J = Products(model, x, 300, method)
        return J.jvp, J.vjp

    return make


def trainable(model, x):
    J = linearise(lambda x: model(x, 300), x)
    return (lambda v: J.jvp(v).detach()), (lambda u: J.vjp(u).detach())


MADE = {
    "exact": alone("exact"),
    "forward": alone("forward"),
    "batch": in_a_batch("exact"),
    "batch, forward": in_a_batch("forward"),
    "batch, central": in_a_batch("central"),
    "function": of_function,
    "trainable": trainable,
}
AUTOCAST = torch.autocast("cpu", torch.bfloat16)


@pytest.mark.filterwarnings("ignore::jacobian_lab.errors.DerivativeWarning")  # bfloat16 is coarse
@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_autocast_around_products_is_that_of_the_place_where_they_were_made(make):
    """Products on demand run the network again: they must see the same function."""
    model, x = networks.unet(torch.float32), X.float()
    v, u = V[:1].float(), V[1:2].float()
    jvp, vjp = make(model, x)
    plain = jvp(v), vjp(u)
    jvp, vjp = make(model, x)
    with AUTOCAST:
        inside = jvp(v), vjp(u)
        coarse_jvp, coarse_vjp = make(model, x)
    coarse = coarse_jvp(v).float(), coarse_vjp(u).float()
    with AUTOCAST:
        jvp, vjp = make(model, x)
        expected = jvp(v).float(), vjp(u).float()
    for k in range(2):
        if make is not trainable:  # PyTorch's own products follow the autocast around them
            assert torch.equal(plain[k], inside[k])
            assert torch.equal(coarse[k], expected[k])
        assert 1e-3 < relative(coarse[k], plain[k].reshape(coarse[k].shape)) < 0.3


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_the_caller_writes_into_x_afterwards_changes_nothing(make):
    model, x, v = networks.unet(), X.clone(), V[:1]
    jvp, vjp = make(model, X)
    expected = jvp(v), vjp(v)
    jvp, vjp = make(model, x)
    x.mul_(2)
    assert torch.equal(jvp(v), expected[0])
    assert torch.equal(vjp(v), expected[1])


def test_an_output_in_half_precision_is_recorded_both_ways():
    model, x = networks.unet(torch.float32), X.float()
    plain = Products(model, x, 300)
    for dtype in (torch.bfloat16, torch.float16):
        network = networks.unet(dtype).network
        wrapped = denoiser(Wrapped(network, lambda f, x, t, kind=dtype: f(x.to(kind), t)).eval())
        wrapped.prediction = "v"
        found = Products(wrapped, x, 300)
        assert found.d.dtype is torch.float32
        for vectors in (V.float(), 1e8 * V.float()):
            assert relative(found.jvp(vectors), plain.jvp(vectors)) < 30 * torch.finfo(dtype).eps
            assert relative(found.vjp(vectors), plain.vjp(vectors)) < 30 * torch.finfo(dtype).eps
        assert found.path == found.ladder.choice().transposed == "linearised"


@pytest.mark.filterwarnings("ignore::jacobian_lab.errors.DerivativeWarning")
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_made_of_an_operator_elsewhere_has_its_autocast(inside):
    """Unpickled, selected or a block: all run the network where the first one was made."""
    model, x, v = networks.unet(torch.float32), X.float().repeat(2, 1, 1, 1), V[:2].float()
    here, elsewhere = (AUTOCAST, nullcontext()) if inside else (nullcontext(), AUTOCAST)
    with here:
        J = JacobianOperator(model, x[:1], 300)
        batches = [BatchJacobian(model, x, 300, kind) for kind in ("exact", "forward")]
    with elsewhere:
        again = pickle.loads(pickle.dumps(J))
        assert torch.equal(again.products.jvp(v), J.products.jvp(v))
        assert torch.equal(again.products.vjp(v), J.products.vjp(v))
        for batch in batches:
            expected = batch.jvp(v)
            assert torch.equal(pickle.loads(pickle.dumps(batch)).jvp(v), expected)
            assert torch.equal(batch.block(0).products.jvp(v[:1]), J.products.jvp(v[:1]))
            some = batch.select(torch.tensor([True, True]))
            assert torch.equal(some.jvp(v), expected)


def test_an_audit_of_an_operator_made_under_autocast_looks_at_that_network():
    model, x = networks.unet(torch.float32), X.float()
    with AUTOCAST:
        J = JacobianOperator(model, x, 300)
        inside = audit(J)
    outside = audit(J)
    verdicts = [
        [(check.name, check.passed) for check in report.checks] for report in (inside, outside)
    ]
    assert verdicts[0] == verdicts[1]
    assert [name for name, passed in verdicts[0] if not passed] == ["precision"]


@pytest.mark.parametrize("make", [make for name, make in MADE.items() if make is not trainable])
def test_a_precision_of_float32_that_changed_is_told(make):
    model, x, v = networks.unet(torch.float32), X.float(), V[:1].float()
    jvp, vjp = make(model, x)
    expected, place = jvp(v), torch.backends.mkldnn.matmul
    double, _ = make(networks.unet(), X)
    before = place.fp32_precision
    try:
        place.fp32_precision = "bf16"
        for product in (jvp, vjp):
            with pytest.raises(InputError, match=r"mkldnn.matmul.fp32_precision = bf16; then"):
                product(v)
        double(V[:1])  # which that does not touch
    finally:
        place.fp32_precision = before
    assert torch.equal(jvp(v), expected)


@pytest.mark.parametrize("method", ["forward", "central"])
def test_a_transpose_beside_differences_is_of_the_network_that_gave_d(method):
    class Guided(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = networks.denoiser(), 1.0

        def forward(self, x, t):
            return self.scale * self.inner(x, t)

    network = Guided().eval()
    J = Products(denoiser(network), X, 300, method=method)
    network.scale = 1.001
    for _ in range(2):
        with pytest.raises(InputError, match="something else at x_t"):
            J.vjp(V)
    network.scale = 1.0
    assert J.vjp(V).shape == V.shape

"""Krylov methods for many operators, and the Jacobian of a batch, against one at a time."""

import gc
import pickle
import weakref

import pytest
import torch

from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    newton_direction,
)
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Backtracking, Dynamic, ExactMinimiser, Fixed, Spectral

import networks
from conftest import make_gaussian, make_mixture, relative


@pytest.fixture(scope="module")
def batch():
    denoiser = networks.unet()
    generator = torch.Generator().manual_seed(3)
    x_t, v = torch.randn(2, 3, *denoiser.shape, generator=generator, dtype=torch.float64)
    truth = torch.stack([networks.truth(denoiser, x, 400) for x in x_t])
    return denoiser, x_t, v, truth


def each(truth, v):
    return torch.einsum("bij,bj->bi", truth, v.flatten(1)).reshape(v.shape)


@pytest.mark.parametrize(
    ("method", "bound", "passes"),
    [("exact", 1e-12, (1, 1, 0)), ("forward", 1e-5, (2, 0, 0)), ("central", 1e-8, (3, 0, 0))],
)
def test_each_sample_has_its_own_jacobian(batch, method, bound, passes):
    denoiser, x_t, v, truth = batch
    J = BatchJacobian(denoiser, x_t, 400, method)
    assert relative(J.d, denoiser(x_t, 400)) < 1e-14
    assert relative(J.jvp(v), each(truth, v)) < bound
    assert (J.spent.forward, J.spent.jvp, J.spent.vjp) == passes
    assert relative(J.vjp(v), each(truth.mT, v)) < 1e-12
    assert not J.jvp(v).requires_grad


@pytest.mark.parametrize("method", ["exact", "forward", "central"])
def test_a_vector_with_a_graph_has_products_without_one(batch, method):
    """A difference's product kept it, and PyTorch warned of a number read out of it."""
    denoiser, x_t, v, _ = batch
    J = BatchJacobian(denoiser, x_t.clone().requires_grad_(), 400, method)
    product = J.jvp(v.clone().requires_grad_())
    assert not product.requires_grad
    assert torch.equal(product, BatchJacobian(denoiser, x_t, 400, method).jvp(v))
    assert not J.vjp(v.clone().requires_grad_()).requires_grad


class OneMemory:
    """Gives its output in the same memory each time, as CUDA graphs and compiled engines do."""

    def __init__(self):
        self.memory = {}

    def __call__(self, x, _t):
        memory = self.memory.setdefault(x.shape, torch.zeros_like(x).numpy())
        memory[:] = torch.tanh(1.5 * x.detach()).numpy()
        return torch.from_numpy(memory)


@pytest.mark.filterwarnings("ignore:J v by central differences")
@pytest.mark.parametrize("method", ["exact", "forward", "central"])
def test_a_network_may_give_its_output_in_the_same_memory_each_time(batch, method):
    model, x_t, v, _ = batch
    denoiser = Denoiser(OneMemory(), model.schedule, "sample", model.shape)
    J = BatchJacobian(denoiser, x_t, 400, method)
    assert relative(J.jvp(v), 1.5 * (1 - torch.tanh(1.5 * x_t) ** 2) * v) < 1e-6


def test_with_its_graph_the_transposed_product_costs_a_backward_pass(batch):
    denoiser, x_t, v, truth = batch
    J = BatchJacobian(denoiser, x_t, 400, graph=True)
    assert relative(J.d, denoiser(x_t, 400)) < 1e-14
    assert not J.d.requires_grad
    assert relative(J.vjp(v), each(truth.mT, v)) < 1e-12
    assert (J.spent.forward, J.spent.jvp, J.spent.vjp) == (1, 0, 1)


def test_a_batch_that_cannot_be_recorded_falls_back():
    oracle = make_mixture(DiscreteSchedule.linear())
    denoiser = oracle.denoiser("v")
    x_t = torch.randn(
        3, *oracle.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert (
        relative(
            BatchJacobian(denoiser, x_t, 600, "exact").jvp(x_t),
            each(oracle.jacobian(x_t, 600), x_t),
        )
        < 1e-12
    )


@pytest.mark.parametrize("kind", ["inexact", "gradient", "exact", "krylov", "identity"])
def test_directions_of_a_batch_are_those_of_its_samples(batch, kind):
    denoiser, x_t, e, _ = batch
    J = BatchJacobian(denoiser, x_t, 400, "exact")
    found = newton_direction(J, e, kind, rcond=0.1, steps=4)
    for i in range(3):
        one = JacobianOperator(denoiser, x_t[i], 400)
        assert relative(found[i], newton_direction(one, e[i], kind, rcond=0.1, steps=4)) < 1e-8
    with pytest.raises(InputError, match="for a batch e is a tensor of the shape of x_t"):
        newton_direction(J, e[0], kind)


def test_step_sizes_are_their_definitions_and_count_what_they_spend(batch):
    denoiser, x_t, _, truth = batch
    mask = half(denoiser.shape)
    constraint = Inpainting(2 * torch.rand_like(x_t) - 1, mask)
    J = BatchJacobian(denoiser, x_t, 400, "exact")
    e = constraint.error(J.d)
    g = J.jvp(e)

    def spent(rule, progress=0.0):
        before = J.spent.evaluations
        return rule(J, e, g, constraint, progress), J.spent.evaluations - before

    largest = g.flatten(1).abs().amax(1)
    for rule, progress, c in (
        (Dynamic(0.3), 0.5, 0.3),
        (Dynamic(0.3, 0.1), 0.5, 0.2),
        (Dynamic(0.3, 0.1), 1.0, 0.1),
    ):
        size, passes = spent(rule, progress)
        torch.testing.assert_close(size, c / largest)
        assert passes == 0
    assert spent(Fixed(0.7)) == (pytest.approx(torch.full((3,), 0.7, dtype=torch.float64)), 0)
    size, passes = spent(Spectral(1.5, 64))
    mu = torch.linalg.eigvals(truth).abs().amax(1)
    torch.testing.assert_close(size, 1.5 / mu**2, rtol=1e-6, atol=0)
    assert passes == 64
    size, passes = spent(ExactMinimiser())
    moved = mask * each(truth, g)
    best = ((e * moved).flatten(1).sum(1) / moved.flatten(1).square().sum(1)).clamp(min=0)
    torch.testing.assert_close(size, best, rtol=1e-9, atol=1e-12)
    assert passes == 1
    size, passes = spent(Backtracking(2.0, 6))
    halvings = (
        torch.log2(2.0 / largest / torch.where(size > 0, size, torch.inf)).exp2().reciprocal()
    )
    assert 1 <= passes <= 6
    before = constraint.residual(J.d)
    after = constraint.residual(denoiser(x_t + size.reshape(-1, 1, 1, 1) * g, 400))
    assert ((after < before) | (size == 0)).all()
    assert ((halvings * 2).log2() % 1 == pytest.approx(0)) if (size > 0).all() else True
    zero = torch.zeros_like(g)
    for rule in (Dynamic(0.3), ExactMinimiser(), Backtracking(1.0)):
        assert not rule(J, zero, zero, constraint, 0.0).any()  # fulfilled already: no step


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dynamic(0),
        lambda: Dynamic(1, -1),
        lambda: Fixed(0),
        lambda: Spectral(0),
        lambda: Backtracking(1, 0),
    ],
)
def test_bad_step_sizes_are_refused(make):
    with pytest.raises(InputError, match="must be"):
        make()


def test_a_graph_is_freed_with_its_jacobian():
    """Without waiting for the garbage collector: gradient descent would hold many steps' graphs at
    once.
    """
    denoiser = networks.denoiser()
    x_t = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    J = BatchJacobian(denoiser, x_t, 500, graph=True)
    J.vjp(J.d)
    kept = weakref.ref(J._ladder)
    gc.disable()
    try:
        del J
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["exact", "krylov"])
def test_under_a_mask_the_unknown_pixels_may_change(kind):
    """P J delta = e, not J delta = e: on a Gaussian, D then meets the known pixels, and moves
    elsewhere as J wants.
    """
    oracle = make_gaussian(DiscreteSchedule.linear())
    x_t = seeded_noise([0, 1], oracle.shape, dtype=torch.float64)
    constraint = Inpainting(x_t.flip(0), half(oracle.shape))
    J = BatchJacobian(oracle.denoiser(), x_t, 500, "exact")
    e = constraint.error(J.d)
    delta = newton_direction(J, e, kind, rcond=1e-12, steps=12, seen=constraint.seen)
    truth = oracle.jacobian(x_t, 500)
    known = half(oracle.shape).flatten()
    expected = [
        torch.linalg.pinv(block[known]) @ part.flatten()[known]
        for block, part in zip(truth, e, strict=True)
    ]
    if kind == "exact":  # the least move of all that do it; Krylov's stays on the known pixels
        assert relative(delta.flatten(1), torch.stack(expected)) < 1e-8
    else:
        assert delta.flatten(1)[:, ~known].abs().max() == 0
    assert constraint.residual(J.denoise(x_t + delta)).max() < 1e-8
    with pytest.raises(InputError, match="seen goes with a BatchJacobian"):
        newton_direction(truth[0].numpy(), e[0].numpy(), kind, seen=constraint.seen)
    asked = newton_direction(J, e, kind, rcond=1e-12, steps=12)
    assert (J.denoise(x_t + asked) - J.d - e).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("method", "graph", "forward"),
    [("exact", False, 1), ("forward", False, 1), ("forward", True, 1)],
)
def test_some_of_the_samples_have_the_same_jacobians_and_a_count_of_their_own(
    batch, method, graph, forward
):
    denoiser, x_t, v, _ = batch
    J = BatchJacobian(denoiser, x_t, 400, method, graph)
    kept = torch.tensor([True, False, True])
    D = J.d[kept]
    some = J.select(kept)
    assert torch.equal(some.d, D)
    assert some.spent.evaluations == 0
    product = some.vjp if graph else some.jvp
    assert relative(product(v[kept]), (J.vjp(v) if graph else J.jvp(v))[kept]) < 1e-7
    assert some.spent.forward == forward  # the difference's other end, or the recording
    assert J.spent.forward == 1 + (method == "forward" and not graph)


def test_what_the_schedule_says_is_taken_over_only_at_the_same_time_of_the_same_denoiser(batch):
    denoiser, x_t, _, _ = batch
    other = networks.denoiser("epsilon")
    first = BatchJacobian(denoiser, x_t, 400)
    for net, t in ((denoiser, 400), (denoiser, 399), (other, 400)):
        like = first if net is denoiser else BatchJacobian(denoiser, x_t, 400)
        assert torch.equal(BatchJacobian(net, x_t, t, like=like).d, net(x_t, t))
    moving = torch.tensor(400)
    first = BatchJacobian(denoiser, x_t, moving)
    moving += 100
    assert torch.equal(BatchJacobian(denoiser, x_t, moving, like=first).d, denoiser(x_t, 500))


@pytest.mark.parametrize("how", ["new", "graph", "sampler", "chosen", "pickled"])
@pytest.mark.parametrize("method", ["forward", "central"])
def test_differences_are_of_one_network(how, method):
    denoiser = networks.unet()
    x_t = torch.randn(2, *denoiser.shape, dtype=torch.float64)
    J = BatchJacobian(denoiser, x_t, 400, method, graph=how == "graph")
    if how == "sampler":
        J.guard()
        J = BatchJacobian(denoiser, x_t, 399, method, like=J)
    if how == "pickled":
        J = pickle.loads(pickle.dumps(J))
        denoiser = J.denoiser
    _ = J.d
    if how == "chosen":
        J = J.select(torch.tensor([True, False]))
    J.jvp(J.x)
    with torch.no_grad():
        next(denoiser.parameters()).mul_(1.01)
    with pytest.raises(InputError, match="weights changed since this operator was made"):
        J.jvp(J.x)


class Guided(torch.nn.Module):
    """A network with a scale that its owner may change at any moment."""

    def __init__(self):
        super().__init__()
        self.scale, self.calls = 1.0, 0

    def forward(self, x, t):
        self.calls += 1
        return torch.tanh(x) + (self.scale - 1) * torch.sin(3 * x)


@pytest.fixture
def guided():
    network = Guided().eval()
    denoiser = Denoiser(network, DiscreteSchedule.linear(), "epsilon", (1, 8, 8))
    return network, denoiser, torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_forward_difference_is_refused_where_what_the_network_keeps_was_changed(guided):
    network, denoiser, x_t = guided
    J = BatchJacobian(denoiser, x_t, 500)
    before = J.jvp(x_t)
    assert J.spent.forward == 2
    network.scale = 1.1
    with pytest.raises(InputError, match="something else at x_t than when D"):
        J.jvp(x_t)
    network.scale = 1.0
    assert torch.equal(J.jvp(x_t), before)
    operator = JacobianOperator(denoiser, x_t[:1], 500, products="forward")
    v = x_t[0].flatten().numpy()
    before = operator @ v
    network.scale = 1.1
    with pytest.raises(InputError, match="something else at x_t than when D"):
        operator @ v
    network.scale = 1.0
    assert (operator @ v == before).all()


@pytest.mark.parametrize(
    ("products", "asked"), [("forward", "vjp"), ("central", "jvp"), ("central", "vjp")]
)
def test_products_whose_network_runs_again_are_of_the_network_of_d(guided, products, asked):
    network, denoiser, x_t = guided
    J = BatchJacobian(denoiser, x_t, 500, products)
    _ = J.d
    network.scale = 1.02
    for _ in range(2):
        with pytest.raises(InputError, match="something else at x_t than when D"):
            getattr(J, asked)(x_t)
    network.scale = 1.0
    exact = getattr(BatchJacobian(denoiser, x_t, 500, "exact"), asked)(x_t)
    assert relative(getattr(J, asked)(x_t), exact) < 1e-3


def test_selected_samples_keep_d_and_are_of_its_network(guided):
    network, denoiser, x_t = guided
    J = BatchJacobian(denoiser, x_t, 500, "exact")
    _, whole = J.d, J.jvp(x_t)
    network.scale = 1.02
    some = J.select(torch.tensor([False, True]))
    for _ in range(2):
        with pytest.raises(InputError, match="something else at x_t than when D"):
            some.jvp(x_t[1:])
    network.scale = 1.0
    assert relative(some.jvp(x_t[1:]), whole[1:]) < 1e-6


def test_a_large_product_of_the_same_network_is_looked_into_once(guided):
    network, denoiser, x_t = guided
    network.scale = 30.0
    J = BatchJacobian(denoiser, x_t, 500)
    J.guard()
    exact = BatchJacobian(denoiser, x_t, 500, "exact").jvp(x_t)
    assert exact.norm() > 5 * x_t.norm()
    network.calls = J.spent.forward = 0
    for _ in range(3):
        assert relative(J.jvp(x_t), exact) < 0.01
    assert J.spent.forward == network.calls == 4
    next_one = BatchJacobian(denoiser, x_t, 500, like=J)
    assert relative(next_one.jvp(x_t), exact) < 0.01
    assert next_one.spent.forward == 2


def test_a_sampler_s_network_may_not_change_between_two_states(guided):
    network, denoiser, x_t = guided
    constraint = Inpainting(x_t, half(denoiser.shape))
    states = sample(denoiser, seeded_noise([0, 1], (1, 8, 8)), [900, 500, 100], constraint)
    next(states)
    network.scale = 1.3
    with pytest.raises(InputError, match="in a sampler, sample with one network"):
        list(states)

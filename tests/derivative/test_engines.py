"""Each way to products with J, applied to many vectors of one sample and to a vector of each."""

import numpy as np
import pytest
import torch

from jacobian_lab import Denoiser, InputError
from jacobian_lab.derivative.engines import Engines
from jacobian_lab.derivative.products import Products
from jacobian_lab.derivative.settings import differentiable

import networks
from conftest import relative
from linear_maps import weights

PATHS = (
    "linearised",
    "double backward",
    "forward mode",
    "central difference",
    "forward difference",
)


def engines(x, exact=True, graph=False, eps=None):
    model = networks.denoiser()
    made = Engines(lambda x: model(x, 300), x, [*model.parameters(), *model.buffers()])
    made.run(exact, graph, eps)
    return made


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("batch", "count"), [(1, 3), (3, 2)])
@pytest.mark.parametrize("path", PATHS)
def test_each_engine_applies_to_k_vectors_of_each_sample(path, batch, count):
    x, v = weights(batch, *networks.SHAPE), weights(count, batch, *networks.SHAPE, seed=1)
    model = networks.denoiser()
    J = torch.stack([networks.truth(model, one[None], 300) for one in x])
    exact = {"central difference": 1e-8, "forward difference": 1e-5}.get(path, 1e-12)
    with differentiable():
        made = engines(x)
        engine = made.at(path)
        pushed = made.apply(engine, v).flatten(2)
        pulled = made.apply(engine, v, transposed=True).flatten(2)
    assert relative(pushed, torch.einsum("bij,kbj->kbi", J, v.flatten(2))) < exact
    assert relative(pulled, torch.einsum("bij,kbi->kbj", J, v.flatten(2))) < 1e-12


@pytest.mark.parametrize(("exact", "graph"), [(True, False), (True, True), (False, False)])
def test_a_run_gives_the_network_s_value_and_precision(exact, graph):
    x = weights(2, *networks.SHAPE)
    with differentiable():
        made = engines(x, exact, graph)
    assert relative(made.value, networks.denoiser()(x, 300)) < 1e-14
    assert made.eps == torch.finfo(torch.float64).eps
    assert (made.graph is not None) == graph
    assert made.graph is None or made.graph.told() is None


class Guided(torch.nn.Module):
    """A network that keeps a scale, and counts its runs."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale, self.runs = networks.denoiser(), 1.0, 0

    def forward(self, x):
        self.runs += 1
        return self.scale * self.inner(x, 300)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("path", ["double backward", "forward mode", "central difference"])
def test_a_run_for_products_must_be_of_the_network_that_ran_at_first(path, batch):
    x, network = weights(batch, *networks.SHAPE), Guided()
    v = weights(2, batch, *networks.SHAPE, seed=1)
    made = Engines(network, x, [*network.parameters()])
    with differentiable():
        made.run(exact=False, graph=False, eps=None)
        before = network.runs
        made.apply(made.at(path), v)
        assert network.runs - before <= 2 * len(v)  # nothing was looked into
        network.scale, pushing, pulling = 1.02, made.at(path), made.at(path)
        for _ in range(2):  # what ran is not kept
            with pytest.raises(InputError, match="something else at x_t"):
                made.apply(pushing, v)
            with pytest.raises(InputError, match="something else at x_t"):
                made.apply(pulling, v, transposed=True)
            with pytest.raises(InputError, match="something else at x_t"):
                _ = made.linear
        network.scale = 1.0
        assert relative(made.apply(pushing, v), made.apply(made.linear, v)) < 1e-7


def test_what_is_in_the_way_of_a_recording_is_said_and_not_tried_again():
    calls = []

    def through_numpy(x):
        calls.append(0)
        return torch.from_numpy(x.detach().numpy() ** 3)

    made = Engines(through_numpy, weights(1, *networks.SHAPE), [])
    assert made.linear is None
    count = len(calls)
    assert made.linear is made.at("linearised") is None
    assert len(calls) == count
    assert "does not depend on x" in made.failure


def test_samples_that_mix_are_taken_one_vector_at_a_time():
    def mixed(x):
        return torch.sin(x) * x.mean(0, keepdim=True)

    x, v = weights(1, *networks.SHAPE), weights(3, 1, *networks.SHAPE, seed=1)
    with differentiable():
        made = Engines(mixed, x, [])
        made.run(False, False, None)
        found = made.apply(made.at("double backward"), v)
    assert not made.together
    assert relative(found, v * (torch.cos(x) * x + torch.sin(x))) < 1e-13


@pytest.mark.parametrize("hidden", [False, True], ids=["recorded", "not recorded"])
@pytest.mark.parametrize(("memory", "most"), [(1, 1), (10**9, 6)])
def test_checks_and_products_keep_within_the_memory(hidden, memory, most):
    """The network sees no more samples at once than vectors fit in."""
    model, seen = networks.denoiser(), []

    def network(x, t):
        seen.append(len(x))
        y = model.network(x, t)
        return Sine.apply(y) if hidden else y.sin()

    denoiser = Denoiser(network, model.schedule, "sample", networks.SHAPE)
    products = Products(denoiser, weights(1, *networks.SHAPE), 300, memory=memory)
    V = weights(6, *networks.SHAPE, seed=1)
    pushed, pulled = products.jvp(V), products.vjp(V)
    assert products.path == ("double backward" if hidden else "linearised")
    assert max(seen) == (most if hidden else min(most, 3))
    assert relative((pushed * V.flip(0)).sum(), (pulled.flip(0) * V).sum()) < 1e-12


class Sine(torch.autograd.Function):
    """The sine, through numpy: nothing to record."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def backward(ctx, u):
        return u * ctx.saved_tensors[0].cos()

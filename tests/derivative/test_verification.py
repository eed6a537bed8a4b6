"""The check passes right products and no wrong ones, neither of J nor of its transpose."""

import pytest
import torch

from jacobian_lab import BatchJacobian, Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.agreement import Verdict
from jacobian_lab.derivative.engines import Engines
from jacobian_lab.derivative.probes import probe
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.derivative.verification import Verification, warn_of
from jacobian_lab.errors import DerivativeWarning

import networks
from conftest import relative
from linear_maps import weights

X = weights(1, *networks.SHAPE)


class Scaled:
    """An engine whose transpose is wrong by a factor."""

    def __init__(self, inner, factor):
        self.inner, self.factor = inner, factor

    def vjp(self, u):
        return self.factor * self.inner.vjp(u)


def verification(x=X, function=None):
    model = networks.denoiser()
    engines = Engines(function or (lambda x: model(x, 300)), x, [*model.parameters()])
    engines.run(True, False, None)
    return engines, Verification(engines, 1.0)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("factor", [1.0, 1 + 1e-5, 0.5])
def test_only_right_products_agree_with_differences(batch, factor):
    x = weights(batch, *networks.SHAPE)
    with differentiable():
        engines, check = verification(x)
        v = probe(x)
        comparison = check.compare_at(v)
        products = engines.apply(engines.linear, v)
        assert check.verdict(comparison, factor * products).agrees == (factor == 1)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("known", [True, False], ids=["against J v", "against differences"])
@pytest.mark.parametrize("factor", [1.0, 1 + 1e-5, 0.5])
def test_only_the_transpose_passes_the_adjoint_identity(known, factor, batch):
    x = weights(batch, *networks.SHAPE)
    with differentiable():
        engines, check = verification(x)
        v = probe(x)
        if known:
            check.checked = v, engines.apply(engines.linear, v)
        engine = Scaled(engines.at("double backward"), factor)
        u = weights(1, batch, *networks.SHAPE, seed=1)
        found = engines.apply(engine, u, transposed=True)
        verdict = check.adjoint(engine, u, found, "linearised" if known else "", 0.0)
    assert verdict.agrees == (factor == 1)


class WrongInBatches(torch.autograd.Function):
    """The sine, whose backward pass is wrong for three samples or more."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, u):
        (x,) = ctx.saved_tensors
        return u * x.cos() * (1.01 if len(x) > 2 else 1)


def half_detached(x, t):
    return x.sin() + x.detach().square()


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("network", "wrong_from"), [(lambda x, t: WrongInBatches.apply(x), 3), (half_detached, 1)]
)
def test_autograd_that_sees_another_function_is_refused_in_batches_of_any_size(
    network, wrong_from, batch
):
    denoiser = Denoiser(network, DiscreteSchedule.linear(), "sample", networks.SHAPE)
    x = weights(batch, *networks.SHAPE)
    J = BatchJacobian(denoiser, x, 300, graph=True)
    found = J.vjp(torch.ones_like(x))  # autograd's, or the recording's where that is wrong
    right = x.cos() + (2 * x if network is half_detached else 0)
    assert relative(found, right) < 1e-12
    recorded = J._ladder.choice().transposed == "linearised"
    assert recorded == (batch >= wrong_from)


def test_the_samples_that_are_checked_are_the_last_and_the_first():
    _, check = verification(weights(5, *networks.SHAPE))
    vectors = torch.arange(10.0).reshape(2, 5, 1, 1, 1)
    assert check.pairs(vectors).flatten().tolist() == [4, 0, 9, 5]


def test_a_network_that_was_another_when_it_was_recorded_is_refused():
    with differentiable():
        engines, check = verification()
        v = probe(X)
        products = engines.apply(engines.linear, v)
        check.check_stateless(v, products)
        with pytest.raises(InputError, match=r"another one at its next call, by 5\.0e-01"):
            check.check_stateless(v, 2 * products)


def test_coupled_samples_are_told():
    with differentiable(), pytest.raises(InputError, match="samples of a batch see each other"):
        verification(weights(3, *networks.SHAPE), lambda x: x * x.mean())[1].compare_at(
            probe(weights(3, *networks.SHAPE))
        )


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Verdict(True, 0.0, flat=True), "the derivative is zero though the output is not constant"),
        (Verdict(True, 0.4, resolved=False), "do not resolve J v, and leave 4.0e-01 of it open"),
    ],
)
def test_doubts_are_said(verdict, message):
    with pytest.warns(DerivativeWarning, match=message):
        warn_of(verdict, None)

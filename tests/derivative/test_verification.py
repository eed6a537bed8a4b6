"""The check passes right products and no wrong ones, neither of J nor of its transpose."""

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.derivative.agreement import Verdict
from jacobian_lab.derivative.engines import Engines
from jacobian_lab.derivative.probes import probe
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.derivative.verification import Verification, warn_of
from jacobian_lab.errors import DerivativeWarning

import networks
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


@pytest.mark.parametrize("known", [True, False], ids=["against J v", "against differences"])
@pytest.mark.parametrize("factor", [1.0, 1 + 1e-5, 0.5])
def test_only_the_transpose_passes_the_adjoint_identity(known, factor):
    with differentiable():
        engines, check = verification()
        v = probe(X)
        if known:
            check.checked = v, engines.apply(engines.linear, v)
        engine = Scaled(engines.at("double backward"), factor)
        u = weights(1, 1, *networks.SHAPE, seed=1)
        verdict = check.adjoint(engine, u, "linearised" if known else "", 0.0)
    assert verdict.agrees == (factor == 1)


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

"""Faults of products are named, and no others."""

import numpy as np
import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule, JacobianOperator, audit
from jacobian_lab.krylov.operators import Operator

import networks
from conftest import PREDICTIONS, SHAPE, make_mixture

X = torch.randn(1, *networks.SHAPE, generator=torch.Generator().manual_seed(0))


def operator(network):
    return JacobianOperator(
        Denoiser(network.eval(), DiscreteSchedule.linear(), "v", networks.SHAPE), X, 300
    )


def test_a_transpose_at_another_time_is_named():
    J = operator(networks.Convolutional())
    other = JacobianOperator(J.products.denoiser, X, 290)
    J._apply_transpose = Operator(
        J.shape, J.dtype, other._apply, other._apply_transpose
    )._apply_transpose
    assert not audit(J)["adjoint"].passed


def test_products_that_are_no_derivative_are_named():
    J = operator(networks.Convolutional())
    apply = J._apply
    J._apply = lambda V: apply(V) * (1 + 0.1 * np.tanh(V))
    assert not audit(J)["linear"].passed
    J._apply = JacobianOperator(J.products.denoiser, 2 * X, 300)._apply  # at another point
    assert not audit(J)["differences"].passed
    J._apply = lambda V: np.where(np.arange(len(V))[:, None] == 3, np.nan, apply(V))
    report = audit(J)
    assert not report["finite"].passed


@pytest.mark.parametrize(
    ("method", "t"),
    [
        ("exact", 5),
        ("exact", 900),
        ("exact", 990),
        ("forward", 300),
        ("central", 5),
        ("central", 300),
    ],
)
def test_no_alarm_where_terms_cancel_or_differences_are_asked_for(method, t):
    for prediction in PREDICTIONS:
        oracle = make_mixture(DiscreteSchedule.linear()).float()
        x_t = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
        report = audit(JacobianOperator(oracle.denoiser(prediction), x_t, t, products=method))
        assert report, f"{prediction}\n{report}"


@pytest.mark.parametrize(
    ("columns", "count"),
    [(slice(0, 99), 16), (slice(1, 99), 16), (slice(15, 16), 16), (slice(16, 17), 17)],
)
@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_products_that_are_wrong_for_many_vectors_only_are_named(product, columns, count):
    J = JacobianOperator(networks.unet(torch.float32), X, 300)
    J.T @ np.ones(64)  # checked, and right then
    linear = J.products.ladder.linear
    right = getattr(linear, product)

    def wrong(vectors):
        found = right(vectors)
        if len(vectors) >= count:
            found[columns] *= 1.05
        return found

    setattr(linear, product, wrong)
    assert not audit(J)["many at once"].passed


def test_a_rank_one_error_of_the_transpose_is_named():
    J = JacobianOperator(networks.unet(torch.float32), X, 300)
    right, v = J._apply_transpose, np.linspace(-1, 1, 64)[:, None]
    v /= np.linalg.norm(v)
    size = np.linalg.norm(J.dense(), 2)
    J._apply_transpose = lambda U: right(U) + 0.01 * size * v[::-1] * (v.T @ U)
    assert not audit(J)["adjoint"].passed

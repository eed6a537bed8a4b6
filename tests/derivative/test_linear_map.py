"""What rules are made of: each map against a dense matrix, with its transpose."""

import pytest
import torch

from jacobian_lab.derivative import linear_map
from jacobian_lab.derivative.linear_map import (
    Call,
    broadcast,
    cast,
    diagonal_map,
    filled,
    images,
    unbroadcast,
    weighted,
)

from conftest import relative
from linear_maps import weights


def dense(push, shape):
    """The matrix of a map of one tangent."""
    n = torch.Size(shape).numel()
    return push(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).reshape(n, -1).T


@pytest.mark.parametrize("before", [(3, 4), (1, 4), (4,), (), (3, 1), (1, 1)])
def test_unbroadcast_is_the_transpose_of_broadcast(before):
    forward = dense(lambda t: broadcast(t, (3, 4)), before)
    assert torch.equal(dense(lambda u: unbroadcast(u, before), (3, 4)), forward.T)
    assert torch.equal(
        broadcast(weights(2, *before), (3, 4))[1], weights(2, *before)[1].expand(3, 4)
    )


@pytest.mark.parametrize(
    "d", [2.0, 1 + 2j, weights(3, 4), torch.complex(weights(4), weights(4, seed=1))]
)
def test_the_transpose_of_a_diagonal_is_that_of_the_real_inner_product(d):
    v, u = (torch.complex(weights(2, 3, 4, seed=s), weights(2, 3, 4, seed=s + 1)) for s in (2, 4))
    linear = diagonal_map(d)
    assert relative(torch.view_as_real(linear.push(v)), torch.view_as_real(v * d)) < 1e-15
    left, right = ((a.conj() * b).real.sum() for a, b in ((u, linear.push(v)), (linear.pull(u), v)))
    assert left == pytest.approx(float(right), rel=1e-13)


def test_a_sum_with_broadcasting_is_pushed_and_pulled():
    a, b = weights(3, 4), weights(4, seed=1)
    call = Call(torch.ops.aten.mul.Tensor, [a, b], a * b, (0, 1))
    linear = weighted(call, [b, a])
    truth = torch.autograd.functional.jacobian(torch.mul, (a, b))
    v, w, u = weights(2, 3, 4, seed=2), weights(2, 4, seed=3), weights(2, 3, 4, seed=4)
    J = [j.reshape(12, -1) for j in truth]
    pushed = v.flatten(1) @ J[0].T + w @ J[1].T
    assert relative(linear.push(v, w).flatten(1), pushed) < 1e-14
    for found, j in zip(linear.pull(u), J, strict=True):
        assert relative(found.flatten(1), u.flatten(1) @ j) < 1e-14


def test_the_cast_from_complex_is_the_real_part():
    z = torch.complex(weights(2, 3), weights(2, 3, seed=1))
    assert torch.equal(cast(z, torch.float64), z.real)
    assert cast(z, torch.complex64).dtype == torch.complex64
    assert cast(z.real, torch.float8_e5m2).dtype == torch.float64  # nothing is computed in a byte


def test_missing_tangents_are_zero():
    t = weights(2, 3)
    first, second = filled([None, t], [(4,), (3,)])
    assert first.shape == (2, 4)
    assert not first.any()
    assert second is t


def test_vectors_are_merged_with_the_batch_in_the_layout_that_pays(monkeypatch):
    t = weights(3, 2, 4, 5, 5).float()
    few = images(t, (2, 4, 5, 5), torch.contiguous_format)
    assert torch.equal(few, t.flatten(0, 1))
    assert few.is_contiguous()
    monkeypatch.setattr(linear_map, "MANY", 6)
    many = images(t, (2, 4, 5, 5), torch.contiguous_format)
    assert torch.equal(many, few)
    if torch.backends.mkldnn.is_available():
        assert many.is_contiguous(memory_format=torch.channels_last)

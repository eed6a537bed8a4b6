"""Arguments of PyTorch's operations, in the order of their schemas."""

import torch

from jacobian_lab.derivative.arguments import apply, each, has_lists_behind, in_order, tensors

aten = torch.ops.aten
A, B = torch.arange(4.0).reshape(2, 2), torch.ones(2, 2)


def test_defaults_are_filled_in_and_the_call_is_the_same():
    func = aten.add.Tensor
    assert in_order(func, (A, B), {}) == [A, B, 1]
    given = in_order(func, (A, B), {"alpha": 3})
    assert given == [A, B, 3]
    assert torch.equal(apply(func, given), A + 3 * B)


def test_a_decomposition_runs_in_place_of_the_operation():
    given = in_order(aten.add.Tensor, (A, B), {"alpha": 2})
    assert torch.equal(apply(aten.add.Tensor, given, lambda a, b, alpha: a - alpha * b), A - 2 * B)


def test_an_argument_without_a_default_that_was_left_out_is_none():
    assert in_order(aten.clamp.default, (A,), {"max": 1}) == [A, None, 1]


def test_tensors_are_found_in_nested_lists_and_numbers_are_not():
    found = tensors(A, [B, (A, None)], [1, 2], 3.0, "sum")
    assert [id(t) for t in found] == [id(A), id(B), id(A)]


def test_each_keeps_the_structure():
    assert each(lambda t: t.sum().item(), [A, (B, 2), None]) == [6.0, [4.0, 2], None]


def test_lists_of_tensors_behind_the_first_argument_are_noticed():
    assert has_lists_behind(aten.index.Tensor)
    assert not has_lists_behind(aten.cat.default)
    assert not has_lists_behind(aten.add.Tensor)

"""Differences on a device that the host does not wait for are judged once they are settled."""

from functools import partial

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.derivative.guards import GAIN, check_base, check_run
from jacobian_lab.linops.one_network import OneNetwork

X = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def note(one, function, v, product, value=X, kind="cpu"):
    """Have one network take note of a difference from X along v."""
    return one.note(partial(check_base, function, X, value, 1e-7, v, product), kind)


def test_a_changed_network_is_told_at_once_on_a_cpu():
    one = OneNetwork("cpu")
    with pytest.raises(InputError, match="something else at x_t"):
        note(one, lambda x: 2 * x, X, 1000 * X)
    assert one.settle() == 0


def test_elsewhere_it_is_told_when_the_device_was_waited_for():
    one = OneNetwork("cpu")
    assert note(one, lambda x: 2 * x, X, 1000 * X, kind="cuda") == 0
    with pytest.raises(InputError, match="something else at x_t"):
        one.settle()
    assert one.settle() == 0


def test_a_large_difference_of_one_network_raises_what_is_taken_for_large():
    one, calls = OneNetwork("cpu"), []

    def same(x):
        calls.append(len(x))
        return x

    factors = 0.9 * GAIN, 2 * GAIN, 3.9 * GAIN, 4.1 * GAIN
    assert [note(one, same, X, factor * X) for factor in factors] == [0, 1, 0, 1]
    assert calls == [2, 2]


def test_a_run_and_a_difference_are_both_judged_and_each_by_what_is_known_of_its_kind():
    one = OneNetwork("cpu")
    seen = partial(check_run, lambda x: x, X, X, 1e-7, 1.1 * X, torch.zeros(2))
    for _ in range(2):
        one.note(seen, "cuda")
        assert note(one, lambda x: x, X, 2 * GAIN * X, kind="cuda") == 0
    assert one.settle() == 2
    one.note(seen, "cuda")
    assert one.settle() == 0  # known
    one.note(partial(check_run, lambda x: 2 * x, X, X, 1e-7, 2 * X, torch.zeros(2)), "cuda")
    note(one, lambda x: x, X, X, kind="cuda")
    with pytest.raises(InputError, match="something else at x_t"):
        one.settle()


def test_a_zero_vector_does_not_end_the_watch():
    """Its difference is the rounding of other kernels, or all of what was changed."""
    one, v = OneNetwork("cpu"), torch.zeros_like(X)
    assert note(one, lambda x: x, v, torch.full_like(X, 1e-6)) == 0
    with pytest.raises(InputError, match="something else at x_t"):
        note(one, lambda x: 2 * x, X, 10 * X)
    with pytest.raises(InputError, match="something else at x_t"):
        note(one, lambda x: 2 * x, v, X)


def test_samples_that_are_not_finite_are_not_looked_into():
    one, product = OneNetwork("cpu"), X.clone()
    product[0] = torch.inf
    assert note(one, lambda x: 1 / 0, X, product) == 0
    value = X.clone()
    value[1] = torch.nan
    product[1] = 1000.0
    assert note(one, lambda x: x, X, product, value) == 1

"""Differences on a device that the host does not wait for are judged once they are settled."""

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.derivative.guards import GAIN
from jacobian_lab.linops.one_network import OneNetwork

X = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Elsewhere(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


@pytest.mark.parametrize(("kind", "at_once"), [(torch.Tensor, True), (Elsewhere, False)])
def test_a_changed_network_is_told_at_once_or_when_the_device_was_waited_for(kind, at_once):
    one, x = OneNetwork("cpu"), X.as_subclass(kind)

    def note():
        return one.note(lambda x: 2 * x, x, x, 1e-7, x, 1000 * x)

    if at_once:
        with pytest.raises(InputError, match="something else at x_t"):
            note()
    else:
        assert note() == 0
        with pytest.raises(InputError, match="something else at x_t"):
            one.settle()
    assert one.settle() == 0


def test_a_large_difference_of_one_network_raises_what_is_taken_for_large():
    one, calls = OneNetwork("cpu"), []

    def same(x):
        calls.append(len(x))
        return x

    def note(factor):
        return one.note(same, X, X, 1e-7, X, factor * X)

    assert [note(factor) for factor in (0.9 * GAIN, 2 * GAIN, 3.9 * GAIN, 4.1 * GAIN)] == [
        0,
        1,
        0,
        1,
    ]
    assert calls == [2, 2]


def test_a_zero_vector_does_not_end_the_watch():
    """Its difference is the rounding of other kernels, or all of what was changed."""
    one, v = OneNetwork("cpu"), torch.zeros_like(X)
    assert one.note(lambda x: x, X, X, 1e-7, v, torch.full_like(X, 1e-6)) == 0
    with pytest.raises(InputError, match="something else at x_t"):
        one.note(lambda x: 2 * x, X, X, 1e-7, X, 10 * X)
    with pytest.raises(InputError, match="something else at x_t"):
        one.note(lambda x: 2 * x, X, X, 1e-7, v, X)


def test_samples_that_are_not_finite_are_not_looked_into():
    one, product = OneNetwork("cpu"), X.clone()
    product[0] = torch.inf
    assert one.note(lambda x: 1 / 0, X, X, 1e-7, X, product) == 0
    value = X.clone()
    value[1] = torch.nan
    product[1] = 1000.0
    assert one.note(lambda x: x, X, value, 1e-7, X, product) == 1

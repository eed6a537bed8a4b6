"""A function in the place of a network."""

import pytest
import torch
from torch import nn

from jacobian_lab import InputError
from jacobian_lab.derivative.any_function import AnyFunction


def test_a_value_has_as_many_dimensions_as_x_and_its_shape_is_kept():
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    whole = AnyFunction(lambda x: x.mean(1), x)
    found = whole.output(x.expand(5, -1, -1, -1), 0)
    assert found.shape == (5, 12, 1, 1)
    assert whole.output_shape == (3, 4)
    torch.testing.assert_close(found[2].flatten(), x.mean(1).flatten())


def test_the_function_cannot_write_into_x():
    x = torch.ones(1, 3)
    AnyFunction(lambda x: x.mul_(2), x).output(x, 0)
    assert (x == 1).all()


def test_the_function_may_give_its_value_in_the_same_memory_each_time():
    memory = torch.zeros(1, 3)
    whole = AnyFunction(lambda x: torch.sin(x, out=memory), memory)
    first = whole.output(torch.ones(1, 3), 0)
    whole.output(torch.zeros(1, 3), 0)
    assert first.all()


def test_its_size_is_that_of_x_and_one_at_zero():
    assert AnyFunction(torch.sin, torch.full((1, 4), -3.0)).schedule(0)[0] == 3
    assert AnyFunction(torch.sin, torch.zeros(1, 4)).schedule(0)[0] == 1


def test_weights_and_mode_are_those_of_a_module():
    module = nn.Linear(2, 2).eval()
    whole = AnyFunction(module, torch.ones(1, 2))
    assert list(whole.parameters()) == list(module.parameters())
    assert not whole.training


def test_a_value_without_the_batch_is_refused():
    with pytest.raises(InputError, match=r"returned shape \(2,\) for an input of \(3, 2\)"):
        AnyFunction(lambda x: x[0], torch.ones(1, 2)).output(torch.ones(3, 2), 0)

"""What must hold of a network: evaluation mode, finite numbers, samples apart."""

import threading
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.guards import (
    check_apart,
    check_run,
    in_training,
    modules_called,
)
from jacobian_lab.derivative.products import Products

import networks

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def denoiser(network):
    return Denoiser(network, DiscreteSchedule.linear(), "sample", networks.SHAPE)


def test_a_run_that_lies_apart_is_looked_into_once():
    x, calls = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), []
    zero = torch.zeros(2)

    def function(x):
        calls.append(len(x))
        return 2 * x

    def known(seen, value=2 * x, blur=zero, known=0.0):
        return check_run(function, x, value, 1e-7, seen, blur, known)

    assert known(2 * x) == 0
    assert known(2.1 * x, blur=0.1 * x.norm(dim=1) + 1e-6) == 0
    assert known(torch.full_like(x, torch.nan)) == 0
    assert calls == []
    assert known(2.1 * x) == pytest.approx(0.1, rel=1e-3)
    assert known(2.1 * x, known=0.1) == 0.1
    assert calls == [2]
    with pytest.raises(InputError, match="something else at x_t"):
        known(2 * x, value=2.1 * x)


def test_a_network_in_a_closure_must_be_in_evaluation_mode():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Dropout(0.5)).double()
    with pytest.raises(InputError, match="the network is in training mode"):
        Products(denoiser(lambda x, t: network(x)), X, 500)


def test_modules_that_a_closure_hides_are_collected_once_and_of_this_thread():
    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def elsewhere():
        nn.Tanh()(torch.zeros(3))

    with modules_called() as called:
        inner(torch.zeros(3))
        inner(torch.zeros(3))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert called == [inner, inner[0], inner[1]]
    inner(torch.zeros(3))
    assert len(called) == 3  # the hook is gone


class MakesDropout(nn.Module):
    """Makes a module as it runs, where `eval()` does not reach it."""

    def forward(self, x):
        return nn.Dropout(0.5)(x)


def test_modules_that_are_made_as_the_network_runs_count_if_training_matters():
    network, plain = MakesDropout().eval(), nn.Linear(3, 3)
    assert in_training(network, [network, nn.Dropout().train()]) == ["Dropout"]
    assert in_training(network, [network, plain.train()]) == []
    assert in_training(nn.Sequential(plain), []) == ["Linear"]


def counter():
    calls = []

    def function(x):
        calls.append(0)
        return x + len(calls)

    return function


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.sin(x), None),
        (lambda x: x - x.mean(0, keepdim=True), "samples of a batch see each other"),
        (counter(), "returns something else each time"),
    ],
)
def test_samples_must_be_apart_and_calls_alike(function, message):
    x = torch.cat([X, 2 * X, 3 * X])
    value, last = function(x), function(x[-1:])
    with nullcontext() if message is None else pytest.raises(InputError, match=message):
        check_apart(function, x, value, last, torch.finfo(x.dtype).eps)

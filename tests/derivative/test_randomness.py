"""A network that draws random numbers is refused; what other threads draw does not count."""

import random
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.derivative.randomness import deterministic, random_state
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.linops.jacobian import JacobianOperator

import networks

X = torch.randn(2, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def one_draw():
    torch.rand(())
    np.random.rand()  # noqa: NPY002 - the generator that networks draw from
    random.random()


@contextmanager
def another_thread_draws():
    """A thread that draws all the time from each generator of the process."""
    stop, started = threading.Event(), threading.Event()

    def draws():
        while not stop.is_set():
            one_draw()
            started.set()

    thread = threading.Thread(target=draws)
    thread.start()
    started.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def nobody_draws():
    yield


def denoiser(network):
    return Denoiser(network, DiscreteSchedule.linear(), "sample", networks.SHAPE)


class InClosure:
    """Dropout where no module is in training mode."""

    def __init__(self, p):
        self.p = p

    def __call__(self, x, t):
        return F.dropout(torch.sin(x), self.p, training=True)


def faint(x, t):
    """Draws that no digit of the output shows."""
    return torch.sin(x) + 1e-30 * torch.randn_like(x)


DRAWING = {
    "torch": lambda x, t: torch.sin(x) + 0.1 * torch.randn_like(x),
    "torch, in place": lambda x, t: torch.sin(x) * torch.empty_like(x).uniform_(),
    "torch, faint": faint,
    "dropout": InClosure(0.5),
    "rrelu": lambda x, t: F.rrelu(x, training=True),
    "attention": lambda x, t: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3),
    "numpy": lambda x, t: torch.sin(x) * float(np.random.rand()),  # noqa: NPY002
    "random": lambda x, t: torch.sin(x) + random.gauss(0, 1),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("others", [nobody_draws, another_thread_draws])
@pytest.mark.parametrize("name", DRAWING)
def test_a_network_that_draws_is_refused(name, others):
    with others():
        with pytest.raises(InputError, match="draws random numbers"):
            JacobianOperator(denoiser(DRAWING[name]), X[:1], 500)
        with pytest.raises(InputError, match="draws random numbers"):
            BatchJacobian(denoiser(DRAWING[name]), X, 500).guard()


class Quiet(nn.Module):
    """Has all parts that might draw, and is told not to; its own generator is not the process's."""

    def forward(self, x, t):
        h = F.dropout(F.rrelu(x, training=False), 0.5, training=False)
        h = h + F.scaled_dot_product_attention(x, x, x)
        own = torch.Generator().manual_seed(0)
        return h * torch.rand(x.shape[-1], generator=own, dtype=x.dtype)


@pytest.mark.parametrize("network", [Quiet().eval(), networks.denoiser().network])
def test_what_another_thread_draws_is_no_false_alarm(network):
    with another_thread_draws():
        for _ in range(20):
            JacobianOperator(denoiser(network), X[:1], 500)
            BatchJacobian(denoiser(network), X, 500).guard()


def test_the_network_does_not_run_again_unless_a_state_changed(monkeypatch):
    calls = []
    # other tests may have left a thread, such as that of a progress bar
    monkeypatch.setattr(threading, "active_count", lambda: 1)

    def run():
        calls.append(0)
        return X

    with deterministic(run):
        pass
    assert not calls
    with pytest.raises(InputError), deterministic(run):
        one_draw()
    assert not calls  # no other thread is alive: it can only have been the network
    monkeypatch.undo()
    with another_thread_draws(), deterministic(run):
        before = random_state()  # inside: it may draw before the state is noted
        while random_state() == before:
            pass
    assert len(calls) == 2


@pytest.mark.parametrize(
    "draw",
    [torch.rand, lambda n: np.random.rand(n), lambda n: random.random()],  # noqa: NPY002
)
def test_the_state_shows_each_generator(draw):
    before = random_state()
    assert random_state() == before
    draw(1)
    assert random_state() != before


def test_a_network_that_is_not_finite_does_not_draw():
    with another_thread_draws():
        before = random_state()
        with deterministic(lambda: torch.full((1,), torch.nan)):
            while random_state() == before:
                pass

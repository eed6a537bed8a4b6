"""Our sampler as contestants: what each costs, and what it makes of an observation."""

import inspect

import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.sampler import seeded_noise
from studies.contest import (
    ours as contestants,
)
from studies.contest.peers import PEERS

from conftest import SHAPE, make_gaussian, relative

PEERS_OF_OURS = {
    peer.name: peer for peer in contestants.CONTESTANTS if peer.library == "jacobian-lab"
}


class WholePasses(torch.nn.Module):
    """A network that counts the passes of the whole batch, forward and backward."""

    def __init__(self, network, batch):
        super().__init__()
        self.network, self.batch = network, batch
        self.forward_passes = self.backward_passes = 0
        self.eval()

    def forward(self, x, t):
        out = self.network(x, t)
        if len(x) == self.batch:
            self.forward_passes += 1
            if out.requires_grad:
                out.register_hook(self.count_backward)
        return out

    def count_backward(self, _):
        self.backward_passes += 1


@pytest.fixture
def denoiser():
    """A Gaussian's, exact."""
    return make_gaussian(DiscreteSchedule.linear()).float().denoiser()


@pytest.fixture
def problem():
    """Halves of two images."""
    return Inpainting(seeded_noise([8, 9], SHAPE).clamp(-1, 1), half(SHAPE))


def test_our_contestants_share_one_search_and_the_paper_has_its_own_setting():
    ours = {peer.name: peer for peer in contestants.CONTESTANTS if peer.name in contestants.OURS}
    assert set(ours) == {"inexact Newton", "gradient descent", "fair Newton"}
    assert ours["inexact Newton"].search == ours["gradient descent"].search


def test_the_contest_is_between_ours_and_every_peer():
    assert set(PEERS_OF_OURS) == {*contestants.OURS, "inexact Newton, paper"}
    assert contestants.CONTESTANTS[len(PEERS_OF_OURS) :] == PEERS


@pytest.mark.parametrize("peer", PEERS_OF_OURS.values(), ids=PEERS_OF_OURS)
def test_defaults_are_as_stated_and_searched(peer):
    given = list(inspect.signature(peer.run).parameters.values())[4:]
    stated = {p.name: p.default for p in given}
    assert stated == dict(peer.defaults)
    assert all(peer.defaults[name] in values for name, values in peer.search.items())


def whole_passes(denoiser, problem, peer, steps):
    """Forward and backward passes of a run of 16 samples: a check of two is none of them."""
    recorder = WholePasses(denoiser.network, 16)
    network = Denoiser(recorder, denoiser.schedule, denoiser.prediction, denoiser.shape)
    peer.run(network, Inpainting(problem.y[:1], half(SHAPE)), range(16), steps)
    return recorder.forward_passes, recorder.backward_passes


@pytest.mark.parametrize("peer", PEERS_OF_OURS.values(), ids=PEERS_OF_OURS)
def test_forward_passes_are_as_stated(denoiser, problem, peer):
    forward, backward = whole_passes(denoiser, problem, peer, 4)
    # D once more at the last time; the paper's and the fair one have that in their price
    last = 1 if peer.name in ("inexact Newton", "gradient descent") else 0
    assert forward == 4 * peer.passes.forward + last
    assert (backward > 0) == (peer.passes.vjp > 0)


def test_backward_passes_are_as_stated(denoiser, problem):
    peer = PEERS_OF_OURS["gradient descent"]
    assert whole_passes(denoiser, problem, peer, 4)[1] == 4 * peer.passes.vjp


@pytest.mark.parametrize("peer", PEERS_OF_OURS.values(), ids=PEERS_OF_OURS)
def test_a_sample_is_its_own_and_meets_the_observation(denoiser, problem, peer):
    state = torch.get_rng_state()
    both = peer.run(denoiser, problem, [7, 8], 10)
    assert torch.equal(torch.get_rng_state(), state)
    alone = peer.run(denoiser, problem.select(slice(1, 2)), [8], 10)
    assert relative(both[1:], alone) < 1e-4
    free = PEERS[0].run(denoiser, problem, [7, 8], 10)
    assert PEERS[0].name == "DDIM"
    residual = problem.residual(both)
    assert (residual < 0.5 * problem.residual(free)).all()
    # the projection, of ours alone
    assert (float(residual.max()) < 1e-6) == (peer.name in contestants.OURS)


@pytest.mark.parametrize("name", contestants.OURS)
def test_a_noisy_observation_is_not_projected_onto(denoiser, problem, name):
    noisy = Inpainting(problem.y, problem.mask, 0.2)
    residual = noisy.residual(PEERS_OF_OURS[name].run(denoiser, noisy, [7, 8], 10))
    assert (residual > 0.01).all()


def test_ours_end_at_one_percent_of_the_way(denoiser):
    assert contestants._down(denoiser, 4) == [999, 669, 339, 9]

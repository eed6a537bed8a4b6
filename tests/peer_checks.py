"""What every peer is held to, on oracles of 12 numbers: its stated price and settings, samples that
do not depend on their batch, observations that it meets.
"""

import inspect

import torch

from jacobian_lab import DiscreteSchedule, RectifiedFlow
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import Separable
from jacobian_lab.diffusion.oracle import gaussian
from studies.contest.methods.noise_levels import even_steps, stepped
from studies.contest.methods.seeds import start_noise
from studies.contest.peers import CountedDenoiser

from conftest import SHAPE, make_gaussian

SCHEDULES = {"ddpm": DiscreteSchedule.linear(), "flow": RectifiedFlow()}
SEEDS = [7, 8, 9]
MANY = 60
"""Samples whose mean residual is compared: that of three may be half or twice that of others."""


def prior(schedule="ddpm"):
    """A Gaussian in float64 whose draws lie in [-1, 1], but for few of their numbers."""
    wide = make_gaussian(SCHEDULES[schedule])
    covariance = (wide.eigenvectors[0] * wide.eigenvalues[0]) @ wide.eigenvectors[0].T
    return gaussian(0.3 * wide.means[0], 0.09 * covariance, SCHEDULES[schedule], SHAPE)


def oracle(schedule="ddpm"):
    """Its denoiser, exact."""
    return prior(schedule).denoiser()


def truths(count=3):
    """Draws of it, (count, *SHAPE), clamped."""
    return prior().sample(count, torch.Generator().manual_seed(1)).clamp(-1, 1)


def masked(sigma=0.0, count=3):
    """Their halves."""
    return Inpainting(truths(count), half(SHAPE), sigma)


def shrunk(sigma=0.0, count=3):
    """Means over two columns of theirs."""
    rows = torch.eye(SHAPE[1], dtype=torch.float64)
    columns = torch.eye(2, dtype=torch.float64).repeat_interleave(2, 1) / 2
    return Separable(rows @ truths(count) @ columns.T, rows, columns, sigma)


def matrix(problem):
    """A, (m, n)."""
    units = torch.eye(12, dtype=torch.float64).reshape(12, *SHAPE)
    return problem.select(slice(0, 1)).forward(units).flatten(1).T


ROOT = torch.linalg.qr(
    torch.randn(12, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
)[0]


def decode(z):
    """A rotation."""
    return (z.flatten(1) @ ROOT.T).reshape(-1, *SHAPE)


def encode(x):
    """Not quite the inverse."""
    return (x.flatten(1) @ ROOT).reshape(-1, *SHAPE) + 0.1 * x.square()


def latents(problem):
    """The problem of their latents."""
    return Decoded(problem, encode, decode, "secant")


def check_settings(peer):
    """The defaults are those of the function, and among those searched."""
    given = list(inspect.signature(peer.run).parameters.values())[4:]
    assert set(peer.defaults) == {parameter.name for parameter in given}
    for name, values in peer.search.items():
        assert peer.defaults[name] in values
        assert list(values) == sorted(set(values))
    assert 1 <= len(list(peer.combinations())) <= 20


def check_price(peer, problem, schedule="ddpm", once=0, **parameters):
    """N steps cost N times what is stated, and `once`."""
    for steps in (3, 5):
        counted = CountedDenoiser(oracle(schedule), len(SEEDS))
        peer.run(counted, problem, SEEDS, steps, **{**peer.defaults, **parameters})
        found, stated = counted.passes, peer.passes
        assert found.forward == steps * stated.forward + once
        assert found.vjp == steps * stated.vjp
        assert found.jvp == steps * stated.jvp


def check_batch(peer, problem, steps=3, denoiser=None, **parameters):
    """A sample is the same alone, and the global generator is left as it was."""
    denoiser, parameters = denoiser or oracle(), {**peer.defaults, **parameters}
    state = torch.get_rng_state()
    together = peer.run(denoiser, problem, SEEDS, steps, **parameters)
    alone = peer.run(denoiser, problem.select(slice(1, 2)), SEEDS[1:2], steps, **parameters)
    assert torch.equal(torch.get_rng_state(), state)
    assert together.shape == (3, *denoiser.shape)
    assert not together.requires_grad
    assert (together[1] - alone[0]).norm() < 1e-6 * alone.norm()
    assert (together[0] - alone[0]).norm() > 0.05 * alone.norm()


def unconstrained(denoiser, steps, seeds):
    """Samples of DDIM."""
    x = start_noise(denoiser, seeds)
    for now, after in even_steps(denoiser, steps):
        x = stepped(denoiser, x, now.mean(denoiser, x), now, after, 0.0)
    return x


def check_meets(peer, problem, schedule, steps=20, share=0.3, **parameters):
    """What it makes of a problem of `MANY` samples leaves less residual than DDIM does."""
    denoiser, seeds = oracle(schedule), range(MANY)
    found = peer.run(denoiser, problem, seeds, steps, **{**peer.defaults, **parameters})
    free = problem.residual(unconstrained(denoiser, steps, seeds)).mean()
    assert found.isfinite().all()
    assert problem.residual(found).mean() < share * free


def check_contract(peer):
    """Its settings, price and batch, on what every method of linear problems takes."""
    check_settings(peer)
    check_price(peer, shrunk())
    check_batch(peer, masked(0.1))

"""PSLD: its steps are the authors'."""

import pytest
import torch

from jacobian_lab import InputError
from studies.contest.methods.noise_levels import even_steps
from studies.contest.methods.psld import PSLD, psld
from studies.contest.methods.seeds import start_noise

from peer_checks import (
    SEEDS,
    check_price,
    check_settings,
    decode,
    encode,
    latents,
    masked,
    oracle,
    shrunk,
)


def test_price_and_settings():
    check_settings(PSLD)
    check_price(PSLD, latents(shrunk()))


@pytest.mark.parametrize("problem", [masked(), shrunk()])
def test_its_steps_are_the_authors(problem):
    """A^+ A, the projection, as their A^T A."""
    denoiser, steps, omega, gamma = oracle(), 4, 0.3, 0.2
    found = psld(denoiser, latents(problem), SEEDS, steps, omega, gamma)
    z = start_noise(denoiser, SEEDS)
    for now, after in even_steps(denoiser, steps):
        leaf = z.clone().requires_grad_()
        noise = denoiser.noise(leaf, denoiser(leaf, now.time), now.time)
        clean = (leaf - now.sigma * noise) / now.alpha
        moved = after.alpha * clean + after.sigma * noise
        x = decode(clean)
        fitted = problem.pseudo_inverse(problem.y) + x - problem.pseudo_inverse(problem.forward(x))
        error = omega * (problem.forward(x) - problem.y).flatten(1).norm(dim=1)
        error = error + gamma * (encode(fitted) - clean).flatten(1).norm(dim=1)
        z = (moved - torch.autograd.grad(error.sum(), leaf)[0]).detach()
    assert torch.allclose(found, z, atol=1e-9)


def test_it_comes_nearer_to_the_observations():
    problem = shrunk()
    found, free = (
        problem.residual(decode(psld(oracle(), latents(problem), SEEDS, 100, omega, 0.01)))
        for omega in (0.3, 0.0)
    )
    assert found.mean() < 0.5 * free.mean()


def test_it_works_on_latents():
    with pytest.raises(InputError, match="PSLD works on latents: got Inpainting"):
        psld(oracle(), masked(), [0, 1, 2], 2)

r"""PSLD: DPS in latents, whose decoded image, once it fits, shall also encode to the latent it came
from.

With z_0 = D(z_t) the clean latent, x = decode(z_0) and x_fit = x + A^+ (y - A x):

    z_s = DDIM(z_0, z_t) - grad (omega |y - A x| + gamma |encode(x_fit) - z_0|), by z_t

A^+ stands for the A^T of the paper, whose A has orthonormal rows. A step is a pass of the denoiser,
forward and backward, and as much of the decoder and the encoder, which are not counted.

References
----------
Rout et al. (2023), *Solving linear inverse problems provably via posterior sampling with latent
diffusion models*, NeurIPS, arXiv 2307.00619, algorithm 2; gamma, omega and eta as in the authors'
code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.misfit import latent, linear
from studies.contest.methods.noise_levels import even_steps, stepped
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise


def psld(
    denoiser: Denoiser,
    problem: Decoded,
    seeds: Sequence[int],
    steps: int,
    omega: float = 0.1,
    gamma: float = 0.1,
    eta: float = 0.0,
) -> Tensor:
    """Return samples, latents.

    Parameters
    ----------
    omega, gamma : float
        Weights of the two gradients.
    eta : float
        Noise of DDIM.
    """
    observed = linear(latent(problem, "PSLD").constraint, "PSLD")
    z = start_noise(denoiser, seeds)
    with SeededNoise(seeds):
        for now, after in even_steps(denoiser, steps):
            with torch.enable_grad():
                leaf = z.detach().requires_grad_()
                z0 = now.mean(denoiser, leaf)
                x = problem.decode(z0)
                missing = observed.missing(x)
                glued = problem.encode(x + observed.pseudo_inverse(missing)) - z0
                loss = omega * missing.flatten(1).norm(dim=1) + gamma * glued.flatten(1).norm(dim=1)
                (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            z = stepped(denoiser, z, z0.detach(), now, after, eta) - gradient
    return z


PSLD = Peer(
    "PSLD",
    "ours",
    psld,
    {"omega": 0.1, "gamma": 0.1, "eta": 0.0},
    {"omega": (0.1, 1.0, 3.0, 10.0), "gamma": (0.01, 0.1), "eta": (0.0, 1.0)},
    Passes(1, 1),
    1000,
    "Rout et al. 2023",
)

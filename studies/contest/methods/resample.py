r"""ReSample: latents that are made to fit, now and then, and put back among the noisy ones.

With z_0 = D(z_t) the clean latent and ab = alpha^2 of a variance-preserving schedule:

    z' = DDIM(z_0, z_t) - scale ab_t grad |y - A decode(z_0)|, by z_t
    in the second and third third of the times, at each `every`-th:
        z_y = encode(argmin_x |y - A x|^2 from decode(z_0))     second third, `inner` steps of AdamW
        z_y = argmin_z |y - A decode(z)|^2 from z_0             last third
        gamma = spread (1 - ab_s) / (1 - ab_t) (1 - ab_t / ab_s)
        z_s ~ N((gamma alpha_s z_y + sigma_s^2 z') / (gamma + sigma_s^2), 1 / (1 / gamma + 1 /
              sigma_s^2))

and z_y = argmin of the last kind from the last latent. A fit stops where |y - A x|^2 is what the
noise explains. A step is a pass of the denoiser, forward and backward; those of the autoencoder are
not counted.

(1) The authors' code takes five more steps of DDIM before each fit, whose clean latent it fits;
here, as in the paper, it is that of z_t.

References
----------
Song et al. (2024), *Solving inverse problems with latent diffusion models via hard data
consistency*, ICLR, arXiv 2307.08123, algorithm 1; the gradient step, thirds, rates and spread as in
the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.diffusion.denoiser import Denoiser
from studies.contest.methods.fitting import moved_until_fit
from studies.contest.methods.misfit import latent, misfit
from studies.contest.methods.noise_levels import NoiseLevel, even_steps, stepped
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.seeds import SeededNoise, start_noise

PIXEL_RATE, LATENT_RATE, LEAST = 1e-2, 5e-3, 1e-3


def resample(
    denoiser: Denoiser,
    problem: Decoded,
    seeds: Sequence[int],
    steps: int,
    scale: float = 0.5,
    every: int = 10,
    inner: int = 500,
    spread: float = 40.0,
) -> Tensor:
    """Return samples, latents.

    Parameters
    ----------
    scale : float
        Of the gradient step.
    every, inner : int
        Times between fits, and most steps of a fit.
    spread : float
        How far the noise lets the noisy latent follow its fit.
    """
    latent(problem, "ReSample")
    z = start_noise(denoiser, seeds)
    with SeededNoise(seeds):
        for k, (now, after) in enumerate(even_steps(denoiser, steps)):
            with torch.enable_grad():
                leaf = z.detach().requires_grad_()
                z0 = now.mean(denoiser, leaf)
                (gradient,) = torch.autograd.grad(misfit(problem, z0).sqrt().sum(), leaf)
            z0 = z0.detach()
            z = stepped(denoiser, z, z0, now, after, 0.0) - scale * now.alpha**2 * gradient
            left = steps - 1 - k
            if left and left % every == 0 and 3 * k >= steps:
                z = resampled(z, _fit(problem, z0, 3 * k < 2 * steps, inner), now, after, spread)
    return _fit(problem, z, False, inner)


def resampled(z: Tensor, fit: Tensor, now: NoiseLevel, after: NoiseLevel, spread: float) -> Tensor:
    """Return z_s, given z' and z_y."""
    kept = (now.alpha * after.sigma / (after.alpha * now.sigma)) ** 2
    gamma, noise = spread * after.sigma**2 * (1 - kept), after.sigma**2
    mean = (gamma * after.alpha * fit + noise * z) / (gamma + noise)
    return mean + (gamma * noise / (gamma + noise)) ** 0.5 * torch.randn_like(z)


def _fit(problem: Decoded, z: Tensor, in_pixels: bool, inner: int) -> Tensor:
    """Return z_y; a sample that fits stays as it is."""
    kind = torch.optim.AdamW
    with torch.no_grad():
        if not in_pixels:
            return moved_until_fit(z, _same, problem, kind, LATENT_RATE, inner, least=LEAST)
        x, wanted = problem.decode(z), problem.constraint
        return problem.encode(
            moved_until_fit(x, _same, wanted, kind, PIXEL_RATE, inner, least=LEAST)
        )


def _same(x: Tensor) -> Tensor:
    return x


RESAMPLE = Peer(
    "ReSample",
    "ours",
    resample,
    {"scale": 0.5, "every": 10, "inner": 500, "spread": 40.0},
    {"scale": (0.15, 0.5, 1.5), "every": (3, 10), "spread": (4.0, 40.0)},
    Passes(1, 1),
    500,
    "Song et al. 2024",
)

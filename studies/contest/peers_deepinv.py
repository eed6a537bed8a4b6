r"""deepinv's methods on our denoiser: DPS in its annealed form, PiGDM, DiffPIR and DDRM (deepinv
0.5, Tachella et al.).

DPS and PiGDM are data-fidelity terms of its `PosteriorDiffusion`, run in the network's own range
[-1, 1] with its DDPM solver on the noise levels of our table. DiffPIR and DDRM work in [0, 1]:
there y becomes (y + A 1) / 2 and sigma its half. Left out: moment matching (from azula, its
author's), DPS with the norm of the residual (azula's is the paper's step, while here its weight has
to be in the hundreds, noisy_datafidelity.py:392), and Score-SDE and ILVR, which predate DPS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.sampling.sampler import seeded_noise
from studies.contest.methods.seeds import SeededNoise
from studies.contest.peers_simple import time_table

SMALLEST_NOISE = 0.001
"""What DiffPIR's authors take, in [0, 1], for noiseless observations."""


def deepinv() -> ModuleType:
    """Return the package, or say how to get it."""
    try:
        import deepinv
    except ImportError as error:
        raise InputError(
            'deepinv is missing: pip install "jacobian-lab[peers]" (in a checkout: pip install -e'
            ' ".[peers]")'
        ) from error
    return deepinv


def _ratios(denoiser: Denoiser) -> tuple[Tensor, Tensor]:
    """Return sigma_t / alpha_t and alpha_t for all times of the table, float64."""
    alpha, sigma = denoiser.schedule(torch.tensor(time_table(denoiser)))
    return sigma / alpha, alpha


def _model(denoiser: Denoiser) -> Any:
    """Return our denoiser as deepinv's: a noise level becomes the time of the table that is
    nearest.
    """
    ratios, alpha = _ratios(denoiser)
    times = torch.tensor(time_table(denoiser))
    return deepinv().models.ScoreModelWrapper(
        lambda x, k: denoiser(x, times[k.cpu()]),
        prediction_type="sample",
        sigma_t=ratios.float(),
        scale_t=alpha.float(),
        takes_integer_time=True,
        n_timesteps=len(alpha),
    )


def _physics(problem: LinearConstraint, sigma: float) -> Any:
    physics = deepinv().physics
    return physics.LinearPhysics(
        A=lambda x, **_: problem.forward(x),
        A_adjoint=lambda y, **_: problem.adjoint(y),
        noise_model=physics.GaussianNoise(sigma),
        implicit_backward_solver=False,
    )


def _posterior(
    denoiser: Denoiser, problem: LinearConstraint, seeds: Sequence[int], steps: int, fidelity: Any
) -> Tensor:
    """Return samples of `PosteriorDiffusion`, at our sampler's times: t = (k + 1) / T for the time
    k, 0 for the clean image.
    """
    sampling = deepinv().sampling
    ratios = torch.cat([torch.zeros(1, dtype=torch.float64), _ratios(denoiser)[0]])

    def sigma_t(t: Tensor) -> Tensor:
        return ratios[(t * (len(ratios) - 1)).round().long()]

    solver = sampling.DDPMSolver(timesteps=torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    sde = sampling.EDMDiffusionSDE(sigma_t=sigma_t, variance_preserving=True, minus_one_one=False)
    model = sampling.PosteriorDiffusion(
        fidelity, _model(denoiser), sde, solver, minus_one_one=False
    )
    y = problem.y.expand(len(seeds), *problem.y.shape[1:])
    with SeededNoise(seeds):
        found: Tensor = model(
            y,
            _physics(problem, problem.sigma),
            x_init=seeded_noise(seeds, denoiser.shape).double(),
            input_in_minus_one_one=True,
        )
    return found.to(y)


def dps_annealed(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    weight: float = 1.0,
) -> Tensor:
    """Diffusion posterior sampling as a score: the likelihood of D, its variance `sigma^2 +
    sigma_t^2 / alpha_t^2`.

    References
    ----------
    Chung et al. (2023), arXiv 2209.14687; the variance is that of Jalal et al. (2021), arXiv
    2108.01368.
    """
    fidelity = deepinv().sampling.DPSDataFidelity(
        weight=weight, clip=(-1.0, 1.0), guidance="annealed"
    )
    return _posterior(denoiser, problem, seeds, steps, fidelity)


def pigdm(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    weight: float = 1.0,
    iterations: int = 3,
) -> Tensor:
    """Pseudo-inverse guided diffusion: `weight` times `J^T A^T (r_t^2 A A^T + sigma^2)^{-1} (y - A
    D)` in the score.

    Parameters
    ----------
    iterations : int
        Most steps of conjugate gradients; they stop when all samples have converged.

    References
    ----------
    Song et al. (2023), *Pseudoinverse-guided diffusion models for inverse problems*.
    """
    fidelity = deepinv().sampling.PiGDMDataFidelity(weight=weight, cg_max_iter=iterations)
    return _posterior(denoiser, problem, seeds, steps, fidelity)


def ald(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    weight: float = 1.0,
) -> Tensor:
    """Annealed Langevin dynamics' score: the likelihood of x_t itself, its variance `sigma^2 +
    sigma_t^2 / alpha_t^2`.

    References
    ----------
    Jalal et al. (2021), *Robust compressed sensing MRI with deep generative priors*, arXiv
    2108.01368.
    """
    fidelity = deepinv().sampling.ALDDataFidelity(weight=weight)
    return _posterior(denoiser, problem, seeds, steps, fidelity)


def _unit_range(denoiser: Denoiser, problem: LinearConstraint, batch: int) -> Tensor:
    """Return the observations of images in [0, 1]."""
    return (problem.y + problem.forward(torch.ones(batch, *denoiser.shape))) / 2


def diffpir(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    lambda_: float = 7.0,
    zeta: float = 0.1,
) -> Tensor:
    """DiffPIR: a proximal step on each posterior mean, then DDIM with a share `zeta` of fresh
    noise.

    Its own times, denser at low noise, and its own start, noise around A^+ y; the last evaluation
    of the network is not used and the noise of the last time, 0.01, stays in the image
    (sampling/diffusion.py:488, 518).

    References
    ----------
    Zhu et al. (2023), *Denoising diffusion models for plug-and-play image restoration*, arXiv
    2305.08995.
    """
    package = deepinv()
    y, sigma = _unit_range(denoiser, problem, len(seeds)), max(problem.sigma / 2, SMALLEST_NOISE)
    model = package.sampling.DiffPIR(
        _model(denoiser),
        package.optim.data_fidelity.L2(),
        sigma=sigma,
        max_iter=steps,
        zeta=zeta,
        lambda_=lambda_,
    )
    known, alpha = model.sqrt_alphas_cumprod.double(), _ratios(denoiser)[1]
    if known.shape != alpha.shape or not torch.allclose(known, alpha, rtol=1e-4):
        raise InputError(f"DiffPIR knows DDPM's linear schedule only: got {denoiser.schedule!r}")
    start = (problem.pseudo_inverse(problem.y) + 1).expand(y.shape[0], *denoiser.shape) / 2
    with SeededNoise(seeds):
        found: Tensor = model(y, _physics(problem, sigma), x_init=start)
    return 2 * found - 1


def _decomposed(problem: LinearConstraint, shape: tuple[int, ...], batch: int, sigma: float) -> Any:
    """Return A by its dense singular value decomposition, as deepinv's DecomposablePhysics; spectra
    are (B, n), padded.
    """
    n = math.prod(shape)
    # (m, n)
    A = problem.select(slice(0, 1)).forward(torch.eye(n).reshape(n, *shape)).flatten(1).double().T
    probe = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    if not torch.allclose(
        problem.forward(probe).flatten(1), probe.flatten(1) @ A.float().T, atol=1e-4
    ):
        raise InputError("DDRM needs one operator for all samples: give it the problems one by one")
    U, singular, Vh = (part.float() for part in torch.linalg.svd(A, full_matrices=True))
    # DDRM takes what is above sigma, even 0, as observed
    singular = torch.where(singular > 1e-6 * singular[0], singular, 0)
    pad = n - len(A)
    observed = problem.y.shape[1:]
    physics = deepinv().physics
    return physics.DecomposablePhysics(
        U=lambda u: (u[:, : len(A)] @ U.T).unflatten(1, observed),
        U_adjoint=lambda y: F.pad(y.flatten(1) @ U, (0, pad)),
        V=lambda v: (v @ Vh).unflatten(1, shape),
        V_adjoint=lambda x: x.flatten(1) @ Vh.T,
        mask=F.pad(singular, (0, n - len(singular)))[None],
        noise_model=physics.GaussianNoise(sigma),
    )


def ddrm(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    eta: float = 0.85,
    etab: float = 1.0,
) -> Tensor:
    """Denoising diffusion restoration: each singular direction of A by itself, at the noise levels
    of our table.

    Its own start, noise around A^+ y. deepinv divides all fresh noise by sqrt(2), while the network
    is told the full level (sampling/diffusion.py:195, 226); it is left as it is, since images are
    no better without.

    Parameters
    ----------
    eta, etab : float
        Share of fresh noise where nothing is observed, and weight of the observation where it is.

    References
    ----------
    Kawar et al. (2022), *Denoising diffusion restoration models*, arXiv 2201.11793.
    """
    # deepinv takes one operator for all
    if isinstance(problem, Inpainting) and (problem.mask != problem.mask[:1]).any():
        return torch.cat(
            [
                ddrm(denoiser, problem.select(slice(i, i + 1)), seeds[i : i + 1], steps, eta, etab)
                for i in range(len(seeds))
            ]
        )
    y = _unit_range(denoiser, problem, len(seeds))
    ratios, _ = _ratios(denoiser)
    count = len(ratios)
    sigmas = [float(ratios[round(count * (1 - i / steps)) - 1]) / 2 for i in range(steps)]
    sampler = deepinv().sampling.DDRM(_model(denoiser), sigmas, eta, etab)
    with SeededNoise(seeds):
        found: Tensor = sampler(
            y, _decomposed(problem, denoiser.shape, len(seeds), problem.sigma / 2)
        )
    return 2 * found - 1

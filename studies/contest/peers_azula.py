r"""Azula's methods on our denoiser: DPS, MMPS, TMPD, JFPS, TDS and RePaint (azula 0.11, Rozet et
al.).

Azula asks for `schedule(t) -> (alpha_t, sigma_t)` and `denoiser(x_t, t).mean` with t in [0, 1]:
here `t = (k + 1) / T` for the k-th of our table's T times, so that its evenly spaced times are
those of our sampler and t = 0 is the clean image. Its solvers take a dot product over the last
axis, so that images are flattened, (B, n). Left out: PGDM, which ignores sigma, and DiffPIR, whose
schedule is not that of its authors (both from deepinv instead).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.sampling.sampler import seed_of, seeded_noise
from studies.contest.methods.misfit import missing, noise_of
from studies.contest.methods.seeds import SeededNoise
from studies.contest.peers_simple import time_table

SMALLEST_NOISE = 0.002
"""Of noiseless observations where a method divides by it: what DiffPIR's authors take."""


def azula() -> ModuleType:
    """Return the package, or say how to get it."""
    try:
        import azula
        import azula.guidance
        import azula.linalg.covariance
        import azula.sample
    except ImportError as error:
        raise InputError(
            'azula is missing: pip install "jacobian-lab[peers]" (in a checkout: pip install -e'
            ' ".[peers]")'
        ) from error
    return azula


class Adapted:
    """Our denoiser as azula's: flat images, times in [0, 1]."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.table = denoiser, time_table(denoiser)

    def time(self, t: Tensor) -> int | float | None:
        """Return the time of our table, None for the clean image."""
        k = round(float(t) * len(self.table))
        return self.table[k - 1] if k else None

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha_t, sigma_t), float64, shape ()."""
        time = self.time(t)
        if time is None:
            return torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        return self.denoiser.schedule(time)

    def __call__(self, x_t: Tensor, t: Tensor) -> SimpleNamespace:
        """Return the posterior, of which azula reads the `mean`, (B, n)."""
        return SimpleNamespace(
            mean=self.denoiser(x_t.reshape(-1, *self.denoiser.shape), self.time(t)).flatten(1)
        )


def _observation(
    denoiser: Denoiser, problem: Constraint, batch: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return y, (B, m), and A on flat images, (B, n) -> (B, m); where A is not linear, 0 and A x -
    y.
    """
    if not isinstance(problem, LinearConstraint):

        def off(x: Tensor) -> Tensor:
            return -missing(problem, x.reshape(-1, *denoiser.shape)).reshape(batch, -1)

        with torch.no_grad():
            return torch.zeros_like(off(seeded_noise([0] * batch, denoiser.shape))), off
    return (
        problem.y.expand(batch, *problem.y.shape[1:]).flatten(1),
        lambda x: problem.forward(x.reshape(-1, *denoiser.shape)).flatten(1),
    )


def _of_images(problem: Constraint, method: str) -> Constraint:
    """Return the problem, or raise if it is one of decoded latents."""
    if isinstance(problem, Decoded):
        raise InputError(f"{method} is wired for images: of latents DPS is")
    return problem


def _variance(problem: Constraint) -> float:
    return noise_of(problem, SMALLEST_NOISE) ** 2


def _run(sampler: Any, denoiser: Denoiser, seeds: Sequence[int]) -> Tensor:
    with SeededNoise(seeds), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, at the first torch.func.jvp
        found: Tensor = sampler(seeded_noise(seeds, denoiser.shape).flatten(1))
    return found.reshape(-1, *denoiser.shape)


def _ddim(guided: Any, denoiser: Denoiser, seeds: Sequence[int], steps: int, eta: float) -> Tensor:
    sampler = azula().sample.DDIMSampler(guided, eta, steps=steps, silent=True, dtype=torch.float64)
    return _run(sampler, denoiser, seeds)


def dps(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    zeta: float = 1.0,
) -> Tensor:
    """Diffusion posterior sampling: an ancestral step, then `zeta` times the gradient of |y - A
    D(x_t)| in x_t.

    azula takes the norm over the whole batch (guidance/dps.py:66), which ties the samples together.
    Its step reads `zeta` after it has applied A, so that A sets it, for each sample, to what makes
    the norm the sample's own.

    References
    ----------
    Chung et al. (2023), *Diffusion posterior sampling for general noisy inverse problems*, arXiv
    2209.14687, algorithm 1.
    """
    y, forward = _observation(denoiser, problem, len(seeds))

    def observe(x: Tensor) -> Tensor:
        seen = forward(x)
        size = (y - seen).detach().norm(dim=1, keepdim=True)
        sampler.zeta = zeta * size.norm() / size.clamp(min=1e-12)
        return seen

    sampler = azula().guidance.DPSSampler(
        Adapted(denoiser), y, observe, zeta, steps=steps, silent=True, dtype=torch.float64
    )
    return _run(sampler, denoiser, seeds)


def mmps(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    iterations: int = 1,
    eta: float = 0.0,
) -> Tensor:
    """Moment matching posterior sampling: the posterior mean for the covariance `sigma_t^2 /
    alpha_t J`, by GMRES.

    Parameters
    ----------
    iterations : int
        Steps of GMRES, a backward pass each.
    eta : float
        Noise of the sampler; azula's eta is the square of DDIM's (sample.py:253).

    References
    ----------
    Rozet et al. (2024), *Learning diffusion priors from observations by expectation maximization*,
    arXiv 2405.13712.
    """
    y, forward = _observation(denoiser, _of_images(problem, "MMPS"), len(seeds))
    package = azula()
    covariance = package.linalg.covariance.IsotropicCovariance(_variance(problem))
    guided = package.guidance.MMPSDenoiser(
        Adapted(denoiser), y, forward, covariance, iterations=iterations
    )
    return _ddim(guided, denoiser, seeds, steps, eta)


def tmpd(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    eta: float = 0.0,
) -> Tensor:
    """Tweedie moment projected diffusion: as MMPS, the covariance of A x replaced by its row sums.

    The row sums of a trained network's `A J A^T` may be negative, and nothing bounds them from
    below (guidance/tmpd.py:69).

    References
    ----------
    Boys et al. (2024), *Tweedie moment projected diffusions for inverse problems*, arXiv
    2310.06721.
    """
    y, forward = _observation(denoiser, problem, len(seeds))
    package = azula()
    guided = package.guidance.TMPDenoiser(Adapted(denoiser), y, forward, _variance(problem))
    return _ddim(guided, denoiser, seeds, steps, eta)


def jfps(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    variance: float = 1.0,
    iterations: int = 1,
    eta: float = 0.0,
) -> Tensor:
    """Jacobian-free posterior sampling, of which azula names no paper: MMPS with the covariance `(1
    / variance + alpha_t^2 / sigma_t^2)^{-1}` in place of J's, by conjugate gradients.

    Parameters
    ----------
    variance : float
        Of clean images, each pixel by itself.
    iterations : int
        Steps of conjugate gradients, without a pass of the network.
    eta : float
        Noise of the sampler; see `mmps`.
    """
    y, forward = _observation(denoiser, _of_images(problem, "JFPS"), len(seeds))
    package = azula()
    isotropic = package.linalg.covariance.IsotropicCovariance
    guided = package.guidance.JFPSDenoiser(
        Adapted(denoiser),
        y,
        forward,
        isotropic(_variance(problem)),
        isotropic(variance),
        iterations=iterations,
    )
    return _ddim(guided, denoiser, seeds, steps, eta)


def tds(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    particles: int = 8,
    variance: float = 1.0,
) -> Tensor:
    """Twisted diffusion sampling: particles that follow the gradient of log p(y | D) in x_t and are
    drawn anew, by what that leaves out, at each step.

    Each sample has particles of its own, a forward and a backward pass each, of which the first is
    handed out.

    Parameters
    ----------
    particles : int
        Of each sample.
    variance : float
        Of clean images, v; then `log p(y | D) = -|y - A D|^2 / (2 (sigma^2 + v r^2 / (v + r^2)))`
        with `r = sigma_t / alpha_t`.

    References
    ----------
    Wu et al. (2023), *Practical and asymptotically exact conditional sampling in diffusion models*,
    NeurIPS, arXiv 2306.17775.
    """
    found, whole = [], cast(Any, _of_images(problem, "TDS"))
    for i, seed in enumerate(seeds):
        alone = whole.select(slice(i, i + 1))
        y, forward = _observation(denoiser, alone, particles)

        def twist(
            x: Tensor, ratio: Tensor, y: Tensor = y, see: Callable[[Tensor], Tensor] = forward
        ) -> Tensor:
            spread = noise_of(problem) ** 2 + variance * ratio**2 / (variance + ratio**2)
            return -(y - see(x)).square().sum(1) / (2 * spread.to(x))

        sampler = azula().guidance.TDSSampler(
            Adapted(denoiser), twist, steps=steps, silent=True, dtype=torch.float64
        )
        drawn = _run(sampler, denoiser, [seed_of(seed, 2, k) for k in range(particles)])
        found.append(drawn[:1])
    return torch.cat(found)


def repaint(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    iterations: int = 3,
    eta: float = 0.0,
) -> Tensor:
    """RePaint: known pixels are replaced by noisy observations, each step taken `iterations` times,
    there and back.

    Masks only; it takes the observations as noiseless.

    References
    ----------
    Lugmayr et al. (2022), *RePaint: inpainting using denoising diffusion probabilistic models*,
    arXiv 2201.09865.
    """
    if not isinstance(problem, Inpainting):
        raise InputError(f"RePaint knows masks only: got {type(problem).__name__}")
    y, _ = _observation(denoiser, problem, len(seeds))
    mask = problem.mask.expand(len(seeds), *denoiser.shape).flatten(1)
    sampler = azula().guidance.RePaintSampler(
        Adapted(denoiser),
        y,
        mask,
        iterations,
        eta=eta,
        steps=steps,
        silent=True,
        dtype=torch.float64,
    )
    return _run(sampler, denoiser, seeds)

r"""What all peers share, and the methods that are a few lines on a `Denoiser`: DDIM alone, MPGD and
DDNM.

A run is `run(denoiser, problem, seeds, steps, **parameters) -> images`: a linear problem `y = A x +
sigma noise` of B samples in, as many estimates out, (B, C, H, W), in [-1, 1] but not clamped. Each
sample has its own seed, for the noise that it starts from and for all that is added on the way, so
that a run does not depend on its batch (`SeededNoise`). Times are those of our sampler,
`denoiser.schedule.times(steps)`, the last step leading to the clean image, with one exception,
DiffPIR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import DiscreteSchedule
from jacobian_lab.errors import InputError
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise


class SeededNoise(TorchFunctionMode):
    """Inside, `torch.randn_like` and `Tensor.normal_` draw each sample from its own seed, whoever
    calls them.

    The libraries draw a batch from PyTorch's global generator; this leaves that alone and makes
    their samples independent of each other. It follows `seeded_noise(seeds)`, which the runs start
    from, without repeating it.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed_of(seed, 1)) for seed in seeds]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Draw in place of the two functions; call any other."""
        if func is torch.randn_like:
            return self._draw(args[0])
        if func is torch.Tensor.normal_:
            return args[0].copy_(self._draw(args[0]))
        return func(*args, **(kwargs or {}))

    def _draw(self, like: Tensor) -> Tensor:
        if len(like) != len(self.generators):
            raise InputError(
                f"noise for a batch of {len(like)} was asked for, and there are"
                f" {len(self.generators)} seeds"
            )
        return torch.stack(
            [torch.randn(like.shape[1:], generator=generator) for generator in self.generators]
        ).to(like)


def unconstrained(
    denoiser: Denoiser, _: LinearConstraint, seeds: Sequence[int], steps: int
) -> Tensor:
    """Return samples of DDIM that have not heard of the problem: what every method has to improve
    on.
    """
    *_states, last = sample(
        denoiser, seeded_noise(seeds, denoiser.shape), denoiser.schedule.times(steps)
    )
    return last.x0


def table(denoiser: Denoiser) -> DiscreteSchedule:
    """Return the schedule, which the libraries need to be a table over training times."""
    if not isinstance(denoiser.schedule, DiscreteSchedule):
        raise InputError(f"the peers need a discrete schedule: got {denoiser.schedule!r}")
    return denoiser.schedule


def levels(
    denoiser: Denoiser, steps: int
) -> list[tuple[int, tuple[float, float], tuple[float, float]]]:
    """Return each time with (alpha, sigma) there and at the time that follows: after the last, the
    clean image, (1, 0).
    """
    schedule = table(denoiser)
    times = schedule.times(steps)
    found = [(float(alpha), float(sigma)) for alpha, sigma in map(schedule, times)]
    return list(zip(times, found, [*found[1:], (1.0, 0.0)], strict=True))


@torch.no_grad()
def mpgd(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    scale: float = 7.5,
    eta: float = 0.5,
) -> Tensor:
    r"""Manifold preserving guided diffusion, without an autoencoder: DPS whose gradient stops at
    the clean image.

        x_0 = clamp(D(x_t)),   x_s = DDIM(x_0, x_t) - scale grad |y - A x_0|, by x_0

    Parameters
    ----------
    scale : float
        The authors take 17.5, 7.5, 4 for 20, 50, 100 steps, on 3 x 256 x 256 pixels; |y - A x_0|
        grows with the root of the number of observations, and the scale with it.
    eta : float
        Noise of DDIM.

    References
    ----------
    He et al. (2024), *Manifold preserving guided diffusion*, arXiv 2311.16424, as in the authors'
    linear_inv, mpgd_wo_proj.
    """
    x = seeded_noise(seeds, denoiser.shape)
    with SeededNoise(seeds):
        for t, (alpha_t, sigma_t), (alpha_s, sigma_s) in levels(denoiser, steps):
            x0 = denoiser(x, t).clamp(-1, 1)
            noise, missing = denoiser.noise(x, x0, t), problem.missing(x0)
            size = (
                missing.flatten(1)
                .norm(dim=1)
                .clamp(min=torch.finfo(x.dtype).tiny)
                .reshape(-1, 1, 1, 1)
            )
            fresh = eta * sigma_s / sigma_t * (1 - (alpha_t / alpha_s) ** 2) ** 0.5
            x = alpha_s * x0 + (sigma_s**2 - fresh**2) ** 0.5 * noise + fresh * torch.randn_like(x)
            x = x + scale * problem.adjoint(missing) / size
    return x


@torch.no_grad()
def ddnm(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    eta: float = 0.85,
) -> Tensor:
    r"""Denoising diffusion null-space model, in its variant for noise with one weight for all of
    the range (DDNM+).

        x_0 = D + lambda A^+ (y - A D),   x_s = alpha_s x_0 + gamma (eta z + sqrt(1 - eta^2) noise)

    with `lambda = min(1, sigma_s / (alpha_s sigma_y))` and `gamma^2 = sigma_s^2 - (alpha_s lambda
    sigma_y)^2`, sigma_y being the noise of `A^+ y` in a pixel; without noise lambda is 1 and y is
    met exactly.

    Parameters
    ----------
    eta : float
        Share of fresh noise z; 0.85 is the authors'.

    References
    ----------
    Wang, Yu, Zhang (2023), *Zero-shot image restoration using denoising diffusion null-space
    model*, arXiv 2212.00490, eqs. 13 and 17-19, in DDIM's form as in the authors' code; there
    sigma_y is the noise of y, since A^+ keeps its size.
    """
    x = seeded_noise(seeds, denoiser.shape)
    sigma_y = problem.sigma * _gain(problem, len(seeds))
    with SeededNoise(seeds):
        for t, _, (alpha_s, sigma_s) in levels(denoiser, steps):
            D = denoiser(x, t)
            noise = denoiser.noise(x, D, t)
            weight = (
                (sigma_s / (alpha_s * sigma_y)).clamp(max=1) if problem.sigma else torch.ones(())
            )
            gamma = (sigma_s**2 - (alpha_s * weight * sigma_y) ** 2).clamp(min=0).sqrt()
            x0 = D + weight * problem.pseudo_inverse(problem.missing(D))
            x = alpha_s * x0 + gamma * (eta * torch.randn_like(x) + (1 - eta**2) ** 0.5 * noise)
    return x


def _gain(problem: LinearConstraint, batch: int) -> Tensor:
    """Return by how much A^+ amplifies noise in the range of A, (B, 1, 1, 1): 1 for a mask."""
    probe = torch.randn(problem.y.shape[1:], generator=torch.Generator().manual_seed(0)).expand(
        batch, *problem.y.shape[1:]
    )
    image = problem.pseudo_inverse(probe)
    return (image.flatten(1).norm(dim=1) / problem.forward(image).flatten(1).norm(dim=1)).reshape(
        -1, 1, 1, 1
    )

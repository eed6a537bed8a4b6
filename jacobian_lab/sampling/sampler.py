r"""Sampling as a generator of states: from noise to data along a decreasing list of times, with a
constraint or without.

With D the posterior mean, one DDIM step from t to s < t keeps the noise that D implies and changes
its amount:

    x_s = alpha_s D + (sigma_s / sigma_t) (x_t - alpha_t D)

On a rectified flow this is Euler's method. The last step goes to the clean sample, `x = D`. A
constraint on D is met by Newton steps on x_t, at each time before that step: with J e as a finite
difference n steps cost 2 n + 1 forward passes a time, or 2 n if the step to s takes the last D that
is at hand (`Newton.refresh`).

References
----------
Song, Meng, Ermon (2021), *Denoising diffusion implicit models*, eq. 12, 16; Graikos, Jojic, Samaras
(2025), *Fast constrained sampling in pre-trained diffusion models*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.errors import InputError
from jacobian_lab.linops.spent import Spent
from jacobian_lab.sampling.batch import Batch
from jacobian_lab.sampling.newton import Newton


@dataclass(frozen=True)
class State:
    """Where the sampler is: before Newton step `step` at time `t`; after the last step of a time
    the DDIM step follows.
    """

    t: int | float
    step: int
    """Newton steps taken at this time."""
    x_t: Tensor
    """The noisy samples, (B, *shape); the sampler goes on with them, as with x0."""
    x0: Tensor
    """Their posterior means, given y too if the aim is fair; of the last state of all, the
    samples.
    """
    residual: Tensor | None
    """The constraint's residual of each x0, (B,); None without a constraint. Of a sample that
    diverges, the one at which it did, and then NaN.
    """
    spent: Spent
    """What was computed so far, the mean over the samples that are alive."""
    alive: Tensor
    """Whether a sample is on its way, (B,) of bool; one that diverged is NaN from then on."""
    unsolved: Tensor | None = None
    """Of fair samples, (B,): how much of the equation for x0 the Krylov steps left unsolved, from 0
    to 1. Where it is large at late times, take more: `Newton.fair(krylov_steps)`.
    """


def seed_of(*numbers: int) -> int:
    """Return a seed that mixes the numbers (at least 0), so that neighbours share nothing: (seed,
    step), (seed, digit). Zeros at the end do not count: (5,) and (5, 0) are one seed.
    """
    numbers = tuple(_require.integer("a number of a seed", number, 0) for number in numbers)
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded_noise(
    seeds: Sequence[int],
    shape: Shape,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return standard normal noise, (B, *shape), each sample from its own seed.

    It is drawn on the CPU in float32 and moved: a seed means the same on every device, in every
    precision and every batch.

    Parameters
    ----------
    seeds : sequence of int
        One for each sample, from 0 to 2^63 - 1.
    shape : tuple of int
        Shape of a sample.
    device, dtype
        Where it is moved.
    """
    _require.sizes("shape", shape)
    numbers = _seeds(seeds)
    _require.device(device)
    _require.precision(dtype)
    samples = [
        torch.randn(
            shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu"
        )
        for seed in numbers
    ]
    return torch.stack(samples).to(device, dtype)


def _seeds(seeds: Sequence[int]) -> list[int]:
    found = [_require.seed(seed) for seed in _require.sequence("seeds", seeds)]
    if not found:
        raise InputError("seeds must be one or more, one for each sample: got none")
    return found


def sample(
    denoiser: Denoiser,
    noise: Tensor,
    times: Sequence[int] | Sequence[float],
    constraint: Constraint | None = None,
    newton: Newton | None = None,
    *,
    eta: float = 0.0,
    temperature: float = 1.0,
    seeds: Sequence[int] | None = None,
    project: bool = False,
) -> Iterator[State]:
    """Yield a state for each D(x_t) on the way; the `x0` of the last one is the sample.

    A sample that diverges is dropped, with a warning, and the others go on. One whose constraint is
    met to `Newton.tolerance` rests until the next time, and costs no passes.

    Parameters
    ----------
    denoiser : Denoiser
    noise : Tensor, shape (B, *shape)
        Standard normal; see `seeded_noise`. It is scaled by `sqrt(alpha^2 + sigma^2)` at the first
        time, so as to have the variance of x_t for data of unit variance; the mean of the data,
        times alpha, is left out.
    times : sequence
        Decreasing; `denoiser.schedule.times(steps)` spaces them evenly.
    constraint : Constraint, optional
        What is wanted of the samples; samples do not influence each other.
    newton : Newton, optional
        Direction, number and size of the steps towards the constraint; by default 5 inexact ones at
        each time. `Newton.fair()` draws from p(x_0 | y), y a linear observation.
    eta : float
        Share of fresh noise in each step, from 0 (DDIM) to 1 (DDPM's ancestral sampling).
    temperature : float
        Factor of all noise, the first and the fresh, from 0 to 1. With 1, samples are drawn; below,
        they gather where they are likely. Where D is affine, as for a Gaussian prior, deviations
        from the mean shrink by this factor: the density is raised to the power 1 / temperature^2.
    seeds : sequence of int, optional
        For eta > 0: the seed of each sample's fresh noise.
    project : bool
        Move the last x0 to the nearest images that fulfil the constraint; see `Constraint.project`.

    Raises
    ------
    InputError
        If times do not decrease, or eta wants seeds; if the network is in training mode, returns
        something else at each call, couples the samples of a batch, or is changed between two
        states.
    DivergenceError
        If x_t of every sample grows out of all bounds, or is not finite; its `trace` has the
        residuals so far.

    Warns
    -----
    ConvergenceWarning
        If that happens to some of the samples.
    """
    _check(denoiser, noise, constraint, newton, project)
    times = _checked_times(denoiser, times)
    eta = _require.real("eta", eta, "[0, 1]")
    temperature = _require.real("temperature", temperature, "[0, 1]")
    if eta and (seeds is None or len(_seeds(seeds)) != len(noise)):
        raise InputError(
            f"eta > 0 draws fresh noise: expected {len(noise)} seeds, one for each sample, got "
            f"{'none' if seeds is None else len(seeds)}"
        )
    newton = newton or Newton()
    return _states(denoiser, noise, times, constraint, newton, eta, temperature, seeds, project)


@torch.no_grad()
def _states(
    denoiser: Denoiser,
    noise: Tensor,
    times: list[int] | list[float],
    constraint: Constraint | None,
    newton: Newton,
    eta: float,
    temperature: float,
    seeds: Sequence[int] | None,
    project: bool,
) -> Iterator[State]:
    steps = newton.steps if constraint is not None else 0
    x_t = temperature * noise * float(denoiser.schedule.scale(times[0]))
    batch = Batch(denoiser, x_t, times[0], constraint, newton)
    for i, (t, s) in enumerate(zip(times, [*times[1:], None], strict=True)):
        progress = i / max(1, len(times) - 1)
        skips = steps > 0 and s is not None and not newton.refresh
        for step in range(steps if skips else steps + 1):
            batch.evaluate(step == steps, project and s is None and step == steps)
            state = State(
                t,
                step,
                batch.x_t,
                batch.x0,
                batch.residual,
                batch.spent,
                batch.alive,
                batch.unsolved,
            )
            before = _versions(state)
            yield state
            if _versions(state) != before:
                raise InputError("x_t or x0 of a state was written into: clone it first")
            if step < steps:
                batch.step(progress)
        if s is not None:
            fresh = None
            if eta and seeds is not None:
                numbers = [seed_of(seed, i) for seed in seeds]
                fresh = temperature * seeded_noise(numbers, denoiser.shape, x_t.device, x_t.dtype)
            batch.arrive(s, ddim_step(denoiser, batch.x_t, batch.x0, t, s, eta, fresh))


def _versions(state: State) -> list[int]:
    """Return how often x_t and x0 were written into, as far as PyTorch counts it."""
    return [x._version for x in (state.x_t, state.x0) if not x.is_inference()]


def ddim_step(
    denoiser: Denoiser,
    x_t: Tensor,
    x0: Tensor,
    t: int | float,
    s: int | float,
    eta: float = 0.0,
    fresh: Tensor | None = None,
) -> Tensor:
    r"""Return `x_s = alpha_s x0 + sqrt(sigma_s^2 - d^2) noise(x_t, x0) + d fresh`.

    `d = eta sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)`: for eta = 1 the standard
    deviation of x_s given x_t and x0, for every schedule.

    Parameters
    ----------
    denoiser : Denoiser
        Its schedule is used.
    x_t, x0 : Tensor, shape (B, *shape)
        The noisy samples at t, and the clean ones that are estimated.
    t, s : int or float
        The present time and the next, s < t.
    eta : float
        Share of fresh noise, from 0 to 1.
    fresh : Tensor, shape (B, *shape), optional
        Standard normal, times the temperature; without it the share eta is left out.
    """
    x_t, x0 = (_require.tensor(name, given) for name, given in (("x_t", x_t), ("x0", x0)))
    eta = _require.real("eta", eta, "[0, 1]")
    if fresh is not None:
        _require.tensor("fresh", fresh, x_t.shape)
    _checked_times(denoiser, [t, s])
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (float(c) for c in denoiser.schedule(time)) for time in (t, s)
    )
    if not sigma_t:  # x_t is clean, and so is x_s
        return alpha_s * x0
    d = eta * sigma_s * max(0.0, 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2) ** 0.5
    x_s = alpha_s * x0 + (sigma_s**2 - d**2) ** 0.5 * denoiser.noise(x_t, x0, t)
    return x_s if fresh is None else x_s + d * fresh


def _check(
    denoiser: Denoiser,
    noise: Tensor,
    constraint: Constraint | None,
    newton: Newton | None,
    project: bool,
) -> None:
    _require.instance(
        "denoiser",
        denoiser,
        Denoiser,
        "; make one by Denoiser(network, schedule, prediction, shape)",
    )
    if _require.tensor("noise", noise).ndim != 1 + len(denoiser.shape):
        raise InputError(
            f"noise has shape {tuple(noise.shape)}: expected (B,"
            f" {', '.join(map(str, denoiser.shape))})"
        )
    _require.finite("the noise", denoiser.batched(noise))
    for name, given, kind in (("constraint", constraint, Constraint), ("newton", newton, Newton)):
        if given is not None:
            _require.instance(name, given, kind)
    if newton is not None and newton.aim == "fair" and constraint is not None:
        _require.instance("the constraint of fair samples", constraint, LinearConstraint)
    if _require.flag("project", project) and constraint is not None:
        constraint.project(noise)  # refuses now, not once all is sampled
    elif constraint is None and (project or newton is not None):
        raise InputError("Newton steps and the projection are towards a constraint: got none")


def _checked_times(denoiser: Denoiser, times: Sequence[Any]) -> list[Any]:
    """Return times of the schedule as Python's numbers, or raise unless they are single ones that
    fall.
    """
    found = _require.sequence("times", times)
    if any(denoiser.schedule.time_tensor(t).ndim for t in found):
        raise InputError(f"times must be numbers: got {_require.shown(times)}")
    found = [t.item() if isinstance(t, Tensor | np.generic) else t for t in found]
    if not found or any(s >= t for t, s in pairwise(found)):
        raise InputError(
            f"times must decrease: got {found}; denoiser.schedule.times(steps) makes such a list"
        )
    return found

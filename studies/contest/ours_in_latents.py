r"""Our sampler as contestants in latents: the error of the decoded image reaches the latent by
VAE-Newton or by back-propagation, or, for masks, known latents stand for known pixels.

    inexact Newton, VAE        J_E e, a difference of the encoder: no graph
    inexact Newton, decoder    s J_D^T e, back through the decoder, line search
    inexact Newton, known      latents are known where all their pixels are

The Newton step of the denoiser is inexact in all of them; see `jacobian_lab.constraints.decoded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from jacobian_lab import Denoiser, InputError
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.decoded import Decoded, Form, latent_inpainting
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Secant
from studies.contest.peers import Passes, Peer


def vae_newton(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    change: float = 0.2,
    newton_steps: int = 5,
) -> Tensor:
    """Return latents by VAE-Newton.

    Parameters
    ----------
    change : float
        Most that a Newton step changes a number of a noisy latent.
    newton_steps : int
        At each time.
    """
    return _sampled(denoiser, _by(problem, "secant"), seeds, steps, change, newton_steps)


def through_the_decoder(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    change: float = 0.2,
    newton_steps: int = 5,
) -> Tensor:
    """Return latents by back-propagation through the decoder; parameters as in `vae_newton`."""
    return _sampled(denoiser, _by(problem, "backprop"), seeds, steps, change, newton_steps)


def known_latents(
    denoiser: Denoiser,
    problem: Constraint,
    seeds: Sequence[int],
    steps: int,
    change: float = 0.2,
    newton_steps: int = 5,
) -> Tensor:
    """Return latents that are those of the known pixels; parameters as in `vae_newton`."""
    inner = _decoded(problem).constraint
    if not isinstance(inner, Inpainting):
        raise InputError(f"known latents are for masks only: got {type(inner).__name__}")
    wanted = latent_inpainting(inner.y, inner.mask, _decoded(problem).encode)
    return _sampled(denoiser, wanted, seeds, steps, change, newton_steps)


def _decoded(problem: Constraint) -> Decoded:
    if not isinstance(problem, Decoded):
        raise InputError(f"this method is for latents: got {type(problem).__name__}, not Decoded")
    return problem


def _by(problem: Constraint, form: Form) -> Decoded:
    given = _decoded(problem)
    return Decoded(given.constraint, given.encode, given.decode, form)


def _sampled(
    denoiser: Denoiser,
    wanted: Constraint,
    seeds: Sequence[int],
    steps: int,
    change: float,
    newton_steps: int,
) -> Tensor:
    """Return the samples of inexact Newton with fresh noise, down to 1 % of the way."""
    schedule = denoiser.schedule
    times = schedule.times(steps, schedule.times(100)[-1])
    newton = Newton("inexact", newton_steps, Secant(change))
    noise = seeded_noise(seeds, denoiser.shape)
    *_, last = sample(denoiser, noise, times, wanted, newton, eta=1.0, seeds=seeds)
    return last.x0


_peer = partial(
    Peer,
    library="jacobian-lab",
    defaults={"change": 0.2, "newton_steps": 5},
    search={"change": (0.1, 0.2, 0.4, 0.8), "newton_steps": (1, 2, 5)},
    passes=Passes(11),
    steps=20,
    cite="this project",
)
IN_LATENTS = (
    _peer(name="inexact Newton, VAE", run=vae_newton),
    _peer(name="inexact Newton, decoder", run=through_the_decoder),
    _peer(name="inexact Newton, known", run=known_latents),
)

r"""Our sampler as contestants, in the form of the peers: run(denoiser, problem, seeds, steps,
**parameters) -> images.

    inexact Newton, paper   20 times x 5 steps, lambda = c / max |J e|, DDIM: 2 n + 1 passes a time
    inexact Newton          fewer steps at more times, a step that brakes, fresh noise, less
                            noise than the schedule's, exact projection: 2 n passes a time
    gradient descent        the same with J^T e in place of J e: n passes and n backward passes
    fair Newton             D conditioned on y by k products of GMRES, `Newton.fair`, all of the
                            schedule's noise: 1 + k passes a time; the only one that aims at
                            samples of p(x_0 | y) in place of likely ones

On noisy blur their error e is `jacobian_lab.constraints.separable.Wiener`'s. With a damping of
sigma^2 throughout, late steps amplify the noise: on 60 digits of the search, at about 50 and 100
passes, PSNR is 1 to 2 dB lower for `inexact Newton`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from jacobian_lab import Denoiser
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, PerError, Secant
from mnist.problems import Measured, Quantised
from studies.contest.peers import PEERS, Passes, Peer

Observed: TypeAlias = LinearConstraint | Quantised | Measured
"""What our sampler takes in pixels: observations that may have noise."""


def paper(
    denoiser: Denoiser, problem: Observed, seeds: Sequence[int], steps: int, c: float = 0.2
) -> Tensor:
    """Return samples by the algorithm of Graikos, Jojic and Samaras: 5 inexact steps at each time,
    constant c, no noise.
    """
    newton = Newton("inexact", 5, Dynamic(c))
    return _sampled(denoiser, problem, seeds, denoiser.schedule.times(steps), newton, eta=0.0)


def inexact(
    denoiser: Denoiser,
    problem: Observed,
    seeds: Sequence[int],
    steps: int,
    travel: float = 20.0,
    newton_steps: int = 1,
    temperature: float = 0.5,
    per_error: int = 0,
) -> Tensor:
    """Return samples by inexact Newton with a step that brakes, fresh noise, and the projection
    where y has no noise.

    `travel` is the way that all steps together may take a pixel of x_t: what suits does not depend
    on their number. With `per_error` it is the way of x_t as a whole, ten times as long, where J
    passes all of e, and less where it does not.
    """
    size = travel / (steps * newton_steps)
    rule = PerError(10 * size) if per_error else Secant(size)
    newton = Newton("inexact", newton_steps, rule, refresh=False)
    times = _down(denoiser, steps)
    return _sampled(denoiser, problem, seeds, times, newton, temperature=temperature, project=True)


def gradient(
    denoiser: Denoiser,
    problem: Observed,
    seeds: Sequence[int],
    steps: int,
    travel: float = 20.0,
    newton_steps: int = 1,
    temperature: float = 0.5,
    per_error: int = 0,
) -> Tensor:
    """Return samples as `inexact` does, along J^T e; where its step is told from g alone, it is the
    dynamic one.
    """
    size = travel / (steps * newton_steps)
    rule = PerError(10 * size) if per_error else Dynamic(size)
    newton = Newton("gradient", newton_steps, rule, refresh=False)
    times = _down(denoiser, steps)
    return _sampled(denoiser, problem, seeds, times, newton, temperature=temperature, project=True)


def fair(
    denoiser: Denoiser,
    problem: LinearConstraint,
    seeds: Sequence[int],
    steps: int,
    krylov_steps: int = 3,
) -> Tensor:
    """Return samples of p(x_0 | y) as far as p(x_0 | x_t) is Gaussian, by forward passes alone."""
    return _sampled(
        denoiser, problem, seeds, _down(denoiser, steps), Newton.fair(krylov_steps), project=True
    )


def _down(denoiser: Denoiser, steps: int) -> list[int] | list[float]:
    """Return times that end where J is nearly the identity, 1 % of the way: what is left of the
    error goes there.
    """
    return denoiser.schedule.times(steps, denoiser.schedule.times(100)[-1])


def _sampled(
    denoiser: Denoiser,
    problem: Observed,
    seeds: Sequence[int],
    times: list[int] | list[float],
    newton: Newton,
    eta: float = 1.0,
    temperature: float = 1.0,
    project: bool = False,
) -> Tensor:
    """Return samples, projected, if asked, where y has no noise."""
    *_, last = sample(
        denoiser,
        seeded_noise(seeds, denoiser.shape, problem.y.device),
        times,
        problem,
        newton,
        eta=eta,
        temperature=temperature,
        seeds=seeds,
        project=project and not problem.sigma and not problem.damping,
    )
    return last.x0


DEFAULTS = {"travel": 20.0, "newton_steps": 1, "temperature": 0.5, "per_error": 0}
STEPS: dict[str, tuple[float, ...]] = {
    "travel": (10.0, 20.0, 40.0, 80.0),
    "newton_steps": (1, 2),
    "temperature": (0.1, 0.25, 0.5, 1.0),
    "per_error": (0, 1),
}
CONTESTANTS = (
    Peer("inexact Newton", "jacobian-lab", inexact, DEFAULTS, STEPS, Passes(2), 50, "this project"),
    Peer(
        "gradient descent",
        "jacobian-lab",
        gradient,
        DEFAULTS,
        STEPS,
        Passes(1, 1),
        50,
        "this project",
    ),
    Peer(
        "fair Newton",
        "jacobian-lab",
        fair,
        {"krylov_steps": 3},
        {"krylov_steps": (1, 3, 5, 10)},
        Passes(4),
        25,
        "this project",
    ),
    Peer(
        "inexact Newton, paper",
        "jacobian-lab",
        paper,
        {"c": 0.2},
        {},
        Passes(11),
        20,
        "Graikos, Jojic, Samaras 2025",
    ),
    *PEERS,
)
OURS = tuple(peer.name for peer in CONTESTANTS if not peer.has_authors)
"""Methods that have no authors but us, and so no settings but those that are searched."""

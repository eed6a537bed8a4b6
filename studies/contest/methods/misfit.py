r"""How far images are from what was observed, and its slope: what a method needs to know of a
problem.

    observations y = A x + noise, A linear or not       missing is y - A x
    a constraint of decoded latents                     that of the decoded images
    any other constraint                                its residual, one number

A linear A goes through its own adjoint; all else through autograd, the decoder included. Passes of
a decoder are not passes of the denoiser.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.errors import InputError

SMALLEST_NOISE = 0.01
"""Standard deviation taken for noiseless observations where a method divides by it: what the
authors of DAPS, CLAMP and DInG take.
"""


def observations(problem: Constraint) -> Constraint:
    """Return the constraint of images, of which a constraint of latents is made."""
    return problem.constraint if isinstance(problem, Decoded) else problem


def missing(problem: Constraint, x: Tensor) -> Tensor:
    """Return `y - A x`, (B, ...), of images or latents x, with its graph."""
    images = problem.decode(x) if isinstance(problem, Decoded) else x
    inner = observations(problem)
    found: Tensor = getattr(inner, "missing", inner.residual)(images)
    return found


def misfit(problem: Constraint, x: Tensor) -> Tensor:
    """Return `|y - A x|^2`, (B,), with its graph."""
    return missing(problem, x).reshape(len(x), -1).square().sum(1)


def observed_count(problem: Constraint) -> Tensor | int:
    """Return how many numbers are observed of each sample, () or (B,); 1 where that is not told."""
    inner = observations(problem)
    found: Tensor | int = inner.count() if hasattr(inner, "count") else 1
    return found


def noise_of(problem: Constraint, least: float = 0.0) -> float:
    """Return the standard deviation of the noise in y, at least `least`."""
    return max(float(getattr(observations(problem), "sigma", 0.0)), least)


def slope(problem: Constraint, x: Tensor) -> Tensor:
    """Return the gradient of `|y - A x|^2 / 2` in x, without a graph.

    Raises
    ------
    InputError
        If the constraint has no gradient.
    """
    if isinstance(problem, LinearConstraint):
        with torch.no_grad():
            return -problem.adjoint(problem.missing(x))
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        loss = misfit(problem, leaf).sum() / 2
        if not loss.requires_grad:
            raise InputError(
                f"{type(observations(problem)).__name__} has no gradient in x_0: this method needs"
                " observations that PyTorch can differentiate"
            )
        return torch.autograd.grad(loss, leaf)[0]


def latent(problem: Constraint, method: str) -> Decoded:
    """Return the problem, or raise unless it is one of decoded latents."""
    if not isinstance(problem, Decoded):
        raise InputError(
            f"{method} works on latents: got {type(problem).__name__}, expected what is asked of"
            " their images as Decoded"
        )
    return problem


def linear(problem: Constraint, method: str) -> LinearConstraint:
    """Return the problem, or raise unless it is linear."""
    if not isinstance(problem, LinearConstraint):
        raise InputError(
            f"{method} needs linear observations y = A x of what the denoiser denoises: got"
            f" {type(problem).__name__}"
        )
    return problem


def per_sample_shape(value: Tensor, x: Tensor) -> Tensor:
    """Return numbers, (B,), shaped to multiply samples x."""
    return value.reshape(-1, *[1] * (x.ndim - 1))

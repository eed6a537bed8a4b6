"""The tracks of the contest, `--model mnist | mnist-flow | mnist-latent`, and which method runs
where.

A method says itself what it needs: by the type with which its `run` annotates the problem, such as
`LinearConstraint`, and by an `InputError` where it cannot go on. Before the contest it is asked, on
two digits, and left out with what it said.

In latents a method gets the problem of the images as `Decoded`, which holds encoder and decoder,
and returns latents.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args, get_type_hints

import torch
from torch import Tensor

from jacobian_lab import Denoiser, InputError
from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.errors import DivergenceError
from mnist.problems import problem
from studies.contest.ours import CONTESTANTS
from studies.contest.ours_in_latents import IN_LATENTS
from studies.contest.peers import LATENT_PEERS, Peer
from studies.frame.model_files import LATENT
from studies.frame.models import Model, check_digits, is_latent, open_model

STEPS = 2
"""Of the run by which a method is asked."""


def contestants(model: str) -> tuple[Peer, ...]:
    """Return the methods of a track."""
    return (*IN_LATENTS, *LATENT_PEERS, *CONTESTANTS) if is_latent(model) else CONTESTANTS


METHODS = tuple(peer.name for peer in contestants(LATENT))


@lru_cache(maxsize=2)
def track(model: str, device: str) -> Model:
    """Return the model of a track, or raise if it does not draw digits."""
    found = open_model(model, device)
    check_digits(model, found)
    return found


def posed(wanted: Constraint, model: Model) -> Constraint:
    """Return what is wanted of images as what is wanted of the model's samples."""
    if model.space == "pixels":
        return wanted
    return Decoded(wanted, model.encode, model.decode, "secant")


def refusal(peer: Peer, task: str, model: str, device: str) -> str:
    """Return why a method does not run on a task, or "" if it does."""
    at = track(model, device)
    wanted = posed(problem(task, 0, 2, 0, device)[0], at)
    names = list(inspect.signature(peer.run).parameters)
    needed = get_type_hints(peer.run).get(names[1], Constraint)
    if not isinstance(wanted, needed):
        linear = "linear observations y = A x of what the denoiser denoises"
        kinds = " or ".join(kind.__name__ for kind in get_args(needed) or (needed,))
        needs = linear if needed is LinearConstraint else f"a problem of type {kinds}"
        return f"{peer.name} needs {needs}: got {type(wanted).__name__}"
    try:
        attempt(peer, at.denoiser, wanted, [0, 1])
    except DivergenceError:  # an InputError too: the method runs, if badly
        return ""
    except InputError as error:
        return str(error)
    return ""


def attempt(peer: Peer, denoiser: Denoiser, wanted: Constraint, seeds: Sequence[int]) -> Tensor:
    """Return samples of a short run with the authors' parameters."""
    return peer.run(denoiser, wanted, seeds, STEPS, **peer.defaults)


def images_of(samples: Tensor, model: Model) -> Tensor:
    """Return the images of a model's samples, without a graph."""
    with torch.no_grad():
        return model.decode(samples.detach())

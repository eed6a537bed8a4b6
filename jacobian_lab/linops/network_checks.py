"""An audit's checks of the network: it must be one function of x_t and t, however it is called."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jacobian_lab.derivative.guards import in_training, modules_called, rounding_of_input
from jacobian_lab.derivative.precision import observed
from jacobian_lab.derivative.settings import coarser_float32
from jacobian_lab.linops.report import Check
from jacobian_lab.linops.subject import Subject, apart


def network_checks(s: Subject, seed: int) -> tuple[Check, ...]:
    """Return the checks of the network's settings and of calls in other circumstances."""
    other = s.tensor(np.random.default_rng([seed, 1]).standard_normal((1, s.n)))
    return (
        *_settings(s),
        _repeatable(s, other),
        _with_gradients(s),
        _input_kept(s),
        _samples_apart(s, other),
    )


def _settings(s: Subject) -> tuple[Check, ...]:
    with torch.no_grad(), modules_called() as called:
        _, _, operations, _ = observed(s.ladder.function, s.x)
    reasons = sorted(operations)
    if s.x.dtype == torch.float32:
        reasons += coarser_float32(s.x.device.type)
    training = len(in_training(s.denoiser, called))
    return (
        Check(
            "evaluation mode",
            training,
            0,
            "modules in training mode (dropout, batch statistics): call denoiser.eval() and make"
            " the operator anew",
        ),
        Check(
            "precision",
            len(reasons),
            0,
            f"coarser than {s.x.dtype}: {', '.join(reasons)}. J is right for the network as it"
            " computes, and as rough; for more digits turn autocast, casts and TF32 off",
        ),
    )


def _repeatable(s: Subject, other: Tensor) -> Check:
    """Call the network again, also after another sample and another time."""
    another = next(t for t in s.denoiser.schedule.times(8)[1:] if t != s.t)
    again = [s.output(s.x)]
    for x, t in ((other, s.t), (s.x, another), (s.x, s.t)):
        s.output(x, t)
        again.append(s.output(s.x))
    return Check(
        "repeatable",
        max(apart(a, s.ladder.value) for a in again),
        30 * s.own,
        "the network returns something else at another call (noise, a counter, running"
        " statistics, a cache, the time of the call before): make it deterministic",
    )


def _with_gradients(s: Subject) -> Check:
    with torch.enable_grad():
        graph = s.denoiser.output(s.x.clone().requires_grad_(), s.t).detach()
    return Check(
        "gradients on",
        apart(graph, s.ladder.value),
        s.rounding,
        "the network returns something else where gradients are wanted: samplers that"
        " back-propagate use another one",
    )


def _input_kept(s: Subject) -> Check:
    given = s.x.clone()
    time = s.denoiser.schedule.time_tensor(s.t).to(s.x.device)
    with torch.no_grad():
        s.denoiser.network(
            given,
            time.to(
                torch.promote_types(s.x.dtype, torch.float32) if time.is_floating_point() else None
            ).expand(1),
        )
    return Check(
        "input",
        apart(given, s.x),
        0,
        "the network writes into its input: here it gets a copy, elsewhere x_t changes under"
        " its caller",
    )


def _samples_apart(s: Subject, other: Tensor) -> Check:
    """Call the network with a sample among others, and alone."""
    batch = torch.cat([s.x, s.x + other, s.x.flip(-1)])
    found = []
    for one, among in zip(batch, s.output(batch), strict=True):
        one, among = one[None], among[None]
        alone = s.output(one)
        # near the clean image a raw output divides rounding by sigma_t
        moved = float(rounding_of_input(s.output, one, alone) / alone.norm())
        found.append((apart(among, alone), max(s.rounding, moved)))
    value, bound = max(found, key=lambda pair: pair[0] / pair[1])
    return Check(
        "samples apart",
        value,
        bound,
        "samples of a batch see each other (batch statistics, attention over the batch): J is"
        " not one sample's",
    )

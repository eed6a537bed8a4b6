"""The conventions in which a network may have been meant: other predictions, signs, times, tables,
ranges of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

from torch import Tensor

from jacobian_lab.diffusion.continuous import ContinuousSchedule
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.prediction import Prediction
from jacobian_lab.diffusion.schedule import DiscreteSchedule, Schedule


def time_of_ratio(schedule: Schedule, ratio: float) -> int | float | None:
    """Return the time at which sigma / alpha is nearest to a ratio; None if it is not within a
    factor of 1.5.
    """
    t: int | float = schedule.time_of(ratio).item()
    alpha_t, sigma_t = schedule(t)
    return t if ratio / 1.5 < float(sigma_t / alpha_t) < 1.5 * ratio else None


def others(denoiser: Denoiser, clean: Tensor) -> Iterator[tuple[str, Denoiser, Tensor]]:
    """Yield what may be wrong, the denoiser if it is, and the samples if they are.

    Parameters
    ----------
    denoiser : Denoiser
    clean : Tensor, shape (B, *shape)
        Clean samples.
    """
    given = denoiser.prediction
    for prediction in get_args(Prediction):
        for sign, turned in ((1, ""), (-1, ", and its sign is turned")):
            if (prediction, sign) != (given, 1) and isinstance(given, str):
                said = (
                    f'the network seems to predict "{prediction}"{turned}'
                    if prediction != given
                    else "the sign of the network's output seems to be turned"
                )
                yield said, _changed(denoiser, prediction=prediction, sign=sign), clean
    on_cuda = clean.device.type == "cuda"
    for said, time in _times(denoiser.schedule, beyond=not on_cuda).items():
        yield said, _changed(denoiser, time=time), clean
    if isinstance(denoiser.schedule, DiscreteSchedule):
        steps = denoiser.schedule.steps
        for name in ("linear", "scaled_linear", "cosine"):
            schedule = getattr(DiscreteSchedule, name)(steps)
            said = f"the table seems to be DiscreteSchedule.{name}({steps})"
            yield said, _changed(denoiser, schedule=schedule), clean
    for said, samples in (
        ("the samples seem to lie in [0, 1]: give 2 x - 1", 2 * clean - 1),
        ("the samples seem to lie in [0, 255]: give x / 127.5 - 1", clean / 127.5 - 1),
        ("the network seems to want pixels in [0, 1]: give (x + 1) / 2", (clean + 1) / 2),
    ):
        if samples.min() >= -1.01 and samples.max() <= 1.01:
            yield said, denoiser, samples


def _times(schedule: Schedule, beyond: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return what may be wrong with the time, and the time that the network should then get; also
    one beyond the schedule's last, if that is wanted: a table that has none ends a CUDA process.
    """
    if isinstance(schedule, DiscreteSchedule):
        last = schedule.steps - 1
        found: dict[str, Callable[[Tensor], Tensor]] = {
            "the network's time seems to run the other way": lambda t: last - t,
            "the network seems to want its time in [0, 1], t / T": lambda t: t.float() / (last + 1),
        }
        if beyond:
            said = f"the network seems to be given t / {last + 1}: give it t"
            found[said] = lambda t: t * (last + 1)
        return found
    if isinstance(schedule, ContinuousSchedule):
        last_time = schedule.last
        return {
            "the network's time seems to run the other way": lambda t: last_time - t,
            "the network seems to want 1000 t": lambda t: 1000 * t,
            "the network seems to be given 1000 t: give it t": lambda t: t / 1000,
        }
    return {}


def _changed(
    denoiser: Denoiser,
    prediction: Any = None,
    sign: int = 1,
    time: Callable[[Tensor], Tensor] | None = None,
    schedule: Schedule | None = None,
) -> Denoiser:
    """Return a denoiser of the same network in another convention."""

    def network(x: Tensor, t: Tensor) -> Any:
        raw = denoiser.network(x, t if time is None else time(t))
        return raw if sign == 1 else -raw

    return Denoiser(
        network,
        schedule or denoiser.schedule,
        prediction or denoiser.prediction,
        denoiser.shape,
        learned_variance=denoiser.learned_variance,
    )

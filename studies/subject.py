"""What a figure is of: the model with its prompt and guidance, and the samples; written at the
top.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from studies.frame.study import Arrays


def subject(config: Any) -> Arrays:
    """Return "subject": the model of a study's options, in words, with what it is told."""
    words = [f"model {config.model}"]
    for name, form in (
        ("prompt", 'prompt "{}"'),
        ("negative_prompt", 'negative prompt "{}"'),
        ("guidance", "guidance {:g}"),
    ):
        value = getattr(config, name, "")
        if value not in ("", 1):
            words.append(form.format(value))
    return {"subject": np.array(", ".join(words))}


def write_subject(figure: Figure, arrays: Arrays, *more: str) -> None:
    """Write at the top of a figure what it is of: the model, and more in words."""
    figure.suptitle("; ".join([str(arrays["subject"]), *more]), fontsize=8)


def round_time_ticks(axes: Axes, times: NDArray[Any]) -> None:
    """Put ticks at round times on an axis on which the sampling times, falling, are equally
    spaced.
    """
    at = np.arange(len(times))[::-1]
    ticks = MaxNLocator(4).tick_values(float(times[-1]), float(times[0]))
    ticks = ticks[(ticks >= times[-1]) & (ticks <= times[0])]
    if len(ticks) < 2:
        ticks = np.unique(times[[0, -1]])
    axes.set(
        xlabel="time $t$",
        xticks=np.interp(ticks, times[::-1], at),
        xticklabels=[f"{t:g}" for t in ticks],
    )

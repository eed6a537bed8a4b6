"""What a figure says beside its curves: the model with its prompt and guidance, digits and seeds,
and readable ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from studies.frame.dataset import Arrays

LETTERS = 14
"""Letters of 9 pt in an inch, some of them wide."""


def subject(config: Any) -> Arrays:
    """Return "subject": the model of a study's options, in words, with what it is told, the digits
    or the image, and the seeds.
    """
    words = [f"model {config.model}"] if hasattr(config, "model") else []
    for name, form in (
        ("prompt", 'prompt "{}"'),
        ("negative_prompt", 'negative prompt "{}"'),
        ("guidance", "guidance {:g}"),
    ):
        value = getattr(config, name, "")
        if value not in ("", 1):
            words.append(form.format(value))
    if files := getattr(config, "files", ()):
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        words.append(f"{files[0].name}{more}")
    elif hasattr(config, "digit"):
        words.append(_counted("digit", config.digit, vars(config).get("digits", 1)))
    words.append(_counted("seed", config.seed, vars(config).get("seeds", 1)))
    return {"subject": np.array(", ".join(words))}


def _counted(what: str, first: int, count: int) -> str:
    """Return "digit 3", "digits 3 and 4" or "digits 3 to 7"."""
    last = first + count - 1
    return (
        f"{what} {first}"
        if count == 1
        else f"{what}s {first} {'to' if count > 2 else 'and'} {last}"
    )


def printable(arrays: Arrays) -> Arrays:
    """Return arrays in whose texts the bytes of file names that are no UTF-8 are escaped."""
    return _texts(
        arrays,
        lambda text: np.char.decode(np.char.encode(text, "utf-8", "backslashreplace"), "utf-8"),
    )


def without_math(arrays: Arrays) -> Arrays:
    """Return arrays in whose texts, such as names of files, a dollar is no formula."""
    return _texts(arrays, lambda text: np.char.replace(text, "$", r"\$"))


def _texts(arrays: Arrays, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Arrays:
    """Return arrays of which those of texts, but for empty ones, are changed."""
    return {
        name: change(array) if np.asarray(array).dtype.kind == "U" and np.size(array) else array
        for name, array in arrays.items()
    }


def write_subject(figure: Figure, arrays: Arrays, *more: str) -> None:
    """Write at the top of a figure what it is of: the model, digits and seeds, and more in words,
    in lines as wide as the figure.
    """
    text = "; ".join([str(arrays["subject"]), *more])
    figure.suptitle(fill(text, round(LETTERS * figure.get_figwidth())), fontsize=9)


def round_time_ticks(axes: Axes, times: NDArray[Any]) -> None:
    """Put ticks at round times on an axis on which the sampling times, falling, are equally
    spaced.
    """
    at = np.arange(len(times))[::-1]
    ticks = MaxNLocator(4).tick_values(float(times[-1]), float(times[0]))
    within = [float(t) for t in ticks if times[-1] <= t <= times[0]]
    if len(within) < 2:
        within = times[[-1, 0]].tolist()
    axes.set(
        xlabel="time $t$",
        xticks=np.interp(within, times[::-1], at).tolist(),
        xticklabels=[f"{t:g}" for t in within],
    )


def plain_ticks(axis: Axis) -> None:
    """Write 0.02, 0.05, 0.1 ... on a logarithmic axis, unless it spans many decades."""
    if np.ptp(np.log10(axis.get_view_interval())) < 3:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())

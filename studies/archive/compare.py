"""The command `jacobian-lab compare`: what two runs of a study have in common, and where they
differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacobian_lab import InputError, _require
from studies.archive.listing import in_words
from studies.archive.stored import Stored, finished
from studies.frame.answer import Row, terminal_table
from studies.frame.dataset import Arrays


@dataclass(frozen=True)
class Compare:
    """Compare two runs of a study. Example: jacobian-lab compare runs/eigenvalues-1a2b3c4d
    runs/eigenvalues-5e6f7a8b.
    """

    POSITIONAL = ("one", "other")

    one: Path
    """Folder of a finished run."""
    other: Path
    """Folder of another run of the same study."""

    def __post_init__(self) -> None:
        _require.options(self)


def compare_runs(config: Compare) -> None:
    """Print the options, versions and weights that differ, how far each variable is apart, and both
    answers.
    """
    one, other = finished([config.one, config.other])
    if one.study_name != other.study_name:
        raise InputError(
            f"{one.folder} is of {one.study_name}, {other.folder} of {other.study_name}: compare"
            " runs of one study; jacobian-lab collect puts any runs into one table"
        )
    first, second = one.arrays(), other.arrays()
    apart = told_apart(one, other)
    print(terminal_table(apart) if apart else "the same options, weights and code")
    print(f"\n{terminal_table(differences(first, second))}")
    for run, arrays in ((one, first), (other, second)):
        print(f"\n{run.folder} {in_words(run.chosen())}\n{terminal_table(run.answer(arrays))}")


def told_apart(one: Stored, other: Stored) -> list[Row]:
    """Return a row for each option, weight and version in which two runs differ."""
    return [
        {"what": name, "one": _short(a), "other": _short(b)}
        for name, a, b in _entries(one.claim, other.claim, "")
        if a != b
    ]


def _entries(one: Any, other: Any, name: str) -> list[tuple[str, Any, Any]]:
    """Return the leaves of two JSON objects, with their paths."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [(name, one, other)]
    found = []
    for key in dict.fromkeys((*one, *other)):
        found += _entries(one.get(key), other.get(key), f"{name} {key}".strip())
    return found


def differences(one: Arrays, other: Arrays) -> list[Row]:
    """Return a row for each variable: whether it is equal to the bit, else how far apart."""
    names = dict.fromkeys((*one, *other))
    return [_difference(name, one.get(name), other.get(name)) for name in names]


def _difference(name: str, a: NDArray[Any] | None, b: NDArray[Any] | None) -> Row:
    row: Row = {"variable": name}
    if a is None or b is None:
        return row | {"shape": "", "difference": "only in one of them"}
    row["shape"] = " x ".join(map(str, a.shape))
    if a.shape != b.shape:
        return row | {"difference": f"shapes: {a.shape} and {b.shape}"}
    numbers = a.dtype.kind in "biufc" and b.dtype.kind in "biufc"
    if np.array_equal(a, b, equal_nan=numbers):
        return row | {"difference": "none"}
    if not numbers:
        return row | {"difference": f"{int((a != b).sum())} of {a.size} differ"}
    unlike = np.isnan(a) != np.isnan(b)
    finite = ~np.isnan(a) & ~np.isnan(b)
    apart = finite & (a != b)  # infinities that are equal have no difference
    wide = np.result_type(a.dtype, b.dtype, np.float64)
    far, size = np.abs(a[apart].astype(wide) - b[apart]), np.abs(a[finite].astype(wide))
    said = f"{int(unlike.sum())} of {a.size} are NaN in one only" if unlike.any() else "numbers"
    largest = float(far.max(initial=0))
    scale = float(size.max(initial=0))
    return row | {
        "difference": said,
        "largest_difference": largest,
        "largest_value": scale,
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""The runs of a sweep: each combination of what its options name.

--model mnist mnist-flow    a run for each value of an option that takes one
--seed 0:3                  a range of whole numbers, here 0, 1 and 2: a run for each
--digits 0:200              one run of held-out digits 0 to 199: --digit 0 --digits 200
--seeds 0:5                 one run of seeds 0 to 4: --seed 0 --seeds 5
--times 300 700             an option that takes several values keeps them
"""

from __future__ import annotations

import re
from itertools import product
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from jacobian_lab import InputError

COUNTS = {"digits": "digit", "seeds": "seed"}
"""Options that count, and those that say from where on."""
RANGE = re.compile(r"(-?\d+):(-?\d+)")
MOST = 10_000
"""Runs of a sweep."""
Group = tuple[str, list[str]]
"""An option, and the words after it."""


def grouped(words: list[str]) -> tuple[list[str], list[Group]]:
    """Return the words before the first option, and the options with their words."""
    before: list[str] = []
    groups: list[Group] = []
    for word in words:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            groups.append((option, [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            before.append(word)
    return before, groups


def combinations(study: str, kind: type[Any], groups: list[Group]) -> list[list[str]]:
    """Return the words of each run of a study whose options are of a class.

    Raises
    ------
    InputError
        If a range is empty or unclear, or a value is named twice.
    """
    hints = get_type_hints(kind)
    _refuse_missing(study, hints, groups)
    given = [_field(option) for option, _ in groups]
    choices, runs = [], 1
    for option, values in groups:
        name = _field(option)
        if _takes_one(hints.get(name)) and values:
            choices.append(_choices(study, name, values, hints, given))
        else:
            choices.append([[option, *values]])
        runs *= len(choices[-1])
    if runs > MOST:
        raise InputError(f"these are {runs:,} runs: expected at most {MOST:,} in a sweep")
    return [[word for part in parts for word in part] for parts in product(*choices)]


def _choices(
    study: str, name: str, values: list[str], hints: dict[str, Any], given: list[str]
) -> list[list[str]]:
    """Return the words of each run that an option asks for."""
    option = f"--{name.replace('_', '-')}"
    found: list[list[str]] = []
    for value in values:
        ends = RANGE.fullmatch(value) if _is_whole(hints[name]) else None
        if ends is None:
            found.append([option, value])
            continue
        low, high = (int(end) for end in ends.groups())
        if low >= high:
            raise InputError(f"{option} {value} is an empty range: a:b is from a to b - 1")
        if high - low > MOST:
            raise InputError(
                f"{option} {value} is {high - low:,} values: expected at most {MOST:,}"
            )
        if name not in COUNTS:
            found += [[option, str(number)] for number in range(low, high)]
            continue
        start = COUNTS[name]
        if start not in hints or start in given:
            why = "is given too" if start in given else f"is no option of {study}"
            raise InputError(f"{option} {value} is unclear, since --{start} {why}: give a number")
        found.append([f"--{start}", str(low), option, str(high - low)])
    twice = [words for i, words in enumerate(found) if words in found[:i]]
    if twice:
        raise InputError(f"{' '.join(twice[0])} is named twice")
    return found


def _refuse_missing(study: str, hints: dict[str, Any], groups: list[Group]) -> None:
    """Raise if digits or seeds are asked for that a study has one of."""
    for option, values in groups:
        start = COUNTS.get(_field(option), "")
        if _field(option) not in hints and start in hints:
            raise InputError(
                f"{study} has no option {option}, and looks at one {start}: take --{start}"
                f" {' '.join(values) or 'A:B'}, a run for each"
            )


def _field(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _parts(hint: Any) -> set[Any]:
    """Return the types of a union, but None."""
    union = get_origin(hint) is not None and get_origin(hint) not in (tuple, dict, list)
    return set(get_args(hint)) - {NoneType} if union else {hint}


def _takes_one(hint: Any) -> bool:
    """Return whether an option of a type takes one value, and no option says yes or no alone."""
    return hint not in (None, bool) and not any(
        part is tuple or get_origin(part) is tuple for part in _parts(hint)
    )


def _is_whole(hint: Any) -> bool:
    return _parts(hint) == {int}

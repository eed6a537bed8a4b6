"""Runs that belong together: of one study, with one or two options apart."""

from __future__ import annotations

from collections.abc import Sequence

from studies.archive.stored import Stored

MOST = 2
"""Options in which neighbours in a sweep differ, such as the digit and the seed."""


def options_apart(one: Stored, other: Stored) -> list[str]:
    """Return the names of the options in which two runs differ."""
    first, second = one.options(), other.options()
    names = dict.fromkeys((*first, *second))
    return [name for name in names if first.get(name) != second.get(name)]


def are_siblings(one: Stored, other: Stored) -> bool:
    """Return whether two runs are of one study, with one or two options apart."""
    return one.study_name == other.study_name and 1 <= len(options_apart(one, other)) <= MOST


def sweeps(runs: Sequence[Stored]) -> list[list[int]]:
    """Return the groups of runs that siblings link, by their places in `runs`."""
    groups: list[list[int]] = []
    for k, run in enumerate(runs):
        near = [group for group in groups if any(are_siblings(run, runs[i]) for i in group)]
        groups = [group for group in groups if group not in near]
        groups.append([*(i for group in near for i in group), k])
    return sorted(sorted(group) for group in groups if len(group) > 1)


def options_that_vary(runs: Sequence[Stored]) -> list[str]:
    """Return the options that are not the same in all of some runs."""
    varying = {name for run in runs[1:] for name in options_apart(runs[0], run)}
    return [name for name in runs[0].options() if name in varying]

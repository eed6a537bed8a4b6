"""With which parameters, and how many steps, each method runs: its authors' ones, and those that a
search finds or has found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, log
from typing import Any, TypeAlias

import numpy as np

from jacobian_lab import InputError
from jacobian_lab._files import json_hash
from studies.contest.entries import BATCH, OTHERS, Entry, at_edge, execute
from studies.contest.ours import paper
from studies.contest.peers import Peer
from studies.contest.price import steps_for
from studies.contest.rules import Contest
from studies.contest.standing import OVER
from studies.frame.pieces import Work
from studies.frame.study import Arrays, Pieces
from studies.frame.workers import by_one_thread

Chosen: TypeAlias = tuple[str, Peer, dict[str, Any]]
"""A task and a method, with its "parameters", and those at an edge of the search, "at_edge"."""
WORST = 100.0
"""The doubt of a digit that diverges."""
MORE, FEWEST_KEPT, FIRST_ROUND = 3, 2, 10
"""Of a round of the search, a third of the parameters is kept, but at least two; the first has at
least ten digits.
"""


def entries_of(
    config: Contest, pairs: list[tuple[str, Peer]], pieces: Pieces
) -> dict[str, tuple[Entry, str]]:
    """Return the runs of the contest by the names of their pieces, those with the authors' settings
    and, after the search, at each budget, the long ones last; with the parameters whose best value
    is at an edge of the search.
    """
    found = [
        (
            Entry(task, peer.name, "authors", dict(peer.defaults), min(peer.steps, config.longest)),
            "",
        )
        for task, peer in pairs
        if peer.has_authors and "authors" in config.settings
    ]
    if "searched" in config.settings:
        found += _entries_at_budgets(config, pairs, pieces)
    found.sort(key=lambda pair: pair[0].steps)
    return {_run_name(entry): (entry, edge) for entry, edge in found}


def _run_name(entry: Entry) -> str:
    """Return the name of a run's piece. At two budgets a method may take as many steps, with other
    parameters.
    """
    words = entry.task, entry.method, entry.setting, str(entry.steps)
    return piece_name("run", *words, json_hash(entry.parameters)[:8])


def _entries_at_budgets(
    config: Contest, pairs: list[tuple[str, Peer]], pieces: Pieces
) -> list[tuple[Entry, str]]:
    entries = [
        (budget, Entry(task, peer.name, "searched", best["parameters"], 1), best["at_edge"])
        for budget in config.budgets
        for task, peer, best in (
            found_before(config, pairs, budget)
            if config.taken
            else searched(config, pairs, pieces, budget)
        )
    ]
    work = {
        piece_name("steps", entry.task, entry.method, str(budget)): partial(
            counted, entry, config, budget
        )
        for budget, entry, _ in entries
    }
    steps = [int(piece["steps"]) for piece in computed(pieces, "numbers of steps", work)]
    return [
        (replace(entry, steps=count), edge)
        for count, (_, entry, edge) in zip(steps, entries, strict=True)
    ]


def searched(
    config: Contest, pairs: list[tuple[str, Peer]], pieces: Pieces, budget: int
) -> list[Chosen]:
    """Return the parameters that are best, at a budget, of those that are tried, by successive
    halving: see `rounds`.
    """
    pairs = [(task, peer) for task, peer in pairs if peer.run is not paper]
    left: list[list[Tried]] = [
        [Tried(k, parameters) for k, parameters in enumerate(peer.combinations())]
        for _, peer in pairs
    ]
    for part in rounds(config.searched):
        work = {
            piece_name(
                "search", task, peer.name, str(budget), str(tried.number), str(part.stop)
            ): partial(
                try_parameters, task, peer.name, tried.parameters, config, part, budget, tried.steps
            )
            for (task, peer), some in zip(pairs, left, strict=True)
            for tried in some
        }
        rows = computed(pieces, f"search at {budget}, {part.stop} digits", work)
        for tried, row in zip((tried for some in left for tried in some), rows, strict=True):
            tried.add(row)
        left = [
            sorted(some, key=lambda tried: tried.doubt)[: max(FEWEST_KEPT, ceil(len(some) / MORE))]
            for some in left
        ]
    return [
        (
            task,
            peer,
            {"parameters": best.parameters, "at_edge": at_edge(peer, best.parameters)},
        )
        for (task, peer), (best, *_) in zip(pairs, left, strict=True)
    ]


@dataclass
class Tried:
    """Parameters that are tried, and what they got so far."""

    number: int
    parameters: dict[str, float]
    doubt: float = 0.0
    """Sum over the digits so far."""
    steps: int | None = None
    """After the first round."""

    def add(self, found: Arrays) -> None:
        """Take the results of a round; see `try_parameters`."""
        self.doubt += float(found["doubt"])
        self.steps = int(found["steps"])


def rounds(count: int) -> list[range]:
    """Return the digits of each round of a search that ends with `count` of them: a round has three
    times as many in all as the one before, for the best third of the parameters. Few digits tell
    bad parameters, and many are needed only to choose among good ones.

    Source: Jamieson and Talwalkar 2016, arXiv 1502.07943.
    """
    ends = [count]
    while ends[0] >= MORE * FIRST_ROUND:
        ends.insert(0, ends[0] // MORE)
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def found_before(config: Contest, pairs: list[tuple[str, Peer]], budget: int) -> list[Chosen]:
    """Return the parameters that an earlier contest found, of several those for the budget."""
    named = {f"{task}: {peer.name}": (task, peer) for task, peer in pairs if peer.run is not paper}
    if missing := named.keys() - config.taken.keys():
        raise InputError(
            f"--parameters-of {config.parameters_of} has nothing of {'; '.join(sorted(missing))}:"
            " leave it out, or search without --parameters-of"
        )
    known = [
        (*pair, min(config.taken[name], key=lambda of: abs(log((of["budget"] or budget) / budget))))
        for name, pair in named.items()
    ]
    for task, peer, best in known:
        if unknown := best["parameters"].keys() - peer.defaults.keys():
            raise InputError(
                f"--parameters-of {config.parameters_of}: {peer.name} on {task} has no parameter"
                f" {', '.join(sorted(unknown))}: it has {', '.join(peer.defaults) or 'none'}"
            )
    return known


class Runs:
    """Runs of a method on the digits of the search, by their steps and digits.

    Parameters
    ----------
    entry : Entry
    config : Contest
    first : int
        Of the digits.
    """

    def __init__(self, entry: Entry, config: Contest, first: int = OTHERS) -> None:
        self.entry, self.config, self.first = entry, config, first
        self._known: dict[tuple[int, int], Arrays] = {}

    def __call__(self, steps: int, count: int) -> Arrays:
        """Return a run."""
        if (steps, count) not in self._known:
            self._known[steps, count] = execute(
                replace(self.entry, steps=steps), self.config, self.first, count, self.config.seed
            )
        return self._known[steps, count]

    def cost(self, steps: int, count: int) -> float:
        """Return the evaluations for each digit."""
        return float(self(steps, count)["passes"].sum())


def counted(entry: Entry, config: Contest, budget: float) -> Arrays:
    """Return how many steps a budget pays for in a batch of the contest."""
    count = min(BATCH, config.digits)
    return {"steps": np.array(steps_for(Runs(entry, config).cost, budget, count))}


def try_parameters(
    task: str,
    method: str,
    parameters: dict[str, float],
    config: Contest,
    part: range,
    budget: int,
    steps: int | None = None,
) -> Arrays:
    """Return what some parameters got on a part of the digits of the search within a budget: the
    sum of the judge's doubt, by which they are chosen, and how many steps that were, unless it is
    known. What costs a tenth more, as two steps of many passes each, is as bad as what diverges.
    """
    entry = Entry(task, method, "searched", parameters, 1)
    runs = Runs(entry, config, OTHERS + part.start)
    if steps is None:
        steps = steps_for(runs.cost, budget, len(part), whole=True)
    doubt = np.nan_to_num(runs(steps, len(part))["doubt"], nan=WORST).sum()
    if runs.cost(steps, len(part)) > OVER * budget:
        doubt = WORST * len(part)
    return {"doubt": np.array(doubt), "steps": np.array(steps)}


def computed(pieces: Pieces, what: str, work: Work, *, here: bool = False) -> list[Arrays]:
    """Return pieces, each by one thread: results do not depend on the number of processes."""
    alone = {name: partial(by_one_thread, function) for name, function in work.items()}
    return pieces.each(what, alone, here=here)


def piece_name(*words: str) -> str:
    """Return the name of the piece that these words tell of."""
    return "-".join(re.sub(r"\W+", "_", word) for word in words)

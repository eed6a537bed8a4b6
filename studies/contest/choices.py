"""With which parameters, and how many steps, each method runs: its authors' ones, and those that a
search finds or has found.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, TypeAlias

import numpy as np

from jacobian_lab import InputError
from studies.contest.entries import (
    PRICED,
    Entry,
    at_edge,
    price,
    steps_within,
    try_parameters,
)
from studies.contest.ours import paper
from studies.contest.peers import Peer
from studies.contest.rules import Contest
from studies.frame.pieces import Work
from studies.frame.study import Arrays, Pieces
from studies.frame.workers import by_one_thread

Chosen: TypeAlias = tuple[str, Peer, dict[str, Any]]
"""A task and a method, with its parameters, the evaluations of a step, "step", and beside the
steps, "once", and the parameters at an edge of the search, "at_edge".
"""
PRICE = "step", "once"
MORE, FEWEST_KEPT = 3, 2
"""Of a round of the search, a third of the parameters is kept, but at least two."""


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
        chosen = found_before if config.taken else searched
        for task, peer, best in chosen(config, pairs, pieces):
            for budget in config.budgets:
                steps = steps_within(budget, best["step"], best["once"])
                entry = Entry(task, peer.name, "searched", best["parameters"], steps)
                found.append((entry, best["at_edge"]))
    found.sort(key=lambda pair: pair[0].steps)
    return {
        piece_name("run", entry.task, entry.method, entry.setting, str(entry.steps)): (entry, edge)
        for entry, edge in found
    }


def searched(config: Contest, pairs: list[tuple[str, Peer]], pieces: Pieces) -> list[Chosen]:
    """Return the parameters that are best of those that are tried, and what a step costs with
    them: by successive halving, see `rounds`.
    """
    pairs = [(task, peer) for task, peer in pairs if peer.run is not paper]
    left: list[list[Tried]] = [
        [Tried(k, parameters) for k, parameters in enumerate(peer.combinations())]
        for _, peer in pairs
    ]
    for part in rounds(config.searched):
        work = {
            piece_name("search", task, peer.name, str(tried.number), str(part.stop)): partial(
                try_parameters, task, peer.name, tried.parameters, config, part, tried.price
            )
            for (task, peer), some in zip(pairs, left, strict=True)
            for tried in some
        }
        rows = computed(pieces, f"search, {part.stop} digits", work)
        for tried, row in zip((tried for some in left for tried in some), rows, strict=True):
            tried.add(json.loads(str(row["row"])))
        left = [
            sorted(some, key=lambda tried: tried.doubt)[: max(FEWEST_KEPT, ceil(len(some) / MORE))]
            for some in left
        ]
    return [
        (
            task,
            peer,
            {"parameters": best.parameters, **dict(zip(PRICE, best.price or (), strict=True))}
            | {"at_edge": at_edge(peer, best.parameters)},
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
    price: tuple[float, float] | None = None
    """After the first round."""

    def add(self, row: dict[str, float]) -> None:
        """Take the results of a round; see `try_parameters`."""
        self.doubt += row["doubt"]
        self.price = row["step"], row["once"]


def rounds(count: int) -> list[range]:
    """Return the digits of each round of a search that ends with `count` of them: a round has three
    times as many in all as the one before, for the best third of the parameters. Few digits tell
    bad parameters, and many are needed only to choose among good ones.

    Source: Jamieson and Talwalkar 2016, arXiv 1502.07943.
    """
    ends = [count]
    while ends[0] >= MORE * PRICED:
        ends.insert(0, ends[0] // MORE)
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def found_before(config: Contest, pairs: list[tuple[str, Peer]], pieces: Pieces) -> list[Chosen]:
    """Return the parameters that an earlier contest found, and what a step costs with them."""
    named = {f"{task}: {peer.name}": (task, peer) for task, peer in pairs if peer.run is not paper}
    if missing := named.keys() - config.taken.keys():
        raise InputError(
            f"--parameters-of {config.parameters_of} has nothing of {'; '.join(sorted(missing))}:"
            " leave it out, or search without --parameters-of"
        )
    known = [(*pair, config.taken[name]) for name, pair in named.items()]
    for task, peer, best in known:
        if unknown := best["parameters"].keys() - peer.defaults.keys():
            raise InputError(
                f"--parameters-of {config.parameters_of}: {peer.name} on {task} has no parameter"
                f" {', '.join(sorted(unknown))}: it has {', '.join(peer.defaults) or 'none'}"
            )
    work = {
        piece_name("price", task, peer.name): partial(
            priced, Entry(task, peer.name, "searched", best["parameters"], 1), config
        )
        for task, peer, best in known
    }
    prices = [piece["price"].tolist() for piece in computed(pieces, "prices", work)]
    return [
        (task, peer, best | {"step": step, "once": once})
        for (task, peer, best), (step, once) in zip(known, prices, strict=True)
    ]


def priced(entry: Entry, config: Contest) -> Arrays:
    """Return `price`."""
    return {"price": np.array(price(entry, config))}


def computed(pieces: Pieces, what: str, work: Work, *, here: bool = False) -> list[Arrays]:
    """Return pieces, each by one thread: results do not depend on the number of processes."""
    alone = {name: partial(by_one_thread, function) for name, function in work.items()}
    return pieces.each(what, alone, here=here)


def piece_name(*words: str) -> str:
    """Return the name of the piece that these words tell of."""
    return "-".join(re.sub(r"\W+", "_", word) for word in words)

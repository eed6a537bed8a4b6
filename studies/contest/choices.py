"""With which parameters, and how many steps, each method runs: its authors' ones, and those that a
search finds or has found.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from jacobian_lab import InputError
from studies.contest.entries import Entry, at_edge, price, steps_within, try_parameters
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
    them.
    """
    work = {
        piece_name("search", task, peer.name, str(k)): partial(
            try_parameters, task, peer.name, parameters, config
        )
        for task, peer in pairs
        if peer.run is not paper
        for k, parameters in enumerate(peer.combinations())
    }
    tried = iter(computed(pieces, "search", work))
    found = []
    for task, peer in pairs:
        if peer.run is not paper:
            rows = [json.loads(str(next(tried)["row"])) for _ in peer.combinations()]
            best: dict[str, Any] = min(rows, key=lambda row: row["doubt"])
            found.append((task, peer, best | {"at_edge": at_edge(peer, best["parameters"])}))
    return found


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

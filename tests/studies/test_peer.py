"""The record of a contestant."""

from studies.contest.methods.peer import Passes, Peer


def test_a_search_varies_what_it_names_and_keeps_the_rest():
    search = {"a": (1.0, 2.0), "b": (3.0, 4.0)}
    peer = Peer("it", "none", len, {"a": 1.0, "b": 4.0, "c": 5.0}, search, Passes(1), 1, "nobody")
    assert list(peer.combinations()) == [
        {"a": a, "b": b, "c": 5.0} for a in (1.0, 2.0) for b in (3.0, 4.0)
    ]


def test_without_a_search_the_defaults_are_all_there_is():
    peer = Peer("it", "none", len, {"a": 1.0}, {}, Passes(2, 1), 1, "nobody")
    assert list(peer.combinations()) == [{"a": 1.0}]
    assert peer.passes == Passes(2.0, 1.0, 0.0)

"""Pieces: what is on disk is not computed again, and an engine computes what is missing."""

import threading
import time
from functools import partial

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.frame.pieces import Pieces, Turn

import worked_pieces
from worked_pieces import computed, work


def squares(found):
    return [int(piece["square"]) for piece in found]


def test_what_is_missing_is_computed(tmp_path):
    pieces = Pieces(tmp_path)
    pieces("piece-1", work(tmp_path, 2)["piece-1"])
    assert squares(pieces.each("pieces", work(tmp_path, 3))) == [0, 1, 4]
    assert computed(tmp_path) == [0, 1, 2]
    assert pieces.found == 1
    assert pieces.names == ["piece-1.npz", "piece-0.npz", "piece-1.npz", "piece-2.npz"]


def test_what_a_function_raises_is_raised(tmp_path):
    wrong = {"no": partial(worked_pieces.refused, tmp_path, 3)}
    with pytest.raises(InputError, match="3 is no number"):
        Pieces(tmp_path).each("pieces", wrong)


def test_an_engine_gets_what_is_missing_and_its_pieces_are_written_as_they_come(tmp_path):
    pieces, asked = Pieces(tmp_path), []

    def backwards(missing, needs):
        asked.append((list(missing), needs))
        for name in reversed(missing):
            yield name, missing[name]()
            assert pieces.path(name).is_file()

    pieces.engine = backwards
    pieces.each("here", work(tmp_path, 1), here=True)
    assert not asked
    assert squares(pieces.each("pieces", work(tmp_path, 3))) == [0, 1, 4]
    assert asked == [(["piece-1", "piece-2"], None)]
    assert squares([pieces("piece-2", lambda: pytest.fail("computed twice"))]) == [4]


def test_a_turn_is_one_threads_at_a_time_and_is_given_up_while_it_waits():
    turn, inside, most = Turn(), [], []

    def works():
        with turn:
            for _ in range(20):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()
                with turn.given_up():
                    time.sleep(0.001)

    with turn.given_up():  # nothing to give up
        threads = [threading.Thread(target=works) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1


def test_a_piece_keeps_nans_and_types(tmp_path):
    pieces = Pieces(tmp_path)
    first = pieces("piece", lambda: {"x": np.array([np.nan, 1], np.float32)})
    again = pieces("piece", lambda: pytest.fail("computed twice"))
    assert again["x"].dtype == np.float32
    np.testing.assert_array_equal(again["x"], first["x"])

"""Pieces on several processes: the same, each computed once, whatever is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children

import numpy as np
import pytest
import torch

from jacobian_lab import InputError
from studies.frame.study import Pieces
from studies.frame.workers import by_one_thread, on_processes

import worked_pieces
from worked_pieces import computed, work


def squares(found):
    return [int(piece["square"]) for piece in found]


def on_two(pieces, work):
    with on_processes(pieces, 2):
        return pieces.each("pieces", work)


@pytest.mark.slow
def test_two_processes_compute_each_piece_once_and_go_on_after_one_is_killed(tmp_path, capfd):
    pieces = Pieces(tmp_path)
    pieces("piece-0", work(tmp_path, 1)["piece-0"])
    whole = work(tmp_path, 6) | {"deadly": partial(worked_pieces.deadly, tmp_path, 9, 1)}
    found = on_two(pieces, whole)
    assert squares(found) == [0, 1, 4, 9, 16, 25, 81]
    assert [i for i in computed(tmp_path) if i < 9] == [0, 1, 2, 3, 4, 5]
    assert computed(tmp_path).count(9) == 2
    assert pieces.found == 1
    told = capfd.readouterr().err
    told = re.sub(r"left: \d", "left: N", told)  # a slow start leaves more than one
    assert "a process that computed was killed; pieces left: N; new processes compute" in told
    assert not active_children()


@pytest.mark.slow
def test_processes_that_die_of_every_piece_are_told(tmp_path):
    doomed = {"doomed": partial(worked_pieces.deadly, tmp_path, 9, 9)}
    with pytest.raises(InputError, match="none was finished since the last kill"):
        on_two(Pieces(tmp_path), doomed)
    wrong = {"no": partial(worked_pieces.refused, tmp_path, 3)}
    with pytest.raises(InputError, match="3 is no number"):
        on_two(Pieces(tmp_path), wrong)
    assert not active_children()


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_killed_takes_its_processes_along_and_the_next_goes_on(tmp_path, by):
    words = [sys.executable, worked_pieces.__file__, str(tmp_path), "6"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = subprocess.Popen([*words, "2"], env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "piece-0.npz").exists())
    workers = {int(path.name.split("-")[2]) for path in tmp_path.glob("by-*")}
    command.send_signal(by)
    _, told = command.communicate(timeout=60)
    assert command.returncode != 0
    assert told.count("Traceback") == (by == signal.SIGINT)  # of the command alone
    wait_for(lambda: not any(alive(worker) for worker in workers))
    finished = {path.stem for path in tmp_path.glob("piece-*.npz")}
    assert 0 < len(finished) < 6
    subprocess.run([*words, "0"], env=environment, check=True, capture_output=True)
    assert len(list(tmp_path.glob("piece-*.npz"))) == 6
    times = computed(tmp_path)
    assert all(times.count(int(name.split("-")[1])) == 1 for name in finished)


def wait_for(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(process):
    """Say whether a process runs: one that has ended may wait for its parent to notice."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_pieces_do_not_depend_on_the_number_of_threads(tmp_path):
    """Sums of floats do, and workers have fewer threads than the command."""

    def threads():
        return {"square": np.array(torch.get_num_threads())}

    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            pieces = Pieces(tmp_path / str(count))
            pieces.folder.mkdir()
            with on_processes(pieces, 1):
                found = pieces.each("pieces", {"piece": partial(by_one_thread, threads)})
            assert squares(found) == [1]
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)

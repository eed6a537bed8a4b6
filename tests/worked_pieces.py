"""Pieces that processes compute, for tests: each notes that it was computed."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from jacobian_lab import InputError
from studies.frame.study import Pieces
from studies.frame.workers import on_processes


def piece(folder, number, seconds):
    """Return the square of a number after some seconds; a file notes who computed it."""
    (folder / f"by-{number}-{os.getpid()}").touch()
    time.sleep(seconds)
    return {"square": np.array(number**2)}


def deadly(folder, number, times):
    """Kill the process the first few times."""
    done = len(list(folder.glob(f"by-{number}-*")))
    found = piece(folder, number, 1)  # until the others have finished
    if done < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def refused(folder, number):
    """Raise."""
    raise InputError(f"{number} is no number of {folder.name}")


def work(folder, count, seconds=0.0):
    """Return the work of some pieces."""
    return {f"piece-{i}": partial(piece, folder, i, seconds) for i in range(count)}


def computed(folder):
    """Return the numbers of the pieces that were computed, once for each time."""
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("by-*"))


if __name__ == "__main__":
    place, count, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    pieces = Pieces(place)
    with on_processes(pieces, 2):
        pieces.each("pieces", work(place, count, seconds))

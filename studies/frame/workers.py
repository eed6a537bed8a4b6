"""Pieces of a computation on several processes at once.

Each process writes the pieces that it computes, whole, so that nothing has to be put together
afterwards: what a kill of a process, or of the command, leaves undone is computed by the next ones,
and by them alone. Processes are spawned, not forked; one whose command has died, dies.

Each piece is computed by one thread, however many processes there are: sums of floats depend on the
number of threads, and results shall not depend on that of processes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TypeAlias

import torch
from tqdm import tqdm

from jacobian_lab import InputError
from studies.frame.study import Arrays, Pieces

Work: TypeAlias = Mapping[str, Callable[[], Arrays]]
"""Names of pieces, and what computes each: for several processes functions at the top level of a
module, with arguments by `functools.partial`.
"""


def compute_pieces(pieces: Pieces, work: Work, processes: int, what: str) -> list[Arrays]:
    """Return pieces in the order of their names, after computing those that are missing.

    Parameters
    ----------
    pieces : Pieces
    work : mapping
        Name -> function that computes the piece.
    processes : int
        How many compute at once; 1 is this one.
    what : str
        Title of the progress bar.

    Raises
    ------
    InputError
        If processes are killed and no piece is finished between two kills; or as a function does.
    """
    left = [name for name in work if not pieces.path(name).is_file()]
    known = pieces.found + len(work) - len(left)
    with tqdm(total=len(work), initial=len(work) - len(left), desc=what, unit="piece") as bar:
        while processes > 1 and left:
            try:
                _compute(pieces.folder, {name: work[name] for name in left}, processes, bar)
                break
            except BrokenProcessPool as error:
                missing = [name for name in left if not pieces.path(name).is_file()]
                told = f"a process that computed was killed; pieces left: {len(missing)}"
                if len(missing) == len(left):
                    raise InputError(
                        f"{told}, and none was finished since the last kill. If memory is short,"
                        " take fewer --processes; the same command goes on"
                    ) from error
                print(f"{told}; new processes compute them", file=sys.stderr, flush=True)
                left = missing
        found = []
        with _one_thread():
            for name, function in work.items():
                found.append(pieces(name, function))
                bar.update(processes == 1 and name in left)
    if processes > 1:
        pieces.found = known  # and not what the other processes have just written
    return found


def _compute(folder: Path, work: Work, processes: int, bar: tqdm) -> None:  # type: ignore[type-arg]
    """Compute pieces in processes; raise `BrokenProcessPool` if one is killed."""
    with _pool(processes) as pool:
        jobs = [pool.submit(_write, folder, name, function) for name, function in work.items()]
        for job in as_completed(jobs):
            job.result()
            bar.update()


def _write(folder: Path, name: str, function: Callable[[], Arrays]) -> None:
    Pieces(folder)(name, function)


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool; if the block fails, as by Ctrl-C, its processes end at once."""
    others = set(active_children())
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _prepare)
    try:
        yield pool
    except BaseException:
        for child in set(active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have PyTorch compute by one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare() -> None:
    """Prepare a process of a pool: Ctrl-C is for the command, with which this process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    Thread(target=_end_with_the_command, daemon=True).start()


def _end_with_the_command() -> None:
    command = parent_process()
    assert command is not None
    command.join()
    os._exit(1)

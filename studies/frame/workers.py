"""Pieces on several processes of this machine at once, or by one thread alone.

The processes are workers of a local cluster, see `studies.frame.launching`. What a kill of a
process, or of the command, leaves undone is computed by the next ones, and by them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from studies.frame.dataset import Arrays
from studies.frame.pieces import Pieces


@contextmanager
def on_processes(pieces: Pieces, count: int) -> Iterator[None]:
    """Have pieces computed by several processes inside; by this one if `count` is 1, or if there is
    an engine already.
    """
    if count == 1 or pieces.engine is not None:
        yield
        return
    from studies.frame.launching import local_cluster

    with local_cluster(count) as pieces.engine:
        try:
            yield
        finally:
            pieces.engine = None


def by_one_thread(function: Callable[[], Arrays]) -> Arrays:
    """Return a piece that PyTorch computes by one thread: sums of floats depend on the number of
    threads, and results shall not depend on that of processes.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function()
    finally:
        torch.set_num_threads(before)

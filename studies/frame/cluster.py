"""Pieces on the workers of a cluster, by dask.distributed.

Workers return arrays, and the command writes them: they share no file system, but for the path of a
model that has one. A worker that dies is replaced, and its piece computed again; a scheduler that
is lost is waited for, and gets again what is missing.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import Event, Lock
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from jacobian_lab import InputError, _require
from studies.frame.dataset import Arrays
from studies.frame.errands import Errand, run_errand
from studies.frame.pieces import TURN, Needs, Work

PATIENCE = 300.0
"""Seconds for which a lost scheduler is waited for."""
REACHED = 10.0
"""Seconds in which a scheduler has to answer."""


def distributed() -> Any:
    """Return the module dask.distributed."""
    _require.library("threadpoolctl", "sweep", "several processes")
    library = _require.library("distributed", "sweep", "several processes")
    # what a batch shares is sent once, however large it is
    import_module("dask.config").set({"distributed.admin.large-graph-warning-threshold": "10GB"})
    return library


class Cluster:
    """A scheduler and its workers: an engine for pieces.

    Parameters
    ----------
    connect : callable
        Returns a client of the scheduler; it is called again when the scheduler was lost.
    threads : int
        Threads that compute a piece.
    patience : float
        Seconds for which a lost scheduler is waited for.
    """

    def __init__(
        self, connect: Callable[[], Any], threads: int = 1, patience: float = PATIENCE
    ) -> None:
        self.connect, self.threads, self.patience = connect, threads, patience
        self.stopped = Event()
        self._lock, self._client = Lock(), connect()

    def about(self) -> str:
        """Return what a user wants to know of it, in lines."""
        counts = list(self._client.nthreads().values())
        link = self._client.dashboard_link
        lines = [f"scheduler {self._client.scheduler.address}, workers: {len(counts)}"]
        if not counts:
            lines[0] += "; pieces wait until some connect"
        if max(counts, default=1) > 1:
            lines += [
                "some workers have several threads, and a process computes one piece at a time:"
                " start them with --nthreads 1, and more of them"
            ]
        has_dashboard = find_spec("bokeh") is not None
        lines += [f"dashboard {link if has_dashboard else 'off: bokeh is not installed'}"]
        return "\n".join(lines)

    def __call__(self, work: Work, needs: Needs | None) -> Iterator[tuple[str, Arrays]]:
        """Yield name and arrays of each piece, as they are finished.

        Raises
        ------
        InputError
            If workers are killed and no piece is finished between two kills, the scheduler stays
            lost, or a worker has other code or models than this process; or as a piece does.
        """
        left = pack(work, needs, self.threads)
        while left:
            with TURN.given_up():
                client = self._connected()
            for name, arrays in self._finished(client, left):
                del left[name]
                yield name, arrays
            if left:
                self._drop(client)

    def _finished(
        self, client: Any, left: dict[str, tuple[Errand, bytes]]
    ) -> Iterator[tuple[str, Arrays]]:
        """Yield the pieces that are finished until there are no more, or the scheduler is lost."""
        waiting = distributed().as_completed(loop=client.loop)
        names: dict[Any, str] = {}
        shared = share(client, left)

        def submit(name: str) -> None:
            errand, arguments = left[name]
            key = f"{name}-{uuid4().hex}"
            future = client.submit(run_errand, shared[id(errand)], arguments, key=key)
            names[future] = name
            waiting.add(future)

        try:
            for name in left:
                submit(name)
            killed, since, failed = "", 1, None
            # when one has failed, those that are finished already are kept
            while names and (failed is None or waiting.has_ready()):
                with TURN.given_up():
                    future = self._next(client, waiting)
                    found = None if future is None else outcome(future)
                if found is None:
                    return
                name = names.pop(future)
                if isinstance(found, dict):
                    since += 1
                    yield name, found
                elif not isinstance(found, distributed().scheduler.KilledWorker):
                    failed = found
                else:
                    if found.last_worker.address != killed:
                        tell_of_kill(len(names) + 1, since)
                        killed, since = found.last_worker.address, 0
                    submit(name)
            if failed is not None:
                raise failed
        finally:
            with suppress(Exception):  # the scheduler may be lost
                client.cancel(list(names))

    def _next(self, client: Any, waiting: Any) -> Any:
        """Return the next future that is done, or None if the scheduler is lost."""
        while not waiting.has_ready():
            if self.stopped.wait(0.05):
                raise KeyboardInterrupt
            comm = client.scheduler_comm
            if client.status != "running" or comm is None or comm.comm.closed():
                return None
        return next(waiting)

    def _connected(self) -> Any:
        """Return the client, after waiting for a lost scheduler."""
        with self._lock:
            until = time.monotonic() + self.patience
            if self._client is None:
                told = f"the scheduler is lost: waiting for it up to {self.patience:g} s"
                print(told, file=sys.stderr, flush=True)
            while self._client is None:
                try:
                    self._client = self.connect()
                except InputError as error:
                    if time.monotonic() > until:
                        raise InputError(
                            f"{error}. It was lost, and did not come back within"
                            f" {self.patience:g} s; finished pieces are kept, and the same command"
                            " goes on"
                        ) from error
                if self.stopped.wait(0.5 if self._client is None else 0):
                    raise KeyboardInterrupt
            return self._client

    def _drop(self, client: Any) -> None:
        """Forget a client whose scheduler is lost."""
        with self._lock:
            if self._client is client:
                self._client = None
                with suppress(Exception):
                    client.close(timeout=1)

    def close(self) -> None:
        """Leave the scheduler."""
        self.stopped.set()
        if self._client is not None:
            with suppress(Exception):
                self._client.close(timeout=1)


def share(client: Any, sent: dict[str, tuple[Errand, bytes]]) -> dict[int, Any]:
    """Return futures of the errands by their ids: each goes to the scheduler once."""
    errands = {id(errand): errand for errand, _ in sent.values()}
    return {
        key: client.submit(Errand, *errand, key=f"errand-{uuid4().hex}")
        for key, errand in errands.items()
    }


def pack(work: Work, needs: Needs | None, threads: int) -> dict[str, tuple[Errand, bytes]]:
    """Return what is sent for each piece: what it shares with others, and its arguments."""
    told = "" if needs is None else json.dumps(needs)
    errands: dict[int, Errand] = {}
    found = {}
    for name, whole in work.items():
        function: Callable[..., Any]
        arguments: tuple[Any, ...]
        function, arguments = whole, ()
        if isinstance(whole, partial) and not whole.keywords:
            function, arguments = whole.func, whole.args
        try:
            if id(function) not in errands:
                pickled = dumps(function)
                errands[id(function)] = Errand(told, os.getcwd(), threads, pickled)
            found[name] = errands[id(function)], dumps(arguments)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise InputError(f"{name} cannot travel to another process: {error}") from error
    return found


def dumps(what: Any) -> bytes:
    """Return anything pickled, functions of functions too, and views without what they look at."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, found: Any) -> Any:
            if type(found) is torch.Tensor and is_part(found):
                return found.clone().__reduce_ex__(pickle.HIGHEST_PROTOCOL)  # type: ignore[no-untyped-call]
            return super().reducer_override(found)

    file = BytesIO()
    Pickler(file).dump(what)
    return file.getvalue()


def is_part(x: Tensor) -> bool:
    """Return whether a tensor is a view of more than it shows."""
    return (
        x.layout is torch.strided
        and not x.requires_grad
        and x.untyped_storage().nbytes() > x.nbytes
    )


def outcome(future: Any) -> Any:
    """Return the arrays of a piece, what it raised, the `KilledWorker` of one whose worker died, or
    None if the scheduler is lost.
    """
    try:
        error = future.exception() if future.status == "error" else None
        if error is None:
            return future.result()
    except (CancelledError, OSError):
        return None
    if isinstance(error, ImportError) or "deserialization of the task graph" in str(error):
        cause = error.__cause__ or error
        return InputError(
            f"a worker or the scheduler lacks what it needs ({type(cause).__name__}: {cause}):"
            " install the same jacobian-lab there as here"
        )
    return error


def tell_of_kill(left: int, since: int) -> None:
    """Print that a worker was killed; raise if no piece was finished `since` the last kill."""
    told = f"a process that computed was killed; pieces left: {left}"
    if not since:
        raise InputError(
            f"{told}, and none was finished since the last kill. If memory is short, take fewer"
            " --processes or --workers; the same command goes on"
        )
    print(f"{told}; new processes compute them", file=sys.stderr, flush=True)


def reach(place: str) -> Any:
    """Return a client of the scheduler of an address or a scheduler file.

    Raises
    ------
    InputError
        If there is none.
    """
    library = distributed()
    try:
        is_file = place.endswith(".json")
        address = json.loads(Path(place).read_bytes())["address"] if is_file else place
        return library.Client(address, timeout=REACHED, set_as_default=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"--scheduler {place} cannot be reached ({type(error).__name__}: {error}): expected the"
            " address of a running scheduler, such as tcp://host:8786, or the file that `dask"
            " scheduler --scheduler-file FILE.json` writes"
        ) from error

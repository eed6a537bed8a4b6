"""What a worker of a cluster does for a command: it computes a piece and returns its arrays.

The scheduler imports this module too, so that nothing heavy is imported at its top.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from studies.frame.allocator import keep_freed_memory

ONE_AT_A_TIME = Lock()
"""Folder, threads and filters of warnings belong to a process, which may have several threads."""


MODELS: ContextVar[str] = ContextVar("MODELS", default="")
"""The models of the command that sent the errand, for `check_models`; empty in a command."""


class Errand(NamedTuple):
    """What the pieces of a batch have in common. It is sent once to each worker."""

    needs: str
    """What must be the same here as where the command runs, `Needs` as JSON; empty: nothing."""
    folder: str
    """Where the command runs: relative paths of models are looked up there, if there is such."""
    threads: int
    function: bytes
    """Pickled: it computes a piece from its arguments."""


def dask_setup(_worker: Any) -> None:
    """Prepare a local worker: Ctrl-C is for the command, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()


def run_errand(errand: Errand, arguments: bytes) -> Any:
    """Return the piece of these arguments.

    Raises
    ------
    InputError
        If this worker has other code or other models than the command; or as the piece does.
    """
    there = chdir(errand.folder) if Path(errand.folder).is_dir() else nullcontext()
    with ONE_AT_A_TIME, there, threads(errand.threads):
        if errand.needs:
            _check(errand.needs)
        models = MODELS.set(json.dumps(json.loads(errand.needs)[1:]) if errand.needs else "")
        try:
            return _function(errand)(*pickle.loads(arguments))
        finally:
            MODELS.reset(models)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Have PyTorch and linear algebra compute by so many threads inside: the sums of floats depend
    on it.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@lru_cache(maxsize=2)
def _function(errand: Errand) -> Callable[..., Any]:
    function: Callable[..., Any] = pickle.loads(errand.function)
    return function


@lru_cache(maxsize=8)
def _check(needs: str) -> None:
    """Raise unless this worker has the code and the models that the command has."""
    from jacobian_lab import InputError
    from mnist.runs import code
    from studies.frame.provenance import PACKAGES

    wanted, *models = json.loads(needs)
    here = code(PACKAGES, tuple(wanted.keys() - {"sources"}))
    other = [
        f"{key} {str(here[key])[:12]}, of the command {str(wanted[key])[:12]}"
        for key in sorted(wanted)
        if here[key] != wanted[key]
    ]
    if other:
        raise InputError(
            f"{_here()} has other code than the command ({'; '.join(other)}): install the same"
            " there, and start the workers again"
        )
    check_models(json.dumps(models))


def check_models(models: str) -> None:
    """Raise unless this worker has the models of a command, their identities and kinds as JSON."""
    from jacobian_lab import InputError
    from studies.frame.provenance import identity
    from studies.frame.user_models import first

    weights, kinds = json.loads(models)
    for name, wanted in weights.items():
        if identity(name, kinds[name]) == wanted:
            continue
        first.cache_clear()  # this worker may have opened the model before it was changed
        if identity(name, kinds[name]) != wanted:
            raise InputError(
                f"{_here()} finds another {name} than the command when it started: the model was"
                " changed meanwhile, or differs on that machine. Start the command again, or copy"
                " the model there"
            )


def _here() -> str:
    return f"the worker {os.getpid()} on {socket.gethostname()}"

"""Whether a network draws random numbers, in which case it has no Jacobian."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jacobian_lab.derivative.arguments import in_order
from jacobian_lab.errors import InputError

SWITCHES = ("train", "training", "dropout_p")
"""Arguments by which an operation that PyTorch tags as random is told not to draw: those of
dropout, `rrelu`, recurrent layers and fused attention.
"""
AGAIN = ContextVar("AGAIN", default=False)
"""Whether the network runs again because a thread has drawn, perhaps another one: by chance, so
that whoever counts passes leaves these out.
"""


def random_state() -> tuple[Any, ...]:
    """Return the states of the generators that a network may draw from: PyTorch's, numpy's and
    Python's.
    """
    name, keys, position, *_ = np.random.get_state()  # noqa: NPY002 - the one that networks draw from
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    torchs = (hash(state.numpy().tobytes()) for state in (torch.get_rng_state(), *cuda))
    return (*torchs, name, hash(np.asarray(keys).tobytes()), position, hash(random.getstate()))


@contextmanager
def deterministic(run: Callable[[], Tensor]) -> Iterator[None]:
    """Raise if what runs inside draws random numbers from a generator of PyTorch, numpy or Python.

    These generators belong to the process. Where other threads are alive, one of them may have
    drawn, so the network runs twice more to tell whose draws they were.

    Parameters
    ----------
    run : callable
        Runs the network at a fixed point and returns its output.

    Raises
    ------
    InputError
        If the network draws.
    """
    before = random_state()
    yield
    if random_state() != before and (threading.active_count() == 1 or _draws(run)):
        raise InputError(
            "the network draws random numbers as it runs: make it deterministic (evaluation mode,"
            " fixed noise), or it has no Jacobian"
        )


def _draws(run: Callable[[], Tensor]) -> bool:
    """Return whether the network draws, whatever other threads do.

    1. PyTorch's draws are seen as operations of this thread, even if they hardly change the output.
    2. Draws of numpy and of Python are not operations: they are noticed by their effect, an output
       that differs in any bit from one run to the next.
    """
    watch = _Draws()  # type: ignore[no-untyped-call]
    token = AGAIN.set(True)
    try:
        with torch.no_grad():
            try:
                with watch:
                    first, second = run(), run()
            # networks that cannot be watched; see `precision.observed`
            except (RuntimeError, NotImplementedError, TypeError):
                first, second = run(), run()
    finally:
        AGAIN.reset(token)
    return watch.found or not torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notices operations of this thread that draw from a generator of the process."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            names = [argument.name for argument in func._schema.arguments]
            given = dict(zip(names, in_order(func, args, kwargs or {}), strict=True))
            own = given.get("generator") not in (None, torch.default_generator)
            self.found |= not own and all(given.get(switch, True) for switch in SWITCHES)
        return func(*args, **(kwargs or {}))

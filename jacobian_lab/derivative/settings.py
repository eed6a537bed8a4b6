"""Settings under which derivatives are possible: some belong to a thread, others to the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def differentiable() -> Iterator[None]:
    """Make derivatives possible inside: gradients on, compiled networks run as they were written.

    The caller's settings come back afterwards; those that PyTorch keeps for the whole process, when
    the last thread is out.
    """
    with torch.inference_mode(False), torch.enable_grad(), _WRITTEN:
        yield


class _Setting:
    """A setting of the process, not of a thread: the first thread that needs it sets it, the last
    one sets it back.

    Parameters
    ----------
    make : callable
        Returns a context in which it is set.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, ExitStack()
        self._make = make

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before.enter_context(self._make())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.close()


def _as_written() -> AbstractContextManager[Any]:
    # something was compiled: whoever compiles has imported it
    return torch.compiler.set_stance("force_eager") if "_dynamo" in vars(torch) else nullcontext()


_WRITTEN = _Setting(_as_written)  # one for the process, as they are
MATH_ATTENTION = _Setting(lambda: sdpa_kernel(SDPBackend.MATH))
"""Have attention computed by the math kernel inside, which has a second derivative and a forward
mode. The others have not, but keep no n x m matrices.
"""

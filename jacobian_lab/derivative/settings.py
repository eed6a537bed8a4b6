"""Settings under which derivatives are possible: some belong to a thread, others to the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def differentiable() -> Iterator[None]:
    """Make derivatives possible inside: gradients on, attention by the math kernel, compiled
    networks run as they were written.

    The caller's settings come back afterwards; those that PyTorch keeps for the whole process, when
    the last thread is out.
    """
    with torch.inference_mode(False), torch.enable_grad(), _SETTINGS:
        yield


class _Settings:
    """Settings of the process, not of a thread: the first thread that needs them sets them, the
    last one sets them back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                with ExitStack() as settings:  # set back at once, if one of them cannot be set
                    settings.enter_context(sdpa_kernel(SDPBackend.MATH))
                    # something was compiled: whoever compiles has imported it
                    if "_dynamo" in vars(torch):
                        settings.enter_context(torch.compiler.set_stance("force_eager"))
                    self._before = settings.pop_all()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.close()


_SETTINGS = _Settings()  # one for the process, as they are

"""Settings under which derivatives are possible: some belong to a thread, others to the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab.errors import InputError

Autocast: TypeAlias = tuple[tuple[str, torch.dtype], ...]
"""Kinds of devices on which autocast is on, each with its precision."""
KINDS = ("cpu", "cuda", "mps", "xpu")
_CALLERS: ContextVar[Autocast] = ContextVar(
    "autocast of whoever called `differentiable`", default=()
)
_BACKENDS: Any = torch.backends
FLOAT32: dict[str, dict[str, Any]] = {
    "cpu": {
        "torch.backends.mkldnn.matmul": _BACKENDS.mkldnn.matmul,
        "torch.backends.mkldnn.conv": _BACKENDS.mkldnn.conv,
    },
    "cuda": {
        "torch.backends.cuda.matmul": _BACKENDS.cuda.matmul,
        "torch.backends.cudnn.conv": _BACKENDS.cudnn.conv,
    },
}
"""Where PyTorch is told to compute float32 in TF32 or bfloat16, by kind of device."""


@contextmanager
def differentiable() -> Iterator[None]:
    """Make derivatives possible inside: gradients on, compiled networks run as they were written,
    autocast off, which a network gets back by `as_called` and the rules of a recording must not
    have.

    The caller's settings come back afterwards; those that PyTorch keeps for the whole process, when
    the last thread is out.
    """
    token = _CALLERS.set(autocast_here())
    try:
        with torch.inference_mode(False), torch.enable_grad(), _WRITTEN, under(()):
            yield
    finally:
        _CALLERS.reset(token)


def autocast_here() -> Autocast:
    """Return the autocast of the caller; inside `differentiable` of whoever called that."""
    found = [kind for kind in KINDS if torch.is_autocast_enabled(kind)]
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in found) or _CALLERS.get()


@contextmanager
def under(autocast: Autocast) -> Iterator[None]:
    """Have this autocast inside, and no other."""
    wanted, stack = dict(autocast), ExitStack()
    for kind in KINDS:
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        if dtype != wanted.get(kind):
            on = kind in wanted
            stack.enter_context(torch.autocast(kind, wanted.get(kind), enabled=on))
    with stack:
        yield


def as_called(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function under the autocast of this place, wherever it is called: its derivative is
    that of one function, also where it is found later.
    """
    autocast = autocast_here()

    @wraps(function)
    def called(x: Tensor) -> Tensor:
        with under(autocast):
            return function(x)

    return called


def made_under(autocast: Autocast, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Make something where the autocast is this one: how what was pickled is made anew."""
    with under(autocast):
        return make(*arguments)


def coarser_float32(kind: str) -> list[str]:
    """Return the settings by which float32 is computed coarser on a kind of device, such as
    "torch.backends.cuda.matmul.fp32_precision = tf32".
    """
    found = {name: place.fp32_precision for name, place in FLOAT32.get(kind, {}).items()}
    return [
        f"{name}.fp32_precision = {value}"
        for name, value in found.items()
        if value not in ("none", "ieee")
    ]


class Float32:
    """How float32 is computed on a kind of device now, to be compared with how it is later."""

    def __init__(self, kind: str) -> None:
        self.kind, self.coarser = kind, coarser_float32(kind)

    def check(self) -> None:
        """Raise if that changed: the products of an operator would be of another precision than the
        one that was checked.
        """
        now = coarser_float32(self.kind)
        if now != self.coarser:
            after, before = (", ".join(found) or "in full" for found in (now, self.coarser))
            raise InputError(
                f"float32 is computed otherwise than when this operator was made: {after}; then it"
                f" was {before}. Set that back, or make the operator anew"
            )


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

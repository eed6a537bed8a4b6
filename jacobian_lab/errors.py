"""What can go wrong: one exception for input that cannot be right, one warning for a solver that
stopped early.
"""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """The input cannot be right; the message names the value, what was expected, and the remedy.

    Everything that the project raises on purpose is an `InputError`, so that the command line can
    tell a user's slip (one line, exit status 2) from a defect (a traceback).
    """


class DivergenceError(InputError):
    """A sampler's state left every bound; `trace` has (time, residuals of the samples) of each
    state so far.
    """

    def __init__(self, message: str, trace: list[tuple[float, list[float]]]) -> None:
        super().__init__(message)
        self.trace = trace

    # a process of a pool hands it on: BaseException's own leaves the trace out
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.trace)


class ConvergenceWarning(UserWarning):
    """A solver stopped before its tolerance; its partial result is handed back and says so."""


class DerivativeWarning(UserWarning):
    """Products are not what their name promises: differences where exact ones were asked for, or a
    derivative that is zero.
    """

"""One visit of the explorer's page: what it looks at, its lines of work, and how it ends."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Protocol

from jacobian_lab import InputError
from studies.explore.background import Deliver, Line
from studies.explore.point import Point


class Panel(Protocol):
    """A part of the page that looks at the point."""

    def show(self, point: Point) -> None:
        """Look at another point; on the event loop."""


class Session:
    """What the parts of a page share.

    Parameters
    ----------
    deliver : callable
        Runs a function on the event loop.
    say : callable
        Shows a sentence about an error in the page, or none.
    """

    def __init__(self, deliver: Deliver, say: Callable[[str], None]) -> None:
        self._deliver, self.say = deliver, say
        self.point: Point | None = None
        self.tab = "pixel"
        self._lines: dict[str, Line] = {}
        self.closed = False

    def line(self, name: str) -> Line:
        """Return the line of work of this name."""
        return self._lines.setdefault(name, Line(self.deliver, self.failed))

    def deliver(self, show: Callable[[], None]) -> None:
        """Drawing a function on the event loop, unless the page is gone."""
        if not self.closed:
            self._deliver(lambda: None if self.closed else show())

    def failed(self, error: Exception) -> None:
        """Show an error as a sentence; what nobody expected also goes to the terminal, in full."""
        if isinstance(error, InputError):
            self.say(str(error))
            return
        traceback.print_exception(error, file=sys.stderr)
        self.say(
            f"This failed ({type(error).__name__}: {error}). The terminal where the explorer runs"
            " has the details."
        )

    def close(self) -> None:
        """Stop all work, and let the operator go."""
        self.closed = True
        for line in self._lines.values():
            line.stop()
        self.point = None

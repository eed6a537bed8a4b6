"""Work off the event loop: each line of work does the newest job only, and tells the page how far
it is.

    line = Line(deliver)
    line.start(work)        # an earlier job is told to stop; work(job) runs in the line's thread
    job.tell(show, value)   # in work: show(value) on the event loop, unless a newer job has started
    stoppable(J, job)       # an operator whose products end the job once it is stopped
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab.krylov.conversion import provenance
from jacobian_lab.krylov.operators import Operator

Array: TypeAlias = NDArray[Any]
Deliver: TypeAlias = Callable[[Callable[[], None]], None]
"""Runs a function on the event loop."""


class Stopped(Exception):  # noqa: N818  no error: the user asked for it
    """Raised in the work of a job that was stopped."""


class Job:
    """One piece of work of a line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.stopped = False

    def check(self) -> None:
        """Raise `Stopped` if the job was stopped."""
        if self.stopped:
            raise Stopped

    def tell(self, show: Callable[..., None], *values: Any) -> None:
        """Have `show(*values)` called on the event loop; raise `Stopped` if the job was stopped."""
        self.check()
        self._line.deliver(lambda: None if self.stopped else show(*values))


class Line:
    """A line of work: a thread while there is work, which does the newest job.

    Parameters
    ----------
    deliver : callable
        Runs a function on the event loop.
    failed : callable
        Gets the exception of a job, on the event loop.
    """

    def __init__(self, deliver: Deliver, failed: Callable[[Exception], None]) -> None:
        self.deliver, self.failed = deliver, failed
        self._lock = threading.Lock()
        self._running: Job | None = None
        self._newest: Job | None = None
        self._next: tuple[Job, Callable[[Job], None]] | None = None

    def start(self, work: Callable[[Job], None]) -> Job:
        """Do `work(job)`, in place of what the line is doing or has left to do."""
        job = Job(self)
        with self._lock:
            self._stop()
            self._next, self._newest = (job, work), job
            if self._running is None:
                self._running = job
                threading.Thread(target=self._work).start()
        return job

    def stop(self) -> None:
        """Stop the present job, and what is left to do."""
        with self._lock:
            self._stop()

    @property
    def busy(self) -> bool:
        """Whether a job is at work that was not stopped."""
        with self._lock:
            return self._next is not None or not (self._running is None or self._running.stopped)

    def _stop(self) -> None:
        if self._newest is not None:  # at work, or at its end, with something still to be shown
            self._newest.stopped = True
        self._next = None

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._next is None:
                    self._running = None
                    return
                (job, work), self._next = self._next, None
                self._running = job
            try:
                work(job)
            except Stopped:
                pass
            except Exception as error:  # the thread goes on, and the page says what happened
                if not job.stopped:
                    self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        self.deliver(lambda: None if job.stopped else self.failed(error))


def stoppable(
    A: LinearOperator, job: Job, progress: Callable[[int], None] = lambda _: None
) -> Operator:
    """Return A as an operator whose products raise `Stopped` once the job is stopped, and report
    how many there were.
    """
    done = 0

    def through(product: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def apply(V: Array) -> Array:
            nonlocal done
            job.check()
            result = np.asarray(product(V))
            done += V.shape[1]
            progress(done)
            return result

        return apply

    known = provenance(A)
    return Operator(A.shape, A.dtype, through(A.matmat), through(A.rmatmat), **known._asdict())


__all__ = ["Array", "Deliver", "Job", "Line", "Stopped", "stoppable"]

"""Lines of work."""

import threading
import time

import numpy as np
import pytest

from studies.explore.background import Line, Stopped, stoppable


@pytest.fixture
def told():
    return []


@pytest.fixture
def line(told):
    def failed(error):
        told.append(repr(error))

    made = Line(lambda show: show(), failed)
    yield made
    made.stop()


def wait(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_line_does_the_newest_job_and_drops_those_between(line, told):
    begun, go = threading.Event(), threading.Event()

    def first(job):
        begun.set()
        go.wait(5)
        job.tell(told.append, "first")

    line.start(first)
    begun.wait(5)
    for i in range(5):
        line.start(lambda job, i=i: job.tell(told.append, i))
    assert line.busy
    go.set()
    wait(lambda: not line.busy)
    assert told == [4]


def test_what_was_told_before_a_stop_is_not_shown_after_it():
    shows = []
    line = Line(shows.append, pytest.fail)
    job = line.start(lambda job: job.tell(pytest.fail, "too late"))
    wait(lambda: shows)
    line.start(lambda job: None)
    assert job.stopped
    for show in shows:
        show()


def test_an_error_is_told_and_the_line_goes_on(line, told):
    def breaks(job):
        raise ValueError("no")

    line.start(breaks)
    wait(lambda: told)
    line.start(lambda job: job.tell(told.append, "well"))
    wait(lambda: len(told) == 2)
    assert told == ["ValueError('no')", "well"]


def test_a_stopped_job_ends_at_its_next_product(line, told):
    A = np.diag([1.0, 2.0, 3.0])
    ends, counts = [], []

    def work(job):
        own = stoppable(line_operator(A), job, counts.append)
        assert (own @ np.ones(3)).tolist() == [1, 2, 3]
        assert (own.T @ np.ones((3, 2))).shape == (3, 2)
        try:
            while True:
                own @ np.ones(3)
        except Stopped:
            ends.append(True)
            raise

    line.start(work)
    wait(lambda: len(counts) > 5)
    line.stop()
    wait(lambda: ends)
    assert counts[:3] == [1, 3, 4]
    wait(lambda: not line.busy)
    assert not told


def line_operator(A):
    from scipy.sparse.linalg import aslinearoperator

    return aslinearoperator(A)

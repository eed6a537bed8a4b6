"""A cluster: what is sent, what is told where it fails, and what is not lost."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.cli import named, parsed, study_of
from studies.frame import cluster
from studies.frame.cluster import pack
from studies.frame.launching import cluster_at
from studies.frame.pieces import Needs, Pieces

from worked_pieces import computed, work

pytest.importorskip("distributed")


def test_what_pieces_share_is_pickled_once():
    shared = np.zeros(100_000)

    def compute(i):
        return {"x": shared[:i]}

    found = pack({str(i): partial(compute, i) for i in range(20)}, Needs({}, {}, {}), 2)
    assert len({id(errand) for errand, _ in found.values()}) == 1
    assert sum(len(arguments) for _, arguments in found.values()) < 2000
    errand, arguments = found["3"]
    assert (errand.needs, errand.folder, errand.threads) == ("[{}, {}, {}]", os.getcwd(), 2)
    assert len(pickle.loads(errand.function)(*pickle.loads(arguments))["x"]) == 3


def test_what_cannot_travel_says_why():
    with pytest.raises(InputError, match=r"piece cannot travel to another process: .*lock"):
        pack({"piece": partial(print, threading.Lock())}, None, 1)


@pytest.mark.parametrize("content", [None, "no json", "{}", '{"address": 3}'])
def test_a_scheduler_file_that_is_none_is_told(tmp_path, content):
    path = tmp_path / "scheduler.json"
    if content is not None:
        path.write_text(content)
    with (
        pytest.raises(InputError, match=r"--scheduler .*scheduler\.json cannot be reached"),
        cluster_at(str(path)),
    ):
        pass


@pytest.mark.parametrize("place", ["tcp://127.0.0.1:1", "nonsense", "http://x", "tcp://"])
def test_a_scheduler_that_cannot_be_reached_is_told(monkeypatch, place):
    monkeypatch.setattr(cluster, "REACHED", 0.5)
    message = f"--scheduler {place} cannot be reached"
    with pytest.raises(InputError, match=message), cluster_at(place):
        pass


class Machines:
    """A scheduler and workers in processes of their own."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.running = []

    def begin(self, *words, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.running.append(process)
        return process

    def scheduler(self):
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        return self.begin("distributed.cli.dask_scheduler", *words)

    def worker(self, **environment):
        words = [self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
        return self.begin("distributed.cli.dask_worker", *words, **environment)

    def end(self):
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def machines():
    made = Machines()
    yield made
    made.end()


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_five_workers_and_the_scheduler_are_killed_and_nothing_is_lost(machines, tmp_path, capfd):
    scheduler, workers = machines.scheduler(), [machines.worker() for _ in range(2)]
    pieces, found = Pieces(tmp_path), []

    def compute():
        with cluster_at(machines.address) as pieces.engine:
            found.extend(pieces.each("pieces", work(tmp_path, 60, 0.5)))

    thread = threading.Thread(target=compute)
    thread.start()
    finished = lambda: len(list(tmp_path.glob("piece-*.npz")))  # noqa: E731
    for kill in range(5):
        wait_for(lambda goal=6 * kill + 3: finished() >= goal)
        workers[0].send_signal(signal.SIGKILL)
        workers = [workers[1], machines.worker()]
    wait_for(lambda: finished() >= 36)
    scheduler.send_signal(signal.SIGKILL)
    scheduler.wait()
    before = set(tmp_path.glob("piece-*.npz"))
    for worker in workers:
        worker.wait(60)  # without a scheduler they end
    machines.scheduler(), machines.worker(), machines.worker()
    thread.join(180)
    assert [int(piece["square"]) for piece in found] == [i**2 for i in range(60)]
    assert "the scheduler is lost: waiting for it up to 300 s" in capfd.readouterr().err
    times = computed(tmp_path)
    assert all(times.count(int(path.stem.split("-")[1])) <= 2 for path in before)
    assert len(times) <= 60 + 2 * 5 + 2 * 2  # what was on its way at each kill


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_stays_away_is_told(machines, tmp_path, by):
    scheduler = machines.scheduler()
    machines.worker()
    pieces = Pieces(tmp_path)

    def compute():
        with cluster_at(machines.address, patience=2) as pieces.engine:
            pieces.each("pieces", work(tmp_path, 20, 0.5))

    def kill():
        wait_for(lambda: list(tmp_path.glob("piece-*.npz")))
        scheduler.send_signal(by)

    threading.Thread(target=kill).start()
    with pytest.raises(InputError, match="did not come back within 2 s; finished pieces are kept"):
        compute()
    assert list(tmp_path.glob("piece-*.npz"))


@pytest.mark.slow
def test_a_worker_without_torch_is_told(machines, tmp_path):
    machines.scheduler()
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    machines.worker(PYTHONPATH=path)
    pieces = Pieces(tmp_path)
    with (
        cluster_at(machines.address) as pieces.engine,
        pytest.raises(InputError, match=r"lacks what it needs \(ImportError: no torch here\)"),
    ):
        pieces.each("pieces", work(tmp_path, 2))


def test_needs_travel_as_json():
    errand = pack({"a": dict}, Needs({"torch": "1"}, {"m": {"weights": "x"}}, {"m": "made"}), 1)
    assert json.loads(errand["a"][0].needs)[1] == {"m": {"weights": "x"}}


TINY = {
    "directions": "--digits 1 --times 500",
    "spectrum": "--model oracle --arnoldi-steps 10",
    "eigenvectors": "--model oracle --k 1",
    "symmetry": "--model oracle --digits 1 --times 500 --shown 500",
    "guidance": "--digits 1 --times 500 --guidances 1 2",
    "evaluate": "--samples 64 --jacobians 1 --digits 2 --times 500 --steps 2",
    "accuracy": "--model oracle --times 500 --vectors 1 --pairs 1",
    "inpaint": "--steps 2 --newton-steps 1 --digits 1 --samples 1",
    "superres": "--steps 2 --newton-steps 1 --digits 1 --samples 1",
    "style": "--steps 2 --newton-steps 1 --samples 1",
    "guide": "--steps 2 --newton-steps 1 --samples 1",
    "convergence": "--digits 1 --steps 2 --points 1 --jacobians 1 --newton-steps 1",
    "posterior": "--curves 1 --samples 8 --exact-samples 8 --steps 2",
    "captions": "--steps 1 --samples 3 --stock 1 --digits 10 --guidances 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("study", TINY)
def test_pieces_of_every_study_travel_and_are_what_they_are_here(study, tmp_path):
    _, command, words = named([study, *TINY[study].split()])
    config, found = parsed(command, study, words), []

    def travels(missing, needs):
        functions = {}
        for name, (errand, arguments) in pack(missing, needs, 1).items():
            assert len(errand.function) < 16e6  # at most the latent miniature, once
            assert len(arguments) < 1000
            again = functions.setdefault(errand, pickle.loads(errand.function))
            yield name, again(*pickle.loads(arguments))

    for engine in (None, travels):
        pieces = Pieces(tmp_path / str(engine is None))
        pieces.folder.mkdir()
        pieces.engine = engine
        found.append(study_of(command).compute(config, pieces))
    for key, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][key], err_msg=key)

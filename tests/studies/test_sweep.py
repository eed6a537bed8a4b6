"""Sweeps: the runs that plain commands would write, to the bit, whatever is killed on the way."""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from jacobian_lab import InputError, _require
from studies.commands import COMMANDS, study_of
from studies.frame import cluster
from studies.frame.launching import local_cluster
from studies.frame.models import open_model
from studies.frame.study import perform
from studies.frame.user_models import registered
from studies.jacobian.eigenvalues import STUDY, Eigenvalues
from studies.sweep import Progress, SweepOptions, SweptRun

import tiny_model
from conftest import call, stored

pytest.importorskip("distributed")
FILE = tiny_model.__file__
TIMES = ["--times", "300", "500"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Two workers, shared by the tests of this file."""
    notes = tmp_path_factory.mktemp("notes") / "opened"
    os.environ["TINY_NOTES"] = str(notes)
    with local_cluster(2) as made:
        yield made._client.scheduler.address
    del os.environ["TINY_NOTES"]


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).clip(-1, 1)
    np.save("images.npy", values.astype(np.float32))
    return ["--images", "images.npy"]


def arrays(folder):
    return stored(Path(folder))


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key], err_msg=key)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_runs_are_those_of_plain_commands_to_the_bit(
    address, images, one_thread, monkeypatch, capsys
):
    words = ["eigenvalues", *images, "--times", "500"]
    status, out, err = call(
        monkeypatch, capsys, "sweep", *words, "--model", f"{FILE}:make", f"{FILE}:other",
        "--seeds", "4:6", "--scheduler", address,
    )  # fmt: skip
    assert status == 0, err
    assert "workers: 2" in err
    assert "10/10" in err
    lines = out.splitlines()
    folders = sorted(Path("runs").iterdir())
    assert len(folders) == 2
    for name, line in zip(("make", "other"), lines, strict=True):
        assert line.startswith(f"--model {FILE}:{name}: runs/eigenvalues-")
        assert line.endswith("/, computed; pieces: 5")
        plain = [*words, "--model", f"{FILE}:{name}", "--seed", "4", "--seeds", "2"]
        assert call(monkeypatch, capsys, *plain, "--out", name)[0] == 0
        folder = line.split(": ")[1].split("/,")[0]
        assert_equal(arrays(name), arrays(folder))
        assert json.loads(Path(folder, "manifest.json").read_text())["threads"] == 1
        again = call(monkeypatch, capsys, *plain)
        assert "reused: table and figures drawn anew from data.nc\n" in again[1]
    status, out, _ = call(
        monkeypatch, capsys, "sweep", *plain, "--scheduler", address, "--threads", "2"
    )
    assert status == 0
    assert "reused" in out
    assert "(computed with 1 thread a piece, and this command would take 2" in out


def test_a_model_is_opened_once_in_a_worker(address, images, monkeypatch, capsys):
    notes = Path(os.environ["TINY_NOTES"])
    notes.unlink(missing_ok=True)
    words = ["eigenvalues", *images, *TIMES, "--model", f"{FILE}:make", "--seeds", "0:5"]
    assert call(monkeypatch, capsys, "sweep", *words, "--scheduler", address)[0] == 0
    workers = [int(line) for line in notes.read_text().split()]
    workers = [process for process in workers if process != os.getpid()]
    # to be identified, to be used, and in float64; some of it in the test before
    assert max((workers.count(process) for process in set(workers)), default=0) <= 3


def test_a_piece_that_fails_fails_its_run_and_no_other(address, images, monkeypatch, capsys):
    # one piece fails, so that one of the two workers is left for the others
    np.save("images.npy", np.load("images.npy")[:1])
    words = ["sweep", "eigenvalues", *images, *TIMES, "--seeds", "0:1", "--scheduler", address]
    names = [f"{FILE}:broken", f"{FILE}:make"]
    status, out, err = call(monkeypatch, capsys, *words, "--model", *names)
    assert status == 2
    assert "error: " in err
    assert "not finite" in err.splitlines()[-1]
    assert "(1 of 2 runs failed)" in err
    failed, well = out.splitlines()
    assert failed.startswith(f"--model {FILE}:broken: failed: ")
    assert ", computed; pieces: " in well
    (partial,) = Path("runs").glob("*.partial")
    assert {path.name.split("-")[2] for path in partial.glob("*.npz")} == {"300"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "name a study: jacobian-lab sweep STUDY"),
        ("--model mnist", "name a study"),
        ("eigenvalue", "unknown command 'eigenvalue': did you mean eigenvalues"),
        ("audit", "audit cannot be swept: it is no study"),
        ("benchmark products", "benchmark products cannot be swept: it measures what"),
        ("eigenvalues mnist", "after sweep eigenvalues come --options: got mnist"),
        ("eigenvalues --seed 3:3", "--seed 3:3 is an empty range"),
        ("eigenvalues --seed 1:3 --out x", "--out is the folder of one run, and these are 2"),
        ("eigenvalues --workers 0", "--workers must be at least 1: got 0"),
        ("eigenvalues --threads 0", "--threads must be at least 1: got 0"),
        ("eigenvalues --digit 0 5000", "--digit 5000 is not a held-out digit"),
        ("eigenvalues --model none.py:make", "there is no file"),
        ("eigenvalues --scheduler tcp://127.0.0.1:1", "tcp://127.0.0.1:1 cannot be reached"),
        ("eigenvalues --scheduler a --jobqueue slurm", "leave --jobqueue out"),
        ("eigenvalues --scheduler a --workers 3", "leave --workers out"),
        ("eigenvalues --jobqueue slurm", "pip install dask-jobqueue"),
        ("benchmark contest --processes 2", "leave --processes out"),
    ],
)
def test_bad_words_are_refused_before_anything_is_computed(
    tmp_path, monkeypatch, capsys, line, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "REACHED", 0.5)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    status, out, err = call(monkeypatch, capsys, "sweep", *line.split())
    assert status == 2, out
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--nothing", "3"], ["--seed", "a:b"], ["--times"]])
def test_what_the_study_does_not_know_is_refused_by_its_own_parser(
    tmp_path, monkeypatch, capsys, words
):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, capsys, "sweep", "eigenvalues", *words)[0] == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--help"], ["eigenvalues", "--help"], ["eigenvalues", "-h"]])
def test_help_names_the_options_of_the_sweep_and_of_the_study(monkeypatch, capsys, words):
    status, out, _ = call(monkeypatch, capsys, "sweep", *words)
    assert status == 0
    assert ("--workers" in out) == (words == ["--help"])
    assert ("--guidance" in out) == (words != ["--help"])
    assert "jacobian-lab sweep" in out


def test_the_sweeps_own_options_are_no_studys():
    mine = {field.name for field in dataclasses.fields(SweepOptions)}
    for group in COMMANDS.values():
        for command in group.values():
            if not command.function:
                assert not mine & study_of(command).config.__dataclass_fields__.keys()


def test_a_model_pickles_as_how_it_is_opened_and_one_at_hand_says_why_it_does_not():
    model = open_model(f"{FILE}:make", "cpu", torch.float64)
    sent = pickle.dumps(model)
    assert len(sent) < 500
    again = pickle.loads(sent)
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(again.denoiser(x, 500), model.denoiser(x, 500))
    assert pickle.loads(sent) is again
    assert again.source == model.source
    with (
        registered(tiny_model.make()) as name,
        pytest.raises(pickle.PicklingError, match=r"give it as FILE\.py:FUNCTION"),
    ):
        pickle.dumps(open_model(name, "cpu"))


def test_points_travel_with_their_samples_alone():
    points = Eigenvalues(model="oracle", digits=2, times=(500,)).points()
    sent = cluster.dumps(points)
    assert len(sent) < 40_000  # two digits, and not all of which they are a view
    again = pickle.loads(sent)
    assert again.names == points.names
    v = np.ones(1024)
    np.testing.assert_array_equal(again.operator(500, 1) @ v, points.operator(500, 1) @ v)


def test_the_bar_expects_of_each_run_what_the_largest_has_told():
    runs = [SweptRun(None, "") for _ in range(3)]
    progress = Progress(runs)
    with progress.batch(runs[0], total=10, initial=4) as bar:
        bar.update()
        assert (progress.bar.n, progress.bar.total) == (5, 30)
    runs[1].error = InputError("failed before it told any")
    progress.refresh()
    assert progress.bar.total == 20
    assert progress.bar.postfix == "1 of 3 runs"
    progress.bar.close()


def test_a_bar_that_is_not_shown_is_none_the_less_one(monkeypatch):
    """TQDM_DISABLE=1, as in the logs of clusters."""
    monkeypatch.setattr("studies.sweep.tqdm", partial(tqdm, disable=True))
    with Progress([SweptRun(None, "")]).batch(SweptRun(None, ""), total=10, initial=4) as bar:
        bar.update()


def test_without_dask_it_is_told_what_to_install(monkeypatch, capsys, tmp_path):
    def missing(name, extra, users):
        raise InputError(f"{users} need {name}: pip install jacobian-lab[{extra}]")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_require, "library", missing)
    status, _, err = call(monkeypatch, capsys, "sweep", "eigenvalues", "--digits", "1")
    assert (status, "pip install jacobian-lab[sweep]" in err) == (2, True)


class Command:
    """A sweep in a process of its own."""

    def __init__(self, folder, *words, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from studies.cli import main; main()", "sweep", *words],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, by=None):
        """Return status, output and errors, after a signal to the whole group if one is named."""
        if by is not None:
            os.killpg(self.process.pid, by)
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out, err


def wait_for(condition, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


SLOW = {"TINY_SECONDS": "0.01", "OMP_NUM_THREADS": "1"}


def serial(folder, count):
    """Return the arrays of the plain run."""
    config = Eigenvalues(
        model=f"{FILE}:make",
        images=(folder / "images.npy",),
        times=(300, 500),
        seeds=count,
        out=folder / "serial",
    )
    return arrays(perform(STUDY, config).folder)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_the_command_is_killed_and_the_same_one_goes_on(images, tmp_path, one_thread, by):
    words = ["eigenvalues", *images, *TIMES, "--model", f"{FILE}:make", "--seeds", "0:6"]
    finished = lambda: len(list(tmp_path.glob("runs/*.partial/*.npz")))  # noqa: E731
    first = Command(tmp_path, *words, "--workers", "2", **SLOW)
    wait_for(lambda: finished() >= 5)
    status, _, err = first.end(by)
    kept = finished()
    assert 5 <= kept < 26
    assert "Traceback" not in err
    if by == signal.SIGINT:
        assert status == 130
        assert "interrupted: the same command goes on where this one stopped" in err
    status, out, err = Command(tmp_path, *words, "--workers", "2", **SLOW).end()
    assert status == 0, err
    assert f"resumed with {kept} pieces; pieces: 26" in out
    (folder,) = tmp_path.glob("runs/*")
    assert_equal(serial(tmp_path, 6), arrays(folder))


@pytest.mark.slow
def test_of_two_identical_sweeps_one_computes_and_the_other_waits(images, tmp_path):
    words = ["eigenvalues", *images, *TIMES, "--model", f"{FILE}:make", f"{FILE}:other"]
    both = [Command(tmp_path, *words, "--workers", "1", **SLOW) for _ in range(2)]
    ends = [command.end() for command in both]
    assert [status for status, _, _ in ends] == [0, 0], ends
    told = "\n".join(out for _, out, _ in ends)
    assert told.count(", computed; pieces: ") == 2
    assert told.count(", reused") == 2
    assert any("another process computes" in err for _, _, err in ends)
    assert len(list(tmp_path.glob("runs/*"))) == 2


@pytest.mark.slow
def test_workers_are_killed_five_times_and_the_run_is_the_serial_one(images, tmp_path, one_thread):
    words = ["eigenvalues", *images, *TIMES, "--model", f"{FILE}:make", "--seeds", "0:10"]
    notes = tmp_path / "notes"
    notes.touch()
    command = Command(tmp_path, *words, "--workers", "2", TINY_NOTES=str(notes), **SLOW)
    finished = lambda: len(list(tmp_path.glob("runs/*.partial/*.npz")))  # noqa: E731

    def workers():
        """Those that have opened the model, and so have pieces; not one that has just begun."""
        found = subprocess.run(
            ["pgrep", "-P", str(command.process.pid), "-f", "spawn_main"],
            capture_output=True,
            text=True,
        )
        return [
            int(process) for process in set(found.stdout.split()) & {*notes.read_text().split()}
        ]

    goal = 1
    for _ in range(5):
        wait_for(lambda goal=goal: finished() >= goal and workers())
        os.kill(workers()[0], signal.SIGKILL)
        goal = finished() + 3  # two kills without a piece in between are told as an error
    status, out, err = command.end()
    assert status == 0, err
    assert err.count("a process that computed was killed; pieces left: ") == 5
    assert ", computed; pieces: 42" in out
    (folder,) = tmp_path.glob("runs/*")
    assert_equal(serial(tmp_path, 10), arrays(folder))


def test_runs_are_carried_out_by_threads_that_a_failure_of_ours_ends(
    address, images, monkeypatch, capsys
):
    def fails(*_, **__):
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("studies.sweep.perform", fails)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        call(
            monkeypatch, capsys, "sweep", "eigenvalues", *images, "--model", f"{FILE}:make",
            "--seed", "0:3", "--scheduler", address,
        )  # fmt: skip
    wait_for(lambda: threading.active_count() <= before, 10)

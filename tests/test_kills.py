"""Runs that are killed at any moment, and two of them at once: the data are those of an undisturbed
run, to the last bit.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import mnist_files
from conftest import save_small, stored

NAMES = ["train", "inpaint", "superres", "guide"]


class Server:
    """Processes of the command line; see `command_server`."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("command_server.py")],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def ask(self, request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, words):
        """Start a command; return its process number and the file that it prints to."""
        self.count += 1
        log = self.folder / f"log-{self.count}"
        return self.ask([[str(word) for word in words], str(log)]), log

    def run(self, words):
        """Run a command to its end; return what it printed."""
        process, log = self.start(words)
        assert self.ask(process) == 0, log.read_text()
        return log.read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("logs"))
    yield server
    server.process.communicate()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Three studies and a training, small."""
    folder = tmp_path_factory.mktemp("models")
    model, data = save_small(folder / "denoiser", "v"), mnist_files.write(folder / "mnist")
    return {
        "guide": [
            "guide",
            "--model",
            model,
            "--classes",
            "3",
            "8",
            "--samples",
            "1",
            "--steps",
            "2",
        ],
        "inpaint": ["inpaint", "--model", model, "--digits", "2", "--steps", "2"],
        "superres": ["superres", "--model", model, "--digits", "2", "--steps", "2"],
        "train": [
            "train",
            "denoiser",
            "--data-folder",
            data,
            "--updates",
            "30",
            "--batch-size",
            "4",
            "--checkpoint-every",
            "3",
            "--channels",
            "32",
            "32",
            "32",
        ],
    }


def data_of(folder):
    """The numbers of a run, as bytes."""
    if (folder / "data.nc").is_file():
        return {
            name: (array.dtype.str, array.shape, array.tobytes())
            for name, array in stored(folder).items()
        }
    return {name: (folder / name).read_bytes() for name in ("denoiser.safetensors", "losses.csv")}


def kill_and_repeat(server, words, out, truth, seconds, moments):
    """Kill the command once, at a random moment, and repeat it; return what it said."""
    process, _ = server.start([*words, "--out", out])
    time.sleep(moments.uniform(0, seconds))
    os.kill(process, signal.SIGKILL)
    killed = server.ask(process) == -signal.SIGKILL
    before = {path.name for path in out.parent.iterdir()}
    assert before <= {out.name, out.name + ".partial"}
    printed = server.run([*words, "--out", out])
    assert data_of(out) == truth
    assert {path.name for path in out.parent.iterdir()} == {out.name}
    return killed, printed.splitlines()[-1]


def kill_many(server, words, tmp_path, kills):
    """Kill the command so many times, each time in a folder of its own; return what the repeated
    ones said.
    """
    started = time.monotonic()
    server.run([*words, "--out", tmp_path / "truth" / "run"])
    seconds, truth, moments, found = (
        time.monotonic() - started,
        data_of(tmp_path / "truth" / "run"),
        random.Random(kills),
        [],
    )
    while len(found) < kills:
        out = Path(tempfile.mkdtemp(dir=tmp_path)) / "run"
        killed, how = kill_and_repeat(server, words, out, truth, seconds, moments)
        if killed:
            found.append(how)
        else:  # it ended before, since it is quicker than the first one
            seconds *= 0.8
    print(found)
    return found


@pytest.mark.slow
def test_a_study_that_is_killed_ends_at_the_same_bits(server, commands, tmp_path):
    kill_many(server, commands["inpaint"], tmp_path, 2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_studies_and_a_training_that_are_killed_15_times_end_at_the_same_bits(
    server, commands, tmp_path, name
):
    # computed anew, resumed, from several steps
    assert len(set(kill_many(server, commands[name], tmp_path, 15))) > 1


def two_at_once(server, words, out):
    """Start a command twice; return what the two printed."""
    started = [server.start([*words, "--out", out]) for _ in range(2)]
    assert [server.ask(process) for process, _ in started] == [0, 0]
    printed = [log.read_text() for _, log in started]
    assert sorted(text.splitlines()[-1].partition(":")[0] for text in printed) == [
        "computed",
        "reused",
    ]
    assert [path.name for path in out.parent.iterdir()] == ["run"]
    return "".join(printed)


@pytest.mark.parametrize("name", ["inpaint", "train"])
def test_of_two_identical_commands_one_computes_and_the_other_waits(
    server, commands, tmp_path, name
):
    assert "another process computes" in two_at_once(server, commands[name], tmp_path / "run")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_two_identical_commands_ten_times(server, commands, tmp_path, name):
    for k in range(10):
        (tmp_path / str(k)).mkdir()
        two_at_once(server, commands[name], tmp_path / str(k) / "run")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", range(5))
def test_three_at_once_of_which_one_is_killed(server, commands, tmp_path, name, k):
    words = [*commands[name], "--out", tmp_path / "run"]
    started = [server.start(words) for _ in range(3)]
    time.sleep(random.Random(k).uniform(0, 2))
    os.kill(started[0][0], signal.SIGKILL)
    assert [server.ask(process) for process, _ in started] in ([-9, 0, 0], [0, 0, 0])
    lasts = sorted(
        log.read_text().splitlines()[-1].partition(" ")[0].strip(":") for _, log in started[1:]
    )
    assert lasts in (["computed", "reused"], ["resumed", "reused"], ["reused", "reused"])  # sorted
    server.run([*commands[name], "--out", tmp_path / "truth"])
    assert data_of(tmp_path / "run") == data_of(tmp_path / "truth")

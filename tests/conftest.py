"""Shared oracles, in float64, for all schedules and prediction types."""

import csv
import gc
import json
import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores; read at import
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from jacobian_lab import DiscreteSchedule, RectifiedFlow
from jacobian_lab.diffusion.oracle import GaussianMixture, gaussian

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

SCHEDULES = {
    "linear": (DiscreteSchedule.linear(), 400),
    "scaled_linear": (DiscreteSchedule.scaled_linear(), 300),
    "cosine": (DiscreteSchedule.cosine(), 600),
    "flow": (RectifiedFlow(), 0.4),
}
PREDICTIONS = ("epsilon", "v", "sample", "flow")
SHAPE = (1, 3, 4)
MNIST = Path(__file__).parents[2] / "shared" / "mnist-data"


def pytest_collection_finish():
    """Take what is imported by now out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


def random_covariance(n, generator, rank=None):
    root = torch.randn(n, rank or n, generator=generator, dtype=torch.float64)
    return root @ root.T / (rank or n)


def make_gaussian(schedule, seed=0):
    g = torch.Generator().manual_seed(seed)
    return gaussian(
        torch.randn(12, generator=g, dtype=torch.float64), random_covariance(12, g), schedule, SHAPE
    )


def make_mixture(schedule, seed=0):
    g = torch.Generator().manual_seed(seed)
    covariances = torch.stack([random_covariance(12, g, rank) for rank in (12, 5, 2)])
    return GaussianMixture(
        torch.randn(3, 12, generator=g, dtype=torch.float64),
        covariances,
        schedule,
        torch.tensor([0.5, 0.3, 0.2]),
        SHAPE,
    )


@pytest.fixture(params=SCHEDULES)
def schedule_and_time(request):
    return SCHEDULES[request.param]


@pytest.fixture(params=["gaussian", "mixture"])
def oracle_at(request, schedule_and_time):
    """An oracle, a noisy sample of it, and the time."""
    schedule, t = schedule_and_time
    oracle = (make_gaussian if request.param == "gaussian" else make_mixture)(schedule)
    g = torch.Generator().manual_seed(1)
    x_t = schedule.add_noise(
        oracle.sample(1, g), t, torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
    )
    return oracle, x_t, t


def relative(a, b):
    """|a - b| / |b| for arrays or tensors."""
    a, b = torch.as_tensor(a).detach(), torch.as_tensor(b).detach()
    return float((a - b).norm() / b.norm())


@pytest.fixture
def model(tmp_path):
    """A small random denoiser on disk: for what the command line does, not for what it finds."""
    return save_small(tmp_path / "denoiser", "v")


@pytest.fixture
def flow(tmp_path):
    """The same on a rectified flow."""
    return save_small(tmp_path / "flow", "flow")


@pytest.fixture
def tiny(tmp_path):
    """A model of samples 1x8x8 in a file, as the command line takes it with so many images."""
    import tiny_model

    def words(count=1):
        np.save(tmp_path / "images.npy", tiny_model.images(count))
        return ("--model", f"{tiny_model.__file__}:make", "--images", tmp_path / "images.npy")

    return words


def save_small(path, prediction):
    """Save a small random denoiser; return its path as the command line takes it."""
    from mnist.weights import build_denoiser, save_model

    torch.manual_seed(0)
    architecture = {"channels": [32, 32, 32]}
    denoiser = build_denoiser(architecture, prediction)
    for parameter in denoiser.network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    save_model(
        path,
        denoiser.network,
        {"kind": "denoiser", "architecture": architecture, "prediction": prediction},
    )
    return str(path)


def call(monkeypatch, capsys, *words):
    """Run the command; return its exit status and what it printed."""
    from studies import cli

    monkeypatch.setattr(sys, "argv", ["jacobian-lab", *map(str, words)])
    status = 0
    try:
        cli.main()
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return status, printed.out, printed.err


def stored(folder):
    """The data of a finished run, name -> array; each variable is described by its study."""
    from studies.frame.dataset import arrays_of, read_dataset

    data = read_dataset(folder)
    for name, variable in data.variables.items():
        assert variable.attrs["description"], name
    return arrays_of(data)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a study; return its arrays, the rows of its table, and the manifest."""

    def command(*words, out="run"):
        folder = tmp_path / out
        status, _, err = call(monkeypatch, capsys, *words, "--out", folder)
        assert status == 0, err
        data = stored(folder)
        assert (folder / "figure.png").stat().st_size > 10_000
        rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
        return data, rows, json.loads((folder / "manifest.json").read_text())

    return command


def png(path, gray):
    """Save gray pixels, 0 to 255, as an image file; return its path."""
    from PIL import Image

    Image.fromarray(np.asarray(gray, dtype=np.uint8)).save(path)
    return path


def as_bytes(image):
    """A digit in [-1, 1], (1, 32, 32), as the gray pixels of its file."""
    return np.rint((np.asarray(image)[0] + 1) * 127.5)


class NoGraph(TorchFunctionMode):
    """Counts the results of PyTorch's functions, and those of them that require a gradient."""

    def __init__(self):
        super().__init__()
        self.seen = self.graph = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.seen += 1
                self.graph += value.requires_grad
        return out

"""The command that checks and times a GPU, where there is none."""

import numpy as np
import pytest

import mnist
from jacobian_lab import InputError
from mnist.evaluate import noisy_digit
from studies.benchmarks.cuda import (
    UNIT,
    CudaBenchmark,
    compute,
    failures,
    has_device,
    product_ways,
    table,
)


def test_without_a_gpu_what_needs_none_is_counted_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr("studies.benchmarks.cuda.has_device", lambda _device: False)
    found = compute(CudaBenchmark(), None)
    rows = table(found)
    assert {row["part"] for row in rows} == {"dry"}
    assert all(row["right"] == "yes" for row in rows if row["limit"] != "")
    assert str(found["subject"]) == "device cuda: none"


def test_a_device_that_is_not_there_is_named(capsys):
    assert has_device("cpu")
    assert not has_device("xpu")
    assert "no xpu here" in capsys.readouterr().err


def test_a_row_says_whether_a_check_is_right():
    arrays = {
        "part": np.array(["float32", "float32", "sampling"]),
        "quantity": np.array(["J v", "J^T u", UNIT]),
        "value": np.array([1e-7, 1.0, 20.0]),
        "limit": np.array([1e-6, 1e-6, np.inf]),
        "units": np.array(["1", "1", "ms"]),
        "passes": np.array([np.nan, np.nan, 1.0]),
        "subject": np.array("device cuda: a card"),
    }
    rows = table(arrays)
    assert [row["right"] for row in rows] == ["yes", "NO", ""]
    assert [row["passes"] for row in rows] == ["", "", 1.0]
    assert failures(arrays) == ["float32, J^T u: 1.0e+00, at most 1.0e-06"]


def test_products_are_timed_beside_pytorch_s():
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][0], 500, 0)
    ways = product_ways(denoiser, x_t, 500, 1)
    assert ways["J v"]().shape == (1, 1, 32, 32)
    assert "J v, torch.func.jvp" in ways
    assert "J v, replayed as a CUDA graph" not in ways


@pytest.mark.slow
def test_the_whole_command_runs_on_the_cpu():
    found = compute(CudaBenchmark(device="cpu", precisions=("float32",), rounds=1), None)
    rows = table(found)
    assert {row["right"] for row in rows} == {"yes", ""}
    assert {"sampling", "dense and spectra", "products, 64 vectors"} <= {r["part"] for r in rows}


def test_unknown_precisions_are_refused():
    with pytest.raises(InputError, match="--precisions float8: expected some of"):
        CudaBenchmark(precisions=("float8",))

"""How cost grows."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import mnist
from jacobian_lab.derivative.linearisation import Linearisation
from studies.benchmarks import growth
from studies.benchmarks.growth import (
    Growth,
    attention,
    canvas,
    compute,
    table,
    times_of_attention,
    times_of_denoiser,
)
from studies.frame.processes import in_a_process

SECONDS = ("forward pass", "J v", "J^T u")


def arrays(entries):
    keys = ("network", "size", "quantity", "cost", "units")
    return {
        key: np.array(found) for key, found in zip(keys, zip(*entries, strict=True), strict=True)
    }


def test_the_exponent_is_that_from_the_size_before():
    rows = table(
        arrays(
            [("attention", n, "J v", 3e-3 * n**2, "ms") for n in (64, 256, 512)]
            + [("denoiser", n, "J v", 0.5 * n, "ms") for n in (1024, 4096)]
        )
    )
    assert [row["exponent"] for row in rows] == ["", *[pytest.approx(2)] * 2, "", pytest.approx(1)]


def test_a_canvas_is_full_of_digits_and_the_denoiser_takes_it():
    denoiser, x_t = canvas(64, 0)
    assert x_t.shape == (1, 1, 64, 64)
    corner = mnist.digits("held-out")[0][1]  # beside the first
    assert (
        torch.corrcoef(torch.stack([x_t[0, 0, :32, 32:].flatten(), corner.flatten()]))[0, 1] > 0.99
    )
    assert denoiser(x_t, 500).shape == x_t.shape


@pytest.mark.filterwarnings("default::FutureWarning")  # torch.func.jvp's own
def test_one_attention_has_a_rule():
    function, x = attention(16)
    linear, v = Linearisation(function, x), torch.randn(x.shape)
    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.func.jvp(function, (x,), (v,))[1]
    assert (linear.jvp(v) - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.slow
def test_each_size_has_its_rows(monkeypatch):
    here = {times_of_denoiser, times_of_attention}  # memory is measured as it is, elsewhere

    def where(work, *given, **options):
        return work(*given) if work in here else in_a_process(work, *given, **options)

    monkeypatch.setattr(growth, "in_a_process", where)
    found = compute(Growth(sides=(32,), tokens=(8,), rounds=1, products=60), None)
    rows = table(found)
    assert {row["quantity"] for row in rows if row["network"] == "attention"} == {
        *SECONDS,
        "memory of set-up and J v",
    }
    assert len(rows) == 6 + 4
    assert all(row["cost"] > 0 for row in rows if row["units"] == "ms")

"""The spectrum is that of the dense J, and inside of the sets around it."""

import numpy as np
import pytest

import networks
import tiny_model
from conftest import call, relative


def test_spectrum(run, tiny):
    data, rows, _ = run("spectrum", *tiny(), "--time", "700", "--arnoldi-steps", "12")
    A = networks.dense_at(tiny_model.make(), tiny_model.images()[0], 700)
    values = np.linalg.eigvals(A)
    assert relative(np.sort(abs(data["eigenvalues"])), np.sort(abs(values))) < 1e-10
    assert data["ritz"].shape == (12, 12)
    assert np.isnan(data["bounds"][np.triu_indices(12, 1)]).all()
    left, right, height = data["box"]
    inner = data["inner_box"]
    assert left - 1e-12 <= inner[0] <= inner[1] <= right + 1e-12
    assert inner[2] <= height + 1e-12
    z = data["grid_x"][40] + 1j * data["grid_y"][30]
    smallest = np.linalg.svd(z * np.eye(64) - A, compute_uv=False)[-1]
    assert data["smallest"][30, 40] >= smallest - 1e-10  # it is an upper bound
    assert left <= values.real.min()
    assert values.real.max() <= right
    assert abs(values.imag).max() <= height
    ritz = data["ritz"][np.tril_indices(12)]
    assert ((left <= ritz.real) & (ritz.real <= right) & (abs(ritz.imag) <= height)).all()
    figures = {row["quantity"]: row["real"] for row in rows}
    assert float(figures["trace"]) == pytest.approx(values.sum().real, rel=1e-4)
    assert float(figures["largest eigenvalue"]) == pytest.approx(abs(values).max(), rel=1e-5)


@pytest.mark.slow
def test_the_spectrum_of_the_oracle_is_real(run):
    data, rows, _ = run("spectrum", "--arnoldi-steps", "10", "--model", "oracle")
    assert rows
    assert abs(data["eigenvalues"].imag).max() < 1e-6


@pytest.mark.slow
def test_it_takes_the_times_of_a_flow(run, flow, monkeypatch, capsys):
    data, rows, _ = run("spectrum", "--arnoldi-steps", "10", "--time", "0.5", "--model", flow)
    assert rows
    assert data["time"].tolist() == 0.5
    status, _, err = call(monkeypatch, capsys, "spectrum", "--model", flow, "--time", "300.5")
    assert status == 2
    assert "a rectified flow takes a time in (0, 1]" in err

"""The asymmetry, and where it lies, are those of the dense J."""

import numpy as np
import pytest

import networks
import tiny_model
from conftest import call, relative


def test_symmetry(run, tiny):
    times = ("--times", "200", "600", "--shown", "600")
    data, rows, _ = run("symmetry", *tiny(2), *times, "--pixel", "3", "5")
    A = networks.dense_at(tiny_model.make(), tiny_model.images()[0], 600)
    truth = np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T)
    assert data["truth"][1] == pytest.approx(truth, rel=1e-4)
    low, high = data["interval"][1, 0]
    assert low - 0.2 * (high - low) < truth < high + 0.2 * (high - low)
    assert relative(data["column"][0].reshape(-1), A[:, 3 * 8 + 5]) < 1e-4
    assert relative(data["row"][0].reshape(-1), A[3 * 8 + 5]) < 1e-4
    assert relative(data["skew"][0].reshape(-1), np.linalg.norm((A - A.T) / 2, axis=1)) < 1e-4
    assert relative(data["symmetric"][0].reshape(-1), np.linalg.norm((A + A.T) / 2, axis=1)) < 1e-4
    assert sum(row["quantity"] == "asymmetry" for row in rows) == 4


@pytest.mark.slow
def test_the_oracle_is_symmetric(run):
    words = ("--digits", "1", "--times", "500", "--shown", "500", "--model", "oracle")
    data, rows, _ = run("symmetry", *words)
    assert rows
    assert data["value"].max() < 1e-4


def test_it_takes_the_times_of_a_flow(run, flow, monkeypatch, capsys):
    data, rows, _ = run(
        "symmetry", "--digits", "1", "--times", "0.5", "--shown", "0.5", "--model", flow
    )
    assert rows
    assert data["time"].tolist() == [0.5]
    status, _, err = call(monkeypatch, capsys, "symmetry", "--model", flow, "--times", "300.5")
    assert status == 2
    assert "a rectified flow takes a time in (0, 1]" in err

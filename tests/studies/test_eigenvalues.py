"""The largest eigenvalues are those of the dense J and of its parts."""

import numpy as np
import pytest

from studies.frame.statistics import mean_interval
from studies.jacobian.eigenvalues import table

import networks
import tiny_model
from conftest import call


def test_eigenvalues(run, tiny):
    data, rows, _ = run("eigenvalues", *tiny(), "--seeds", "2", "--times", "900")
    assert data["largest"].shape == (1, 2, 3)
    A = networks.dense_at(tiny_model.make(), tiny_model.images()[0], 900, seed=1)
    expected = [abs(np.linalg.eigvals(B)).max() for B in (A, (A + A.T) / 2, (A - A.T) / 2)]
    assert (np.abs(data["largest"][0, 1] - expected) <= data["error"][0, 1]).all()
    np.testing.assert_allclose(data["truth"], data["largest"][:, 0], rtol=1e-4)
    published = {
        (row["time"], row["operator"]): row["stable_diffusion_1.5_published"] for row in rows
    }
    assert published["900", "J"] == "16.85"
    assert published["900", "skew"] == "2.67"


def test_intervals_are_over_digits_not_over_their_noises():
    values = np.array([[1.0, 1.2, 2.0, 2.2]])
    arrays = {
        "time": np.array([500]),
        "digit": np.array([0, 0, 1, 1]),
        "truth": np.full((1, 3), np.nan),
        "converged": np.ones((1, 4, 3), dtype=bool),
        **{name: np.stack([values] * 3, -1) for name in ("largest", "error", "products")},
    }
    for row in table(arrays):
        found = [row[f"largest_eigenvalue_mean{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx(mean_interval([1.1, 2.1]))


@pytest.mark.slow
def test_the_skew_part_of_the_oracle_is_rounding(run):
    words = ("--digits", "1", "--seeds", "1", "--times", "500", "--model", "oracle")
    data, rows, _ = run("eigenvalues", *words)
    assert rows
    assert data["largest"][0, 0, 2] < 1e-4 * data["largest"][0, 0, 0]


@pytest.mark.slow
def test_it_takes_the_times_of_a_flow(run, flow, monkeypatch, capsys):
    data, rows, _ = run(
        "eigenvalues", "--digits", "1", "--seeds", "1", "--times", "0.5", "1", "--model", flow
    )
    assert rows
    assert data["time"].tolist() == [0.5, 1]
    status, _, err = call(monkeypatch, capsys, "eigenvalues", "--model", flow, "--times", "300.5")
    assert status == 2
    assert "a rectified flow takes a time in (0, 1]" in err

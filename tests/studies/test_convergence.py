"""The study that follows the error along sampling, beside what J predicts."""

import csv

import numpy as np
import pytest

from conftest import call, stored


@pytest.mark.parametrize("name", ["tiny", pytest.param("flow", marks=pytest.mark.slow)])
def test_the_study_runs_and_finds_the_linear_model_right(
    monkeypatch, capsys, tmp_path, request, name
):
    fixture = request.getfixturevalue(name)
    model = fixture(2) if name == "tiny" else ("--model", fixture, "--digits", "2")
    words = ("--steps", "3", "--newton-steps", "1", "--jacobians", "1", "--points", "2")
    shown = ("--spectral", "0.5", "--change", "0.05", "--out", tmp_path / "run")
    status, _, err = call(monkeypatch, capsys, "convergence", *model, *words, *shown)
    assert status == 0, err
    data = stored(tmp_path / "run")
    assert data["residual"].shape == (2, 2, 3, 2)
    assert np.isfinite(data["residual"]).all()
    assert abs(data["linear"] / data["measured"] - 1)[1].max() < 0.05  # steps of 0.05
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    assert any(
        row["quantity"].startswith("finding: |predicted / measured - 1|: linear model")
        for row in rows
    )
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000


def test_more_rules_than_colours_are_refused(monkeypatch, capsys):
    values = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")
    status, _, err = call(monkeypatch, capsys, "convergence", "--spectral", *values)
    assert status == 2
    assert "--spectral takes at most 5 values, each with a colour of its own: got 6" in err

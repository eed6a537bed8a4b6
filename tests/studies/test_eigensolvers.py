"""Leading eigenpairs beside those of ARPACK."""

import csv

import pytest

from conftest import call


@pytest.mark.slow
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
def test_each_method_is_held_against_the_dense_spectrum(monkeypatch, capsys, tmp_path):
    words = ("--k", "2", "--digits", "1", "--times", "500", "--rtol", "1e-3", "--dtype", "float32")
    words += ("--blocks", "2", "8")
    status, out, _ = call(
        monkeypatch, capsys, "benchmark", "eigenpairs", *words, "--out", tmp_path / "run"
    )
    assert status == 0
    assert "errors as stated, residuals as recomputed with the dense J" in out
    assert "ARPACK on torch.func.jvp, vjp" in out
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    assert len(rows) == 3 * 5
    of = {(row["operator"], row["method"]): float(row["passes"]) for row in rows}
    for part in ("J", "symmetric", "skew"):
        passes = [of[part, f"eigenpairs, certified, {block} a pass"] for block in (2, 8)]
        assert passes[1] < passes[0] < of[part, "ARPACK on this operator"]
    assert all(0 < float(row["seconds"]) < 600 for row in rows)
    assert max(float(row["largest_error"]) for row in rows if "certified" in row["method"]) < 1e-2

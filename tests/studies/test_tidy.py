"""`jacobian-lab collect`: numbers of runs as one tidy table that pandas reads."""

from dataclasses import replace

import numpy as np
import pandas
import pytest

from studies.archive.stored import Stored
from studies.archive.tidy import HEAD, TAIL, tidy
from studies.frame.study import perform
from studies.sampling import superres

from archive_runs import make_run
from conftest import call


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_runs_of_several_options_become_one_table_with_units(monkeypatch, capsys, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    runs = [make_run(tmp_path, seed=k) for k in range(4)]
    path = tmp_path / f"table.{ending}"
    status, out, _ = call(monkeypatch, capsys, "collect", *runs, "--to", path)
    assert status == 0
    assert "of 4 runs" in out
    table = pandas.read_csv(path) if ending == "csv" else pandas.read_parquet(path)
    assert set(table.columns) == {*HEAD, "time", "sample", "operator", "digit", *TAIL} - {
        "seed"
    } | {"seed"}
    found = table[table.quantity == "largest"]
    assert len(found) == 4 * 2 * 2 * 3
    one = found[(found.time == 700) & (found.operator == "skew") & (found.digit == 1)]
    assert one.value.tolist() == [112.0] * 4
    assert one.seed.tolist() == list(range(4))
    assert set(one.units) == {"1"} or set(one.units) == {1}
    assert set(one.description) == {"largest |eigenvalue|"}
    assert set(one.run) == {run.name for run in runs}


def test_samples_keep_the_seeds_of_their_own(tmp_path):
    table = tidy([Stored(make_run(tmp_path, seed=4, seeds=2))], ("error",))
    assert sorted(set(table.seed)) == [4, 5]


def test_chosen_quantities_only_and_unknown_ones_are_refused(monkeypatch, capsys, tmp_path):
    folder = make_run(tmp_path)
    assert set(tidy([Stored(folder)], ("error", "products")).quantity) == {"error", "products"}
    words = ("collect", folder, "--quantities", "nothing")
    status, _, err = call(monkeypatch, capsys, *words, "--to", tmp_path / "t.csv")
    assert status == 2
    assert "no run has nothing: expected of converged, error, largest, products, truth" in err
    assert not (tmp_path / "t.csv").exists()


def test_pictures_are_left_out(tmp_path):
    arrays = {
        "truth": np.zeros((1, 1, 4, 4)),
        "psnr": np.zeros((1, 1, 1)),
        "subject": np.array("any"),
    }
    study = replace(
        superres.STUDY,
        compute=lambda *_: arrays,
        table=lambda _: [{"a": 1}],
        plot=None,
        answer=lambda rows: rows,
    )
    folder = perform(study, superres.Superres(out=tmp_path / "run")).folder
    table = tidy([Stored(folder)])
    assert set(table.quantity) == {"psnr"}
    assert table.units.tolist() == ["dB"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name one or more folders"),
        (["nowhere"], "is not the folder of a run"),
        (["nowhere", "--to", "table.xlsx"], "must end in .csv or .parquet"),
    ],
)
def test_slips_are_told(monkeypatch, capsys, words, said):
    status, _, err = call(monkeypatch, capsys, "collect", *words)
    assert status == 2
    assert said in err

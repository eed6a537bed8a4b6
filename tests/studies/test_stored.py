"""Runs on the disk: their study, options, state and data."""

import os

import numpy as np
import pytest

import studies
from jacobian_lab import InputError
from studies.archive.stored import Stored, finished, runs_in

from archive_runs import make_run


def test_open_returns_labelled_data_by_folder_or_file(tmp_path):
    folder = make_run(tmp_path)
    for place in (folder, str(folder), folder / "data.nc"):
        data = studies.open(place)
        assert data["largest"].dims == ("time", "sample", "operator")
        assert float(data["largest"].sel(time=700, operator="skew").isel(sample=1)) == 112
        assert data["largest"].attrs["description"] == "largest |eigenvalue|"
        assert data.attrs["study"] == "eigenvalues"
    with pytest.raises(InputError, match=r"has no data\.nc"):
        studies.open(tmp_path / "nothing")


def test_a_run_tells_its_study_its_options_and_what_repeats_it(tmp_path):
    run = Stored(make_run(tmp_path, seed=3))
    assert run.study.name == run.command == "eigenvalues"
    assert run.chosen() == {"seed": 3, "digits": 2, "times": [300, 700]}
    assert run.options()["model"] == "mnist"
    assert run.state == "finished"
    assert 0 <= run.age < 60
    assert [row["time"] for row in run.answer(run.arrays())] == [300, 700]


@pytest.mark.parametrize("name", ["contest", "benchmark-products", "directions-budget"])
def test_each_name_of_a_study_has_its_command(tmp_path, name):
    (tmp_path / "config.json").write_text(f'{{"study": "{name}"}}')
    assert Stored(tmp_path).study.name == name


def test_of_other_code_what_is_missing_is_told(tmp_path):
    run = Stored(make_run(tmp_path))
    arrays = run.arrays()
    del arrays["largest"]
    with pytest.raises(InputError, match=r"other code: data\.nc lacks 'largest'"):
        run.answer(arrays)


def test_unfinished_and_unknown_runs_are_told(tmp_path):
    folder = make_run(tmp_path)
    partial = tmp_path / "other.partial"
    partial.mkdir()
    (partial / "config.json").write_bytes((folder / "config.json").read_bytes())
    np.savez(partial / "piece-1.npz", x=1)
    assert Stored(partial).state == "unfinished, 1 piece"
    with pytest.raises(InputError, match="is unfinished: its command goes on"):
        finished([folder, partial])
    with pytest.raises(InputError, match="is not the folder of a run"):
        finished([tmp_path])
    (partial / "config.json").write_text('{"study": "gone"}')
    with pytest.raises(InputError, match="of the study 'gone', which this version does not have"):
        _ = Stored(partial).study


def test_runs_are_found_in_their_order(tmp_path, capsys):
    folders = [make_run(tmp_path, seed=k) for k in range(3)]
    for k, folder in enumerate(folders):
        for path in folder.iterdir():
            os.utime(path, (1e9 + [2, 0, 1][k], 1e9 + [2, 0, 1][k]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")  # of something else
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    assert [run.claim["seed"] for run in runs_in(tmp_path)] == [1, 2, 0]
    assert "left out: " in capsys.readouterr().err
    with pytest.raises(InputError, match="is no folder"):
        list(runs_in(tmp_path / "nowhere"))

import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from jacobian_lab import InputError
from studies.frame import provenance
from studies.frame import study as frame
from studies.frame.answer import Answer
from studies.frame.dataset import SUBJECT, Variable, arrays_of, read_dataset
from studies.frame.figure_text import write_subject
from studies.frame.findings import Finding, Standing
from studies.frame.study import perform, run

from conftest import stored
from squares import FILES, Options, Squares, names

pytestmark = pytest.mark.usefixtures("pdf")


def test_a_run_hands_out_its_answer_computed_or_reused(tmp_path):
    whole = perform(Squares().study(), Options(out=tmp_path / "run"))
    assert whole.answer.split("\n")[0].split() == ["i", "square"]
    assert whole.answer.split("\n")[3].split() == ["2", "1.33"]
    assert perform(Squares().study(), Options(out=tmp_path / "run")).answer == whole.answer
    short = replace(Squares().study(), answer=Answer(("square",), lambda row: row["i"] == 2))
    assert perform(short, Options(out=tmp_path / "run")).answer == "square\n1.33"


def test_checks_that_failed_are_handed_out_computed_or_reused(tmp_path):
    right = Finding(
        "a claim", "a source", "2 = 2", True, "a length", (1.0, 0.0, 2.0), Standing.HOLDS
    )
    wrong = replace(right, oracle="2 = 3", passed=False)
    study = replace(
        Squares().study(),
        failures=lambda arrays: [f"{len(arrays['squares'])} squares"],
        findings=lambda _: [right, wrong],
    )
    for _ in range(2):
        outcome = perform(study, Options(out=tmp_path / "run"))
        assert outcome.failures == ("3 squares", "2 = 3")
        assert outcome.answer.split()[0] == "i"
    assert perform(Squares().study(), Options(out=tmp_path / "run")).failures == ()


def test_a_run_writes_its_folder(tmp_path):
    squares = Squares()
    folder = run(squares.study(), Options(out=tmp_path / "run", seed=5))
    assert folder == tmp_path / "run"
    assert names(folder) == FILES
    assert names(tmp_path) == ["run"]
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("code").keys() == {"sources", "jacobian-lab", "torch", "numpy", "scipy"}
    assert config == {
        "study": "squares",
        "seed": 5,
        "device": "cpu",
        "count": 3,
        "power": [1, 2],
        "weights": {},
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.keys() == {
        "study",
        "command",
        "started",
        "seconds",
        "git",
        "versions",
        "machine",
        "threads",
        "device",
        "seed",
        "weights",
        "pieces_from_an_interrupted_run",
    }
    assert manifest["seed"] == 5
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert rows[2] == {"i": "2", "square": "1.33333"}
    data = stored(folder)
    assert data["squares"].tolist() == [0, 1, 4]


def test_a_second_run_computes_nothing_and_redraws_from_the_data_alone(tmp_path):
    squares = Squares()
    config = Options(out=tmp_path / "run")
    folder = run(squares.study(), config)
    (folder / "figure.png").unlink()
    (folder / "table.csv").unlink()
    run(squares.study(), config)
    assert squares.computed == [0, 1, 2]
    assert names(folder) == FILES


def test_an_interrupted_run_goes_on_and_its_folder_appears_whole(tmp_path):
    squares = Squares()
    squares.fails_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(squares.study(), Options(out=tmp_path / "run"))
    assert names(tmp_path) == ["run.partial"]
    squares.fails_at = None
    folder = run(squares.study(), Options(out=tmp_path / "run"))
    assert squares.computed == [0, 1, 2]
    assert json.loads((folder / "manifest.json").read_text())["pieces_from_an_interrupted_run"] == 2
    assert names(tmp_path) == ["run"]
    assert names(folder) == FILES


def test_what_measures_anew_leaves_what_an_interrupted_command_measured(tmp_path):
    squares = Squares()
    squares.fails_at, study = 1, replace(squares.study(), measures_anew=True)
    with pytest.raises(KeyboardInterrupt):
        run(study, Options(out=tmp_path / "run"))
    squares.fails_at = None
    assert perform(study, Options(out=tmp_path / "run")).how == "computed"
    assert squares.computed == [0, 0, 1, 2]


def test_names_of_files_may_hold_dollars_and_bytes_that_are_no_text(tmp_path):
    squares = Squares()
    odd = "cost_$5_$6 $x_$.png", "caf\udce9.png"

    def compute(config, pieces):
        return {
            "names": np.array(odd),
            "none": np.array([], dtype=str),
            "subject": np.array(f"images {', '.join(odd)}"),
        }

    def plot(arrays):
        figure = Figure(figsize=(2, 2))
        figure.subplots().set_title(arrays["names"][0])
        write_subject(figure, arrays)
        return figure

    study = replace(
        squares.study(),
        compute=compute,
        plot=plot,
        table=lambda arrays: [{"name": str(name)} for name in arrays["names"]],
        variables={"names": Variable("i", "names"), "none": Variable("k", "none"), **SUBJECT},
    )
    folder = run(study, Options(out=tmp_path / "run"))
    assert (folder / "table.csv").read_text() == f"name\n{odd[0]}\ncaf\\udce9.png\n"
    assert list(arrays_of(read_dataset(folder))["names"]) == [odd[0], "caf\\udce9.png"]


def test_a_piece_that_was_not_written_whole_is_computed_again(tmp_path):
    pieces = frame.Pieces(tmp_path)
    (tmp_path / "a.partial").write_bytes(b"half")
    assert pieces("a", lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    assert pieces("a", lambda: pytest.fail("computed twice"))["x"].tolist() == [0, 1, 2]


def test_two_configs_never_share_a_folder(tmp_path):
    squares = Squares()
    run(squares.study(), Options(out=tmp_path / "run"))
    with pytest.raises(
        InputError,
        match=r"other options: count 3 \(now 4\), power \[1, 2\] \(now \[3\]\)\. Choose another",
    ):
        run(squares.study(), Options(out=tmp_path / "run", count=4, power=(3,)))
    squares.fails_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(squares.study(), Options(out=tmp_path / "other"))
    with pytest.raises(InputError, match=r"other.partial holds a run with other options"):
        run(squares.study(), Options(out=tmp_path / "other", seed=1))


def test_a_refused_config_leaves_the_folder_free(tmp_path):
    squares = Squares()
    squares.fails_at, squares.error = 0, InputError("no such time")
    with pytest.raises(InputError, match="no such time"):
        run(squares.study(), Options(out=tmp_path / "run"))
    assert names(tmp_path) == []
    squares.fails_at = 1  # but what was computed is not lost
    with pytest.raises(InputError, match="no such time"):
        run(squares.study(), Options(out=tmp_path / "run"))
    assert "piece-0.npz" in names(tmp_path / "run.partial")


def test_default_folders_differ_by_options_and_not_by_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = (run(Squares().study(), Options(seed=seed)) for seed in (0, 1))
    assert one != two
    assert one.parent == Path("runs")
    assert run(Squares().study(), Options(seed=0)) == one
    # no clash: a place
    assert (
        run(Squares().study(), Options(seed=0, out=tmp_path / "elsewhere"))
        == tmp_path / "elsewhere"
    )


def test_folders_that_are_not_runs_and_unwritable_ones_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"mine exists and is not the folder of a run"):
        run(Squares().study(), Options(out=tmp_path / "mine"))
    with pytest.raises(InputError, match=r"cannot write to .*: Not a directory"):
        run(Squares().study(), Options(out=tmp_path / "mine" / "thesis.tex" / "run"))
    with pytest.raises(InputError, match="is not the folder of a run"):
        run(Squares().study(), Options(out=tmp_path / "mine" / "thesis.tex"))
    folder = run(Squares().study(), Options(out=tmp_path / "run"))
    (folder / "data.nc").unlink()
    with pytest.raises(InputError, match=r"has no data.nc, .* Remove the folder .* and run again"):
        run(Squares().study(), Options(out=folder))
    (folder / "config.json").write_text("[1, 2")
    with pytest.raises(InputError, match="is not the folder of a run"):
        run(Squares().study(), Options(out=folder))
    (tmp_path / "empty").mkdir()
    assert names(run(Squares().study(), Options(out=tmp_path / "empty"))) == FILES


def test_other_weights_under_the_same_name_are_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digest = "1"
    monkeypatch.setattr(provenance, "read_card", lambda name, kind: {"sha256": digest})
    squares = Squares()
    study = dataclasses.replace(squares.study(), models=lambda config: {"denoiser": "denoiser"})
    one, _ = run(study, Options()), run(study, Options(out=Path("mine")))
    digest = "2"
    assert run(study, Options()) != one
    with pytest.raises(InputError, match=r"weights .*'1'.* \(now .*'2'"):
        run(study, Options(out=Path("mine")))


def test_a_kill_before_the_config_is_whole_leaves_the_folder_free(tmp_path):
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / ".lock").touch()
    (tmp_path / "run.partial" / f".{'0a' * 8}.partial").write_text("{")
    assert names(run(Squares().study(), Options(out=tmp_path / "run"))) == FILES


def test_outside_a_repository_the_manifest_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "frame.py"))
    folder = run(Squares().study(), Options(out=tmp_path / "run"))
    assert json.loads((folder / "manifest.json").read_text())["git"] is None


def test_no_run_takes_another_one_with_it(tmp_path, monkeypatch):
    other = tmp_path / "runs" / "other.partial"
    other.mkdir(parents=True)
    (other / "piece.npz").write_bytes(b"dear")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    for out, message in (
        ("runs", "is not the folder of a run"),
        (".", "the working directory"),
        ("link", "is a link"),
    ):
        with pytest.raises(InputError, match=message):
            run(Squares().study(), Options(out=Path(out)))
    assert (other / "piece.npz").read_bytes() == b"dear"


def test_damaged_pieces_are_computed_again_and_damaged_results_told(tmp_path):
    squares = Squares()
    squares.fails_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(squares.study(), Options(out=tmp_path / "run"))
    for name, kept in (("piece-0", 0), ("piece-1", 60)):
        path = tmp_path / "run.partial" / f"{name}.npz"
        path.write_bytes(path.read_bytes()[:kept] or b"no archive")
    squares.fails_at, squares.computed = None, []
    run(squares.study(), Options(out=tmp_path / "run"))
    assert squares.computed == [0, 1, 2]
    path = tmp_path / "run" / "data.nc"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"data.nc is damaged: .* Remove the folder"):
        run(squares.study(), Options(out=tmp_path / "run"))

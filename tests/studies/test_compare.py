"""`jacobian-lab compare`: what differs between two runs of a study."""

import json

import numpy as np

from studies.archive.compare import differences

from archive_runs import make_run
from conftest import call


def test_options_and_variables_that_differ_are_named(monkeypatch, capsys, tmp_path):
    one, other = make_run(tmp_path), make_run(tmp_path, seed=3)
    status, out, _ = call(monkeypatch, capsys, "compare", one, other)
    assert status == 0
    head, variables, *answers = out.split("\n\n")
    assert head.splitlines()[0].split() == ["what", "one", "other"]
    assert head.splitlines()[1].split() == ["seed", "0", "3"]
    lines = {line.split("  ")[0]: line for line in variables.splitlines()[1:]}
    assert lines["largest"].endswith("none")
    assert "3" in lines["seed"]
    assert [answer.splitlines()[0].split()[0] for answer in answers] == [str(one), str(other)]


def test_equal_runs_are_said_to_be_equal(monkeypatch, capsys, tmp_path):
    one = make_run(tmp_path / "a")
    status, out, _ = call(monkeypatch, capsys, "compare", one, make_run(tmp_path / "b"))
    assert status == 0
    assert out.startswith("the same options, weights and code")


def test_differences_of_numbers_text_shapes_and_nan():
    one = {
        "same": np.array([1.0, np.nan]),
        "far": np.array([1.0, 2.0]),
        "nan": np.array([1.0, np.nan]),
        "shape": np.zeros(2),
        "text": np.array(["a", "b"]),
        "gone": np.zeros(1),
        "complex": np.array([1 + 1j]),
        "bool": np.array([True]),
        "infinite": np.array([np.inf, 1.0]),
    }
    other = {
        "same": np.array([1.0, np.nan]),
        "far": np.array([1.0, 2.5]),
        "nan": np.array([1.0, 3.0]),
        "shape": np.zeros(3),
        "text": np.array(["a", "c"]),
        "complex": np.array([1 + 2j]),
        "bool": np.array([False]),
        "infinite": np.array([np.inf, 3.0]),
    }
    found = {row["variable"]: row for row in differences(one, other)}
    assert found["same"]["difference"] == "none"
    assert (found["far"]["largest_difference"], found["far"]["largest_value"]) == (0.5, 2.0)
    assert found["nan"]["difference"] == "1 of 2 are NaN in one only"
    assert found["shape"]["difference"] == "shapes: (2,) and (3,)"
    assert found["infinite"]["largest_difference"] == 2
    assert found["text"]["difference"] == "1 of 2 differ"
    assert found["gone"]["difference"] == "only in one of them"
    assert found["complex"]["largest_difference"] == found["bool"]["largest_difference"] == 1


def test_runs_of_two_studies_are_refused(monkeypatch, capsys, tmp_path):
    one, other = make_run(tmp_path), make_run(tmp_path, seed=3)
    claim = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(claim | {"study": "symmetry"}))
    status, _, err = call(monkeypatch, capsys, "compare", one, other)
    assert status == 2
    assert "compare runs of one study" in err

"""`jacobian-lab list`."""

import os
import time

import pytest

from studies.archive.listing import in_words

from archive_runs import make_run
from conftest import call


def test_each_run_has_a_line_with_its_options_age_and_state(monkeypatch, capsys, tmp_path):
    old, new = make_run(tmp_path, seed=3), make_run(tmp_path, prompt="")
    then = time.time() - 3 * 3600
    os.utime(old / "data.nc", (then, then))  # a figure may be drawn later
    new.rename(tmp_path / "new.partial")
    status, out, _ = call(monkeypatch, capsys, "list", "--runs", tmp_path)
    assert status == 0
    lines = out.splitlines()
    assert lines[1].startswith(old.name)
    for word in ("finished", "3 hours", "--seed 3 --digits 2", "--times 300 700"):
        assert word in lines[1]
    assert "unfinished, 0 pieces" in lines[2]


def test_where_there_is_no_run_it_says_so(monkeypatch, capsys, tmp_path):
    make_run(tmp_path)
    status, _, err = call(monkeypatch, capsys, "list", "--runs", tmp_path, "--study", "symmetry")
    assert (status, "no run of the study symmetry" in err) == (2, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"digits": 2, "times": [300, 700]}, "--digits 2 --times 300 700"),
        ({"project": False, "speed": True, "out": None}, "--no-project --speed"),
        ({"prompt": 'a "$x"'}, """--prompt 'a "$x"'"""),
    ],
)
def test_options_are_written_as_they_are_typed(options, words):
    assert in_words(options) == words

"""Parameters that an earlier contest found are run without a search, at any budget."""

import json

import pytest

from jacobian_lab import InputError
from studies.contest import limits
from studies.contest.contest import STUDY, Contest
from studies.frame.study import run

from conftest import stored

TINY = {"digits": 3, "searched": 2, "again": 2, "settings": ("searched",), "tasks": ("half",)}


def test_parameters_that_were_found_are_run_at_other_budgets(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HELD_OUT", 500)
    searched = Contest(methods=("DDNM",), budgets=(4,), out=tmp_path / "searched", **TINY)
    path = run(STUDY, searched) / "table.csv"
    taken = Contest(
        methods=("DDNM",), budgets=(3, 4), parameters_of=path, out=tmp_path / "taken", **TINY
    )
    first, second = (STUDY.table(stored(run(STUDY, config))) for config in (searched, taken))
    assert [row["evaluations"] for row in second[2:]] == [3, 4]
    assert second[3] == first[2]
    assert json.loads(second[2]["parameters"]) == json.loads(first[2]["parameters"])
    assert second[2]["at_edge"] == first[2]["at_edge"]


def test_a_method_without_parameters_in_the_table_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HELD_OUT", 500)
    path = tmp_path / "table.csv"
    path.write_text('task,method,setting,parameters,at_edge\nhalf,DPS,searched,"{}",\n')
    methods = ("DDNM", "DPS", "inexact Newton, paper")
    config = Contest(methods=methods, parameters_of=path, out=tmp_path / "run", **TINY)
    with pytest.raises(InputError, match=r"has nothing of half: DDNM: leave it out, or search"):
        run(STUDY, config)
    path.write_text(path.read_text().replace("{}", '{""eta"": 1}'))
    config = Contest(methods=("DPS",), parameters_of=path, out=tmp_path / "other", **TINY)
    with pytest.raises(InputError, match=r"DPS on half has no parameter eta: it has zeta"):
        run(STUDY, config)

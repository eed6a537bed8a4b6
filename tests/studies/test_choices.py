"""Parameters that an earlier contest found are run without a search, at any budget."""

import json

import contestants
import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError
from mnist.problems import problem
from studies.contest import choices, limits
from studies.contest.choices import WORST, found_before, rounds, searched, try_parameters
from studies.contest.contest import STUDY, Contest
from studies.contest.entries import OTHERS
from studies.contest.peers import Peer
from studies.frame.pieces import Pieces
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


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [1]), (29, [29]), (30, [10, 30]), (90, [10, 30, 90]), (100, [11, 33, 100])],
)
def test_a_round_has_three_times_the_digits_of_the_one_before(count, expected):
    found = rounds(count)
    assert [part.stop for part in found] == expected
    assert [i for part in found for i in part] == list(range(count))


def test_a_search_keeps_the_best_third_and_sums_over_all_digits(tmp_path, monkeypatch):
    seen = []
    bad_at_first = {3: 0.5, 4: -1.0}  # 4 is the best of 10 digits, and 3 of 90

    def tried(task, method, parameters, config, part, budget, known):
        assert (known is None) == (part.start == 0)
        number = parameters["number"]
        seen.append((number, part))
        doubt = abs(number - 3) * len(part)
        doubt += bad_at_first.get(number, 0) * len(part) * (part.start == 0)
        return {"doubt": np.array(doubt), "steps": np.array(number)}

    monkeypatch.setattr(choices, "try_parameters", tried)
    method = Peer("tried", "", None, {}, {"number": tuple(range(9))}, None, 1, "")
    ((task, _, best),) = searched(Contest(), [("half", method)], Pieces(tmp_path), 20)
    assert (task, best["parameters"]) == ("half", {"number": 3})
    assert best["at_edge"] == ""
    counts = {len(part): [n for n, p in seen if p == part] for _, part in seen}
    assert counts == {10: list(range(9)), 20: [4, 3, 2], 60: [3, 4]}


def test_parameters_are_tried_on_other_digits_within_the_budget(monkeypatch):
    seen = []

    def scaled(denoiser, constraint, seeds, steps, scale):
        for t in denoiser.schedule.times(steps):
            D = denoiser(torch.zeros(len(seeds), *denoiser.shape), t)
        seen.append((constraint.y, steps))
        return scale * mnist.digits("held-out")[0][OTHERS + 2 : OTHERS + 2 + len(seeds)] + 0 * D

    contestants.enter(monkeypatch, scaled, {"scale": (1.0, 0.5, -1.0)})
    config, part = Contest(), range(2, 5)
    good, bad = (
        try_parameters("half", "tried", {"scale": scale}, config, part, 10) for scale in (1.0, -1.0)
    )
    assert torch.equal(seen[3][0], problem("half", OTHERS + 2, 3, 0)[0].y)
    price = [(2, 4), (8, 4), (2, 8)]
    assert [(len(y), steps) for y, steps in seen] == 2 * [*price, (3, 10)]
    assert good["steps"] == 10
    assert good["doubt"] < bad["doubt"]
    seen.clear()
    again = try_parameters("half", "tried", {"scale": 1.0}, config, part, 10, 10)
    assert (again["doubt"], len(seen)) == (good["doubt"], 1)
    over = try_parameters("half", "tried", {"scale": 1.0}, config, part, 10, 12)
    assert over["doubt"] == 3 * WORST


def test_runs_of_as_many_steps_at_two_budgets_are_two_if_their_parameters_differ(
    tmp_path, monkeypatch
):
    method = Peer("tried", "", None, {"inner": 1}, {"inner": (1, 3)}, None, 1, "")
    config = Contest(budgets=(24, 48, 50), settings=("searched",))
    config.taken["half: tried"] = [
        {"parameters": {"inner": n}, "at_edge": "", "budget": of} for n, of in ((1, 24), (3, 48))
    ]
    monkeypatch.setattr(choices, "counted", lambda *_: {"steps": np.array(12)})
    found = choices.entries_of(config, [("half", method)], Pieces(tmp_path))
    assert [entry.parameters for entry, _ in found.values()] == [{"inner": 1}, {"inner": 3}]


def test_of_several_parameters_those_of_the_nearest_budget_are_taken():
    method = Peer("tried", "", None, {"number": 1}, {"number": (1, 2)}, None, 1, "")
    config = Contest()
    config.taken["half: tried"] = [
        {"parameters": {"number": n}, "at_edge": "", "budget": of} for n, of in ((1, 25), (2, 100))
    ]
    for budget, number in ((25, 1), (48, 1), (60, 2), (200, 2)):
        ((_, _, best),) = found_before(config, [("half", method)], budget)
        assert best["parameters"] == {"number": number}

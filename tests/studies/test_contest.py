"""The contest as a whole: every method on the same problems within its budget, beside the limit; on
several processes; what cannot run is left out.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError
from studies.contest import (
    contest,
)
from studies.contest.contest import FIRST, Contest
from studies.frame.study import run

from conftest import stored

TINY = {
    "tasks": ("half",),
    "digits": 4,
    "searched": 2,
    "again": 2,
    "budgets": (6, 12),
    "longest": 3,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The data and the rows of a tiny contest between four methods."""
    out = tmp_path_factory.mktemp("contest") / "run"
    folder = run(
        contest.STUDY,
        Contest(
            methods=("inexact Newton", "inexact Newton, paper", "DDNM", "DDIM"),
            speed=True,
            out=out,
            **TINY,
        ),
    )
    data = stored(folder)
    return data, contest.STUDY.table(data)


@pytest.mark.slow
def test_each_method_runs_within_its_budget_and_with_its_authors_settings(table):
    rows = [row for row in table[1] if row["setting"] != "limit"]
    kinds = sorted((row["method"], row["setting"]) for row in rows)
    assert kinds == sorted(
        [("inexact Newton", "searched")] * 2
        + [("inexact Newton, paper", "authors")]
        + [
            (name, setting)
            for name in ("DDNM", "DDIM")
            for setting in ("authors", "searched", "searched")
        ]
    )
    for row in rows:
        if row["setting"] == "searched":
            assert 4 <= row["evaluations"] <= 14
        else:
            assert row["steps"] == 3
        assert row["evaluations"] == row["forward"] + row["jvp"] + row["vjp"]
        assert row["failed"] == 0
        assert row["ms_per_digit"] > 0
        assert row["peak_MB"] > 100
        for key in ("residual", "psnr", "ssim", "agreement"):
            assert row[f"{key}_low"] <= row[key] <= row[f"{key}_high"]


@pytest.mark.slow
def test_its_scores_are_those_of_the_images(table):
    data, rows = table
    images, labels = (x[FIRST : FIRST + 4] for x in mnist.digits("held-out"))
    entries = [json.loads(str(entry)) for entry in data["entries"]]
    at = next(
        i
        for i, entry in enumerate(entries)
        if (entry["method"], entry["setting"]) == ("DDNM", "authors")
    )
    found = torch.from_numpy(data["shown"][at].astype(np.float32))
    error = (found - images).square().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(data["psnr"][at], 10 * np.log10(4 / error), rtol=1e-3)
    assert data["residual"][at].max() < 1e-5  # DDNM meets the known half exactly
    named = mnist.load_classifier()(found).argmax(1)
    assert (data["agreement"][at] == (named == labels).numpy()).all()
    row = next(row for row in rows if (row["method"], row["setting"]) == ("DDNM", "authors"))
    assert row["psnr"] == pytest.approx(data["psnr"][at].mean())
    expected = torch.from_numpy(data["expected"][0].astype(np.float32))
    distance = (found - expected).square().sum((1, 2, 3)).numpy()
    np.testing.assert_allclose(data["distance"][at], distance, rtol=1e-2)
    true_distance = (images - expected).square().sum((1, 2, 3)).numpy()
    assert row["spread"] == pytest.approx(distance.mean() / true_distance.mean(), rel=1e-2)
    assert row["class_excess_low"] <= row["class_excess"] <= row["class_excess_high"]


@pytest.mark.slow
def test_the_limits_come_first_on_the_contests_digits_and_on_more(table):
    data, rows = table
    few, many = rows[:2]
    assert [(row["method"], row["digits"]) for row in (few, many)] == [
        ("limit", 4),
        ("limit, 3000 digits", 3000),
    ]
    assert few["agreement"] == data["limit_agreement"][0, :4].mean()
    assert many["psnr"] == pytest.approx(data["limit_psnr"][0].mean())
    assert many["agreement_low"] < many["agreement"] < many["agreement_high"]


@pytest.mark.slow
def test_killed_in_the_middle_two_processes_compute_what_one_does_to_the_bit(tmp_path):
    options = {"methods": ("inexact Newton", "DPS"), **TINY}
    serial = run(contest.STUDY, Contest(out=tmp_path / "one", **options))
    words = ["--tasks", "half", "--methods", *options["methods"], "--longest", "3"]
    words += ["--digits", "4", "--searched", "2", "--again", "2", "--budgets", "6", "12"]
    words += ["--processes", "2", "--out", str(tmp_path / "two")]
    start = "from studies.cli import main; main()"
    command = subprocess.Popen(
        [sys.executable, "-c", start, "benchmark", "contest", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    while not list((tmp_path / "two.partial").glob("search-*.npz")):
        assert time.monotonic() < until
        time.sleep(0.1)
    command.send_signal(signal.SIGKILL)
    command.wait()
    assert not (tmp_path / "two").exists()
    parallel = run(contest.STUDY, Contest(processes=2, out=tmp_path / "two", **options))
    assert json.loads((parallel / "manifest.json").read_text())["pieces_from_an_interrupted_run"]
    one, two = (stored(folder) for folder in (serial, parallel))
    assert one.keys() == two.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key], err_msg=key)
    assert contest.STUDY.table(one) == contest.STUDY.table(two)


@pytest.mark.slow
def test_what_cannot_run_is_left_out_and_told(tmp_path, capfd):
    options = TINY | {"tasks": ("super-resolution",)}
    folder = run(
        contest.STUDY, Contest(methods=("DDIM", "RePaint"), out=tmp_path / "run", **options)
    )
    assert "left out on super-resolution: RePaint (" in capfd.readouterr().err
    rows = contest.STUDY.table(stored(folder))
    last = rows[-1]
    assert (last["method"], last["setting"]) == ("RePaint", "left out")
    assert "masks only" in last["note"]
    assert not [row for row in contest.STUDY.answer(rows) if row["method"] == "RePaint"]


def test_where_no_method_is_left_one_reason_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no method is left: .*RePaint"):
        run(
            contest.STUDY,
            Contest(methods=("RePaint",), tasks=("quantised",), out=tmp_path / "run"),
        )


@pytest.mark.slow
def test_settings_choose_whose_parameters_run(tmp_path):
    methods = ("inexact Newton", "DDIM")
    kinds = {}
    for settings in (("authors",), ("searched",)):
        config = Contest(methods=methods, settings=settings, out=tmp_path / settings[0], **TINY)
        rows = contest.STUDY.table(stored(run(contest.STUDY, config)))
        kinds[settings[0]] = {(row["method"], row["setting"]) for row in rows[2:]}
    assert kinds["authors"] == {("DDIM", "authors")}
    assert kinds["searched"] == {(name, "searched") for name in methods}


@pytest.mark.parametrize(
    ("settings", "said"), [((), "authors, searched or both"), (("authors",), "Add searched")]
)
def test_settings_that_leave_nothing_to_run_are_refused(tmp_path, settings, said):
    options = {"methods": ("inexact Newton",), "settings": settings, "out": tmp_path / "run"}
    with pytest.raises(InputError, match=said):
        run(contest.STUDY, Contest(**options))
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named_before_anything_is_computed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "azula", None)
    with pytest.raises(InputError, match=r"jacobian-lab\[peers\]"):
        run(contest.STUDY, Contest(methods=("DDIM", "DPS"), out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())

"""Contests held one after the other are one, and it is told where they cannot be."""

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.contest import limits
from studies.contest.contest import STUDY as CONTEST
from studies.contest.contest import Contest
from studies.contest.joined import STUDY, Contests, joined
from studies.frame.study import run

from conftest import stored

TINY = {"digits": 3, "searched": 1, "again": 2, "budgets": (4,), "settings": ("searched",)}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of contests: DDIM on one task, DDIM and DDNM on another, and on other digits."""
    out = tmp_path_factory.mktemp("contests")
    held = {
        "half": Contest(tasks=("half",), methods=("DDIM",), out=out / "half", **TINY),
        "box": Contest(tasks=("box",), methods=("DDIM", "DDNM"), out=out / "box", **TINY),
        "more": Contest(
            tasks=("box",), methods=("DDIM",), out=out / "more", **TINY | {"digits": 4}
        ),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "HELD_OUT", 20)  # fewer digits for the limits
        patch.setattr(limits, "BATCH", 20)
        return {name: run(CONTEST, config) for name, config in held.items()}


def test_what_two_contests_stored_is_one_contest(parts, tmp_path):
    half, box = stored(parts["half"]), stored(parts["box"])
    whole = run(STUDY, Contests(runs=(parts["half"], parts["box"]), out=tmp_path / "whole"))
    rows = STUDY.table(stored(whole))
    assert rows == CONTEST.table(half) + CONTEST.table(box)
    assert (whole / "figure.png").is_file()


def test_what_two_contests_both_have_is_there_once(parts):
    one, other = stored(parts["half"]), stored(parts["half"])
    other["passes"] = other["passes"] + 95
    other["psnr"], other["budgets"] = other["psnr"] + 1, np.array([99])
    found = joined([one, one, other])
    assert len(found["entries"]) == 2
    np.testing.assert_array_equal(found["psnr"][1], one["psnr"][0] + 1)
    assert found["limit_psnr"].shape == one["limit_psnr"].shape
    assert found["budgets"].tolist() == [4, 99]
    assert found["tasks"].tolist() == ["half"]


def test_contests_of_other_digits_and_other_studies_are_not_joined(parts, tmp_path):
    with pytest.raises(InputError, match=r"more and .*half differ in digits: join"):
        Contests(runs=(parts["half"], parts["more"]))
    (tmp_path / "config.json").write_text('{"study": "jacobian"}')
    with pytest.raises(InputError, match="is no run of jacobian-lab benchmark contest"):
        Contests(runs=(tmp_path,))
    with pytest.raises(InputError, match=r"config\.json"):
        Contests(runs=(tmp_path / "none",))
    with pytest.raises(InputError, match="got none"):
        Contests()

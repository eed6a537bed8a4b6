"""Options of the contest: bad ones are named, and methods are those of the track."""

from pathlib import Path

import pytest

from jacobian_lab import InputError
from studies.contest.rules import STANDARD, Contest
from studies.contest.tracks import METHODS
from studies.frame.provenance import claim_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("deblur",)}, "--tasks must be of half; box"),
        ({"methods": ()}, "--methods must be of inexact Newton"),
        ({"again": 300}, "--again from 2 to --digits"),
        ({"budgets": ()}, "--budgets, --longest and --processes must be at least 1"),
        ({"processes": 0}, "--processes must be at least 1"),
        (
            {"parameters_of": Path("table.csv"), "settings": ("authors",)},
            "--parameters-of is for --settings searched",
        ),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Contest(**options)


TABLE = """task,method,setting,parameters,at_edge
half,limit,limit,,
half,DPS,authors,"{""zeta"": 1.0}",
half,DPS,searched,"{""zeta"": 3.0}",zeta
"""


def test_parameters_of_a_finished_contest_are_taken_from_its_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    found = {"parameters": {"zeta": 3.0}, "at_edge": "zeta", "budget": 0}
    expected = {"half: DPS": [found]}
    assert Contest(parameters_of=path).taken == expected
    for text, said in (
        (TABLE.replace("at_edge", "edge"), "is not the table.csv of a finished contest: KeyError"),
        (TABLE.replace("3.0}", "3.0"), "JSONDecodeError"),
        ("\n".join(TABLE.splitlines()[:3]), "no row with the setting searched"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            Contest(parameters_of=path)
    with pytest.raises(InputError, match="No such file"):
        Contest(parameters_of=tmp_path / "none.csv")


def test_a_run_is_the_same_wherever_the_table_of_its_parameters_lies(tmp_path):
    from studies.contest.contest import STUDY

    paths = tmp_path / "one.csv", tmp_path / "two.csv"
    for path in paths:
        path.write_text(TABLE)
    one, two = (claim_of(STUDY, Contest(parameters_of=path)) for path in paths)
    assert one == two
    assert one["taken"] != claim_of(STUDY, Contest())["taken"]


def test_methods_are_those_of_the_track():
    of_pixels = {peer.name for peer in Contest().peers()}
    assert of_pixels < set(STANDARD)
    assert {peer.name for peer in Contest(model="mnist-latent").peers()} == set(STANDARD)
    assert set(METHODS) - set(STANDARD) == {"TMPD", "RePaint", "DPS, annealed"}
    with pytest.raises(InputError, match=r"none of --methods inexact Newton, VAE is for --model"):
        Contest(methods=("inexact Newton, VAE",)).peers()


def test_a_run_is_the_same_on_any_number_of_processes():
    from studies.contest.contest import STUDY

    one, two = (claim_of(STUDY, Contest(processes=count)) for count in (1, 2))
    assert one == two
    assert one["weights"].keys() == {"denoiser", "classifier", "limits"}

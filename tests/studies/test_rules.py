"""Options of the contest: bad ones are named, and methods are those of the track."""

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
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Contest(**options)


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

"""The runs of a sweep, from its words."""

import pytest

from jacobian_lab import InputError
from studies.combinations import combinations, grouped
from studies.contest.rules import Contest
from studies.jacobian.eigenvalues import Eigenvalues
from studies.jacobian.spectrum import Spectrum
from studies.jacobian.symmetry import Symmetry
from studies.sampling.inpaint import Inpaint


def runs(kind, line):
    before, groups = grouped(line.split())
    assert not before
    return [" ".join(words) for words in combinations("study", kind, groups)]


@pytest.mark.parametrize(
    ("kind", "line", "wanted"),
    [
        (Eigenvalues, "", [""]),
        (Eigenvalues, "--model a.py:make b.py:make", ["--model a.py:make", "--model b.py:make"]),
        (Eigenvalues, "--model=a --times 1 2", ["--model a --times 1 2"]),
        (Eigenvalues, "--digits 0:200 --seeds 0:5", ["--digit 0 --digits 200 --seed 0 --seeds 5"]),
        (Eigenvalues, "--digits 3:5 7:8", ["--digit 3 --digits 2", "--digit 7 --digits 1"]),
        (Eigenvalues, "--digits 2 3", ["--digits 2", "--digits 3"]),
        (Eigenvalues, "--seed 1:3 9", ["--seed 1", "--seed 2", "--seed 9"]),
        (Spectrum, "--digit 0:2 --time 5 6", [
            f"--digit {digit} --time {time}" for digit in (0, 1) for time in (5, 6)
        ]),
        (Spectrum, "--arnoldi-steps 10:12", ["--arnoldi-steps 10", "--arnoldi-steps 11"]),
        (Symmetry, "--pixel 3 4 --channel 0", ["--pixel 3 4 --channel 0"]),
        (Inpaint, "--no-project --temperature 0.5 1", [
            "--no-project --temperature 0.5", "--no-project --temperature 1"
        ]),
        (Contest, "--methods DPS MPGD --seed 0 1", [
            "--methods DPS MPGD --seed 0", "--methods DPS MPGD --seed 1"
        ]),
        (Eigenvalues, "--unknown a b", ["--unknown a b"]),  # for the study's own parser
        (Eigenvalues, "--digits 1: --guidance 1:3", ["--digits 1: --guidance 1:3"]),
    ],
)  # fmt: skip
def test_what_takes_one_value_may_have_several_and_a_run_for_each(kind, line, wanted):
    assert runs(kind, line) == wanted


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        (Eigenvalues, "--seed 3:3", "--seed 3:3 is an empty range: a:b is from a to b - 1"),
        (Eigenvalues, "--digits 9:3", "is an empty range"),
        (Eigenvalues, "--digit 3 --digits 0:5", "unclear, since --digit is given too"),
        (Contest, "--digits 0:5", "unclear, since --digit is no option of study"),
        (Spectrum, "--digits 0:5", "looks at one digit: take --digit 0:5, a run for each"),
        (Spectrum, "--seeds 2", "looks at one seed: take --seed 2"),
        (Eigenvalues, "--model a b a", "--model a is named twice"),
        (Eigenvalues, "--seed 0:3 2", "--seed 2 is named twice"),
        (Eigenvalues, "--seed 0:99999999999", "99,999,999,999 values: expected at most 10,000"),
        (Eigenvalues, "--seed 0:200 --digit 0:200", "these are 40,000 runs: expected at most"),
    ],
)
def test_what_is_empty_or_unclear_is_refused(kind, line, message):
    with pytest.raises(InputError, match=message):
        runs(kind, line)

"""A report passes if all of its checks do, and says what to do where one does not."""

import math

import pytest

from jacobian_lab import InputError
from jacobian_lab.linops.report import Check, Report

FINE = Check("adjoint", 1e-7, 1e-5, "take the other transpose")
BAD = Check("linear", 0.3, 1e-5, "products are no derivative")
SWEEP = ((1e-1, 1e-2), (1e-3, 1e-6), (1e-5, 1e-4))


def test_a_report_is_true_if_all_checks_pass():
    assert Report("linearised", (FINE,), SWEEP)
    assert not Report("linearised", (FINE, BAD), SWEEP)
    assert Check("equal", 2, 2, "").passed
    assert not Check("a NaN", math.nan, math.inf, "").passed


def test_it_prints_a_line_a_check_with_advice_only_where_it_fails():
    report = Report("linearised", (FINE, BAD), SWEEP, ("n is small",))
    lines = str(report).split("\n")
    assert lines[0] == "products: linearised"
    assert lines[1].endswith("agree to 1.0e-06, at h = 1.0e-03 of |x_t|")
    assert lines[2].split() == ["adjoint", "1.0e-07", "(at", "most", "1.0e-05)", "pass"]
    assert lines[3].endswith("FAIL  products are no derivative")
    assert lines[4] == "  note: n is small"
    assert "take the other transpose" not in str(report)
    assert report.noise == 1e-6


def test_checks_are_found_by_name():
    report = Report("linearised", (FINE, BAD), SWEEP)
    assert report["linear"] is BAD
    with pytest.raises(InputError, match="no check 'derivation': expected one of adjoint, linear"):
        report["derivation"]

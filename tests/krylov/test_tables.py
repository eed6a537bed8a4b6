"""A result is printed to the digits that are known."""

import numpy as np

from jacobian_lab.krylov.tables import SHOWN, goal_reached, listing


def test_digits_follow_the_errors_and_long_results_are_cut():
    values = np.pi + np.arange(SHOWN + 3)
    errors = np.full(SHOWN + 3, 1e-3)
    errors[1] = 1e-9
    lines = listing("value", values, errors, errors / 10, "converged", 42).split("\n")
    assert lines[0].split() == ["value", "error", "residual"]
    assert lines[1].split() == ["3.1416", "1.0e-03", "1.0e-04"]
    assert lines[2].split()[0] == "4.1415926536"
    assert lines[SHOWN + 1].strip() == "... 3 more"
    assert lines[-1] == "converged (42 products)"
    assert len({len(line) for line in lines[: SHOWN + 1]}) == 1


def test_complex_values_and_values_without_a_size_are_printed():
    text = listing("value", np.array([1 + 2j, 0.0]), np.array([1e-2, 0.0]), np.zeros(2), "", 1)
    assert "1+2j" in text
    assert "nan" not in text
    lost = np.array([np.nan, np.inf, 1.2345])  # of a result that did not converge
    lines = listing("value", lost, np.array([1.0, np.inf, np.nan]), lost, "", 1).split("\n")
    assert [line.split()[0] for line in lines[1:4]] == ["nan", "inf", "1.2"]


def test_the_goal_is_the_noise_where_that_is_more():
    assert goal_reached(1e-6, 1e-6, 1e-9) == "the operator's noise floor 1.0e-06"
    assert goal_reached(1e-6, 1e-8, 1e-6) == "rtol 1.0e-06"

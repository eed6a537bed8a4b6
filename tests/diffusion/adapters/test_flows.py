"""Flows whose time runs from noise to data, against the libraries' own paths."""

from adapter_cases import cases, check


@cases("flows")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

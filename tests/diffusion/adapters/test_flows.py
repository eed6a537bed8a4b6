"""Flows whose time runs from noise to data, against the libraries' own paths."""

from adapter_cases import cases, check_products, check_value


@cases("flows")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("flows", products=True)
def test_j_is_its_derivative(case):
    check_products(case)

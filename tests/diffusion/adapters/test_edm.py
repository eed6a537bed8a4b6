"""Karras's preconditioning, against the wrapped network's own call."""

from adapter_cases import cases, check


@cases("edm")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

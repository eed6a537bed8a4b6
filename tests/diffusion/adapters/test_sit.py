"""SiT and DiT of their authors' code, against the formulas of SiT's paths."""

from adapter_cases import cases, check


@cases("sit")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

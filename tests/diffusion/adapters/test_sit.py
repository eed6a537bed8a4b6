"""SiT and DiT of their authors' code, against the formulas of SiT's paths."""

from adapter_cases import cases, check_products, check_value


@cases("sit")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("sit", products=True)
def test_j_is_its_derivative(case):
    check_products(case)

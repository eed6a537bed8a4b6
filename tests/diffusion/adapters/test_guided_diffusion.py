"""guided-diffusion's networks, against Ho's formula for x_0."""

from adapter_cases import cases, check_products, check_value


@cases("guided_diffusion")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("guided_diffusion", products=True)
def test_j_is_its_derivative(case):
    check_products(case)

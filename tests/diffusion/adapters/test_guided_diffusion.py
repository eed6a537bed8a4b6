"""guided-diffusion's networks, against Ho's formula for x_0."""

from adapter_cases import cases, check


@cases("guided_diffusion")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

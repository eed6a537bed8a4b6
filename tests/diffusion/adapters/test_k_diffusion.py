"""k-diffusion's wrappers, against their own call."""

from adapter_cases import cases, check


@cases("k_diffusion")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

"""denoising-diffusion-pytorch's objects, against their own predictions."""

from adapter_cases import cases, check


@cases("denoising_diffusion")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

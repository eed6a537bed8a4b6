"""denoising-diffusion-pytorch's objects, against their own predictions."""

from adapter_cases import cases, check_products, check_value


@cases("denoising_diffusion")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("denoising_diffusion", products=True)
def test_j_is_its_derivative(case):
    check_products(case)

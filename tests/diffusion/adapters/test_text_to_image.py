"""Text-to-image pipelines against diffusers' own calls."""

from adapter_cases import cases, check_products, check_value


@cases("text_to_image")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("text_to_image", products=True)
def test_j_is_its_derivative(case):
    check_products(case)

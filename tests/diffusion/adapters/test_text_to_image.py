"""Text-to-image pipelines against diffusers' own calls."""

from adapter_cases import cases, check


@cases("text_to_image")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

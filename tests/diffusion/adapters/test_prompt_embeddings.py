"""What carries a prompt into SDXL, PixArt, AuraFlow, Lumina 2, Sana, FLUX: against their calls."""

from adapter_cases import cases, check_products, check_value


@cases("prompt_embeddings")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("prompt_embeddings", products=True)
def test_j_is_its_derivative(case):
    check_products(case)

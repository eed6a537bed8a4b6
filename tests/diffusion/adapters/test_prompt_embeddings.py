"""What carries a prompt into SDXL, PixArt, AuraFlow, Lumina 2, Sana, FLUX: against their calls."""

from adapter_cases import cases, check


@cases("prompt_embeddings")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

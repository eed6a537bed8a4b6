"""azula's denoisers in our operator, and ours in its samplers."""

from adapter_cases import cases, check


@cases("azula")
def test_d_is_the_familys_own_x_0_and_j_its_derivative(case):
    check(case)

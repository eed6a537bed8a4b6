"""Karras's preconditioning, against the wrapped network's own call."""

import pytest

from jacobian_lab import InputError, load

from adapter_cases import cases, check_products, check_value
from adapter_cases_libraries import EDMPrecond, VPPrecond


@cases("edm")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


def test_an_object_with_scalings_of_its_own_is_told():
    class Other(EDMPrecond):
        def forward(self, x, sigma, class_labels=None):
            return super().forward(x, 9 * sigma, class_labels)

    with pytest.raises(InputError, match=r"Other has a sigma_data, but its own D\(x, 1\) is not"):
        load(Other())


def test_an_infinite_range_is_karrass_and_a_finite_one_is_kept():
    assert repr(load(EDMPrecond()).schedule) == "VarianceExploding(sigma 80 -> 0.002)"
    assert repr(load(VPPrecond()).schedule) == "VarianceExploding(sigma 150 -> 0.006)"


@cases("edm", products=True)
def test_j_is_its_derivative(case):
    check_products(case)

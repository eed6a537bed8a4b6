"""Karras's preconditioning, against the wrapped network's own call."""

import pytest
import torch
from torch import nn

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

    with pytest.raises(InputError, match=r"Other has a sigma_data, but its own D\(x, 0.2\) is not"):
        load(Other())


def test_an_infinite_range_is_karrass_and_a_finite_one_is_kept():
    assert repr(load(EDMPrecond()).schedule) == "VarianceExploding(sigma 80 -> 0.002)"
    assert repr(load(VPPrecond()).schedule) == "VarianceExploding(sigma 150 -> 0.006)"


@cases("edm", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


class Clocked(nn.Module):
    """Karras's scalings around a network whose time is a function of sigma."""

    sigma_data, channels, image_size = 0.5, 1, 8

    def __init__(self, time, name):
        super().__init__()
        self.time = time
        setattr(self, name, Waves())

    def forward(self, x, sigma):
        network = self.net if hasattr(self, "net") else self.model
        s, d = sigma.reshape(-1, 1, 1, 1), self.sigma_data
        power = s**2 + d**2
        return d**2 / power * x + s * d / power.sqrt() * network(x / power.sqrt(), self.time(sigma))


class Waves(nn.Conv2d):
    """A network whose time matters."""

    def __init__(self):
        super().__init__(1, 1, 3, padding=1)

    def forward(self, x, t, **given):
        return super().forward(x) * (1 + t.reshape(-1, 1, 1, 1).cos())


@pytest.mark.parametrize("name", ["model", "net"])
@pytest.mark.parametrize("time", [torch.log, lambda sigma: 250 * sigma.log(), torch.square])
def test_an_object_with_a_time_of_its_own_is_told(name, time):
    """Multiples of ln(sigma) all agree with ln(sigma) / 4 at sigma = 1."""
    load(Clocked(lambda sigma: sigma.log() / 4, name), family="edm")
    with pytest.raises(InputError, match="they differ by"):
        load(Clocked(time, name), family="edm")

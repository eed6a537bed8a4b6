"""k-diffusion's wrappers, against their own call."""

import pytest
from torch import nn

from jacobian_lab import InputError, load

from adapter_cases import cases, check_products, check_value


@cases("k_diffusion")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("k_diffusion", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


class Timeless(nn.Conv2d):
    """A network that takes a time."""

    def forward(self, x, t):
        return super().forward(x)


class Denoiser(nn.Module):
    """A stand-in of k-diffusion's wrapper, with a factor of its own."""

    sigma_data = 1.0

    def __init__(self, factor):
        super().__init__()
        self.inner_model, self.factor = Timeless(1, 1, 3, padding=1), factor

    def get_scalings(self, sigma):
        power = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / power, self.factor * sigma / power.sqrt(), power.rsqrt()

    def forward(self, x, sigma):
        c_skip, c_out, c_in = (c.reshape(-1, 1, 1, 1) for c in self.get_scalings(sigma))
        return c_skip * x + c_out * self.inner_model(c_in * x, sigma)


def test_a_wrapper_with_scalings_of_its_own_is_told():
    load(Denoiser(1.0), shape=(1, 8, 8))
    with pytest.raises(InputError, match="the Denoiser has a sigma_data, but its own D"):
        load(Denoiser(2.0), shape=(1, 8, 8))

"""Lower precision inside is found, and said."""

import pytest
import torch

from jacobian_lab import Denoiser
from jacobian_lab.derivative.precision import observed
from jacobian_lab.derivative.products import Products

import networks
from conftest import relative

X = torch.randn(1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
V = torch.randn(3, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_inside_keeps_the_recording_and_says_how_rough_it_is(dtype):
    model = networks.unet(torch.float32)
    inner = networks.unet(torch.float32).network.to(dtype)
    products = Products(
        Denoiser(lambda x, t: inner(x.to(dtype), t).float(), model.schedule, "v", model.shape),
        X.float(),
        300,
    )
    assert products.path == "linearised"
    eps = torch.finfo(dtype).eps
    assert (
        relative(products.jvp(V.float()), Products(model, X.float(), 300).jvp(V.float())) < 10 * eps
    )
    assert (
        relative(products.vjp(V.float()), Products(model, X.float(), 300).vjp(V.float())) < 10 * eps
    )
    assert eps / 10 < products.error < 30 * eps


def test_the_coarsest_precision_of_what_depends_on_x_is_named():
    x = X.float()
    weight = torch.ones(1, dtype=torch.float16) * 2  # depends on nothing

    def function(x):
        return (x.bfloat16() * 2).float() + weight.half().float()

    value, eps, operations, _ = observed(function, x)
    assert torch.equal(value, function(x))
    assert eps == torch.finfo(torch.bfloat16).eps
    assert operations == {"_to_copy in bfloat16", "mul in bfloat16"}


def test_a_network_that_cannot_be_watched_is_taken_to_compute_as_x():
    tried = []

    def function(x):
        tried.append(0)
        if len(tried) == 1:
            raise NotImplementedError("not in this mode")
        return x

    _, eps, operations, _ = observed(function, X.float())
    assert eps == torch.finfo(torch.float32).eps
    assert operations == set()

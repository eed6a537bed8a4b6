"""Lower precision inside is found, and said."""

import pytest
import torch

from jacobian_lab import Denoiser
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

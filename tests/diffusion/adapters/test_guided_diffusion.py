"""guided-diffusion's networks, against Ho's formula for x_0."""

import pytest
import torch

from jacobian_lab import DiscreteSchedule, InputError, load

from adapter_cases import cases, check_products, check_value
from adapter_cases_libraries import UNetModel


@cases("guided_diffusion")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("guided_diffusion", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


def test_a_model_of_improved_diffusion_does_not_tell_its_size():
    class Improved(UNetModel):
        image_size = property()

    Improved.__name__ = "UNetModel"
    model, schedule = Improved(), DiscreteSchedule.cosine()
    with pytest.raises(InputError, match=r"has no image_size: pass shape=\(3, H, W\)"):
        load(model, schedule=schedule, label=2)
    x = torch.randn(1, 3, 8, 8)
    theirs = load(UNetModel(), schedule=schedule, label=2)
    assert load(model, schedule=schedule, label=2, shape=(3, 8, 8)).shape == theirs.shape
    assert load(model, schedule=schedule, label=2, shape=(3, 8, 8))(x, 5).isfinite().all()

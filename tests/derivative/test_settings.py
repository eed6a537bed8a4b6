"""Derivatives are possible inside, and the caller's settings come back."""

import pytest
import torch

from jacobian_lab.derivative.settings import MATH_ATTENTION, differentiable


def kernels():
    backend = torch.backends.cuda
    return backend.flash_sdp_enabled(), backend.mem_efficient_sdp_enabled()


@pytest.mark.parametrize("outside", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_on_inside_whatever_is_outside(outside):
    with outside():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with differentiable():
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_the_math_kernel_is_taken_until_the_last_one_is_out():
    before = kernels()
    with MATH_ATTENTION:
        assert kernels() == (False, False)
        with MATH_ATTENTION:
            pass
        assert kernels() == (False, False)
    assert kernels() == before


def test_settings_come_back_after_an_error():
    before = kernels()
    with pytest.raises(KeyError), MATH_ATTENTION, differentiable():
        raise KeyError("inside")
    assert kernels() == before

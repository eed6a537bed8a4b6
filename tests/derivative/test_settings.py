"""Derivatives are possible inside, and the caller's settings come back."""

import pytest
import torch

from jacobian_lab.derivative.settings import differentiable


def kernels():
    backend = torch.backends.cuda
    return backend.flash_sdp_enabled(), backend.mem_efficient_sdp_enabled()


@pytest.mark.parametrize("outside", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_on_inside_whatever_is_outside(outside):
    with outside():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), kernels()
        with differentiable():
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert kernels() == (False, False)
            with differentiable():
                pass
            assert kernels() == (False, False)  # until the last one is out
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), kernels()) == before


def test_settings_come_back_after_an_error():
    before = kernels()
    with pytest.raises(KeyError), differentiable():
        raise KeyError("inside")
    assert kernels() == before

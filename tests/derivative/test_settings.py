"""Derivatives are possible inside, and the caller's settings come back."""

import pytest
import torch

from jacobian_lab.derivative.settings import (
    FLOAT32,
    MATH_ATTENTION,
    as_called,
    autocast_here,
    coarser_float32,
    differentiable,
    under,
)


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


def product_type():
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_autocast_is_off_inside_but_for_a_function_of_its_caller():
    with torch.autocast("cpu", torch.bfloat16):
        here = autocast_here()
        with differentiable():
            assert product_type() is torch.float32
            function = as_called(lambda x: x @ x)
            with differentiable():
                assert autocast_here() == here
        assert product_type() is torch.bfloat16
    assert here == (("cpu", torch.bfloat16),)
    assert autocast_here() == ()
    assert function(torch.ones(2, 2)).dtype is torch.bfloat16
    assert product_type() is torch.float32
    with under(here):
        assert product_type() is torch.bfloat16


def test_a_function_made_without_autocast_is_run_without():
    function = as_called(lambda x: x @ x)
    with torch.autocast("cpu", torch.bfloat16):
        assert function(torch.ones(2, 2)).dtype is torch.float32
        with under((("cpu", torch.float16),)):
            assert product_type() is torch.float16
        assert product_type() is torch.bfloat16


@pytest.mark.parametrize("kind", FLOAT32)
def test_settings_that_make_float32_coarser_are_named(kind):
    for name, place in FLOAT32[kind].items():
        before = place.fp32_precision
        try:
            place.fp32_precision = "tf32" if kind == "cuda" else "bf16"
            assert [each for each in coarser_float32(kind) if name in each]
            place.fp32_precision = "ieee"
            assert not [each for each in coarser_float32(kind) if name in each]
        finally:
            place.fp32_precision = before
    assert coarser_float32("meta") == []

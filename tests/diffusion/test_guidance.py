"""Classifier-free guidance is that of diffusers."""

import torch
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule, guided

from conftest import SHAPE, relative


def test_guidance_combines_raw_outputs_as_diffusers_does():
    def conditional(x, t):
        return x + 1

    def unconditional(x, t):
        return 2 * x

    x, t = torch.randn(2, *SHAPE), torch.zeros(2)
    torch.testing.assert_close(
        guided(conditional, unconditional, 7.5)(x, t), 2 * x + 7.5 * (x + 1 - 2 * x)
    )
    torch.testing.assert_close(guided(conditional, unconditional, 0.0)(x, t), 2 * x)
    assert guided(conditional, unconditional, 1) is conditional


def test_guiding_networks_equals_guiding_posterior_means():
    schedule, x = DiscreteSchedule.linear(), torch.randn(2, *SHAPE, dtype=torch.float64)
    one, two = (Denoiser(lambda x, t, k=k: torch.tanh(k * x), schedule, "v", SHAPE) for k in (1, 2))
    both = Denoiser(guided(one.network, two.network, 3.0), schedule, "v", SHAPE)
    assert relative(both(x, 300), two(x, 300) + 3 * (one(x, 300) - two(x, 300))) < 1e-12


def test_modules_inside_are_reached_by_eval_and_to():
    network = nn.Conv2d(1, 1, 1)
    denoiser = Denoiser(
        guided(network, nn.Conv2d(1, 1, 1), 2.0), DiscreteSchedule.linear(), "v", SHAPE
    )
    assert denoiser.training
    assert not denoiser.eval().network.conditional.training
    assert denoiser.double().network.conditional.weight.dtype == torch.float64


def test_outputs_are_unwrapped_as_the_denoiser_does():
    one, two = (lambda x, t, k=k: {"sample": k * x} for k in (1, 2))
    x = torch.ones(1, *SHAPE)
    for scale in (1.0, 3.0):
        denoiser = Denoiser(guided(one, two, scale), DiscreteSchedule.linear(), "sample", SHAPE)
        torch.testing.assert_close(denoiser(x, 5), 2 * x + scale * (x - 2 * x))

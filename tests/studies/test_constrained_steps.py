"""Constrained samples step by step."""

import torch

import mnist
from jacobian_lab import Inpainting, Newton, sample, seeded_noise
from jacobian_lab.sampling.sampler import seed_of
from studies.explore.constrained_steps import COUNT, PRESETS, Drawing, constrained_states
from studies.frame.models import open_model


def test_the_states_are_those_of_sample(model):
    opened = open_model(model, "cpu")
    clean, mask = mnist.digits("held-out")[0][4], PRESETS["top half"](opened.denoiser.shape)
    run = Drawing("inexact", newton_steps=1, times=2, seed=5)
    found = list(constrained_states(opened, clean, mask, run))
    noise = seeded_noise([seed_of(5, i) for i in range(COUNT)], opened.denoiser.shape)
    expected = list(
        sample(
            opened.denoiser,
            noise,
            opened.denoiser.schedule.times(2),
            Inpainting(clean[None], mask),
            Newton("inexact", steps=1),
        )
    )
    assert [(s.t, s.step) for s in found] == [(s.t, s.step) for s in expected]
    assert all(torch.equal(a.x0, b.x0) for a, b in zip(found, expected, strict=True))
    assert torch.equal(found[-1].residual, expected[-1].residual)


def test_presets_know_some_and_hide_some_of_images_of_any_size():
    for shape in ((1, 32, 32), (4, 8, 8), (3, 16, 24)):
        for preset in PRESETS.values():
            mask = preset(shape)
            assert mask.shape[1:] == shape[1:]
            assert 0 < int(mask.sum()) < mask.numel()

"""A path of several digits, of which one diverges."""

import numpy as np
import torch

from jacobian_lab import DiscreteSchedule
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, Fixed
from studies.sampling.trajectories import trajectory

from conftest import make_gaussian


def test_a_digit_that_diverges_does_not_stop_the_others():
    oracle = make_gaussian(DiscreteSchedule.linear())
    noise = seeded_noise([0, 1, 2], oracle.shape, dtype=torch.float64)
    constraint, times = Inpainting(noise.flip(0), half(oracle.shape)), oracle.schedule.times(4)
    constraint.y[1] *= 1e9  # the constructor refuses such an observation
    newton = Newton("inexact", 2, Fixed(0.5))
    found = trajectory(oracle.denoiser(), constraint, noise, times, newton)
    assert found["residual"].shape == (3, 12)
    assert np.isnan(found["x0"][1, -1]).all()
    for i in (0, 2):
        *_, alone = sample(
            oracle.denoiser(), noise[i : i + 1], times, constraint.select(slice(i, i + 1)), newton
        )
        np.testing.assert_allclose(found["residual"][i, -1], float(alone.residual), rtol=1e-4)
    steady = trajectory(
        oracle.denoiser(),
        constraint.select(slice(0, 1)),
        noise[:1],
        times,
        Newton("inexact", 2, Dynamic(0.1)),
    )
    assert np.isfinite(steady["residual"]).all()

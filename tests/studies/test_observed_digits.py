"""Observed digits: each is solved by itself, and its scores are those of its sample."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import seeded_noise
from jacobian_lab.sampling.step_size import Fixed
from mnist.oracle import load_oracle
from studies.frame.statistics import scores
from studies.sampling.directions_budget import REAL
from studies.sampling.observed_digits import ObservedDigits


@pytest.fixture(scope="module")
def real():
    """Features of the real digits of the study."""
    judge, images = mnist.load_classifier(), mnist.digits("held-out")[0]
    return torch.cat([judge.features(images[i : i + REAL.step]).detach() for i in REAL])


@pytest.fixture
def problem(real):
    """Half of three digits, on the oracle."""
    oracle, judge = load_oracle(), mnist.load_classifier()
    images, labels = mnist.digits("held-out")
    return ObservedDigits(
        oracle,
        judge,
        Inpainting(images[:3], half(oracle.shape)),
        seeded_noise(range(3), oracle.shape),
        images[:3],
        labels[:3],
        real,
    )


def test_a_digit_that_diverges_leaves_the_others_alone(problem):
    newton = Newton("identity", 1, Fixed(1.0), refresh=False)
    alone = problem.solve(newton, 3)
    problem.noise[1] *= 1e5
    found = problem.solve(newton, 3)
    assert np.isnan(found["images"][1]).all()
    for key in ("residuals", "sizes", "images"):
        np.testing.assert_allclose(found[key][[0, 2]], alone[key][[0, 2]], atol=1e-5)
    assert (found["passes"] == alone["passes"]).all()
    assert np.isnan(problem.solve(newton, 3)["doubt"]).tolist() == [False, True, False]


def test_size_and_distance_are_those_of_the_digits_by_rights(problem):
    images = mnist.digits("held-out")[0]
    assert problem.distance(images[3003:3004]) < 1e-2
    first = problem.solve(Newton("identity", 1, Fixed(1.0), refresh=False), 1)["sizes"][:, 0]
    alpha_t, sigma_t = (float(c) for c in problem.denoiser.schedule(999))
    rms = [float(x.square().mean()) for x in (problem.noise[0], images[0])]
    assert first[0] == pytest.approx((rms[0] / (alpha_t**2 * rms[1] + sigma_t**2)) ** 0.5, rel=1e-4)


def test_some_of_the_digits_are_solved_as_they_are_among_all(problem):
    newton = Newton("identity", 1, Fixed(1.0), refresh=False)
    every, some = problem.solve(newton, 2), problem.select(slice(1, 3)).solve(newton, 2)
    for key in ("residuals", "sizes", "images", "psnr", "doubt", "distance"):
        np.testing.assert_allclose(some[key], every[key][1:], rtol=1e-4, atol=1e-5)
    drawn = torch.from_numpy(every["images"])
    expected = scores(drawn, problem.images, problem.labels, problem.judge)
    for key, value in expected.items():
        np.testing.assert_array_equal(every[key], value)
    np.testing.assert_allclose(every["residual"], problem.constraint.residual(drawn), rtol=1e-5)

"""What the spectrum predicts of a Newton step, beside the step."""

import numpy as np
import pytest
import torch

from jacobian_lab import DiscreteSchedule
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.sampler import seeded_noise
from jacobian_lab.sampling.step_size import Fixed
from studies.sampling.contraction import RANKS, contraction, predictions

from conftest import make_gaussian


def test_predictions_of_a_diagonal_matrix_are_those_of_the_equation():
    mu = np.array([2.0, 1.0, 0.5, 0.0])
    known, e = np.array([True, True, True, False]), np.array([0.0, 3.0, 4.0, 0.0])
    found = predictions(np.diag(mu), known, e, size=0.25)
    after = np.linalg.norm((1 - 0.25 * mu**2) * e) / 5
    for key in ("linear", "symmetric", "without_mask"):
        assert found[key] == pytest.approx(after)
    assert found["real"] == found["complex"] == found["mask"] == pytest.approx(0)
    assert found["radius"] == pytest.approx(1)
    assert found["radius_mask"] == pytest.approx(1 - 0.25 * 0.25)
    assert found["ratio"] == pytest.approx(1)
    assert found["mu"] == pytest.approx(2)
    # of 1, 2 and 4 (for 5) eigenvectors
    np.testing.assert_allclose(found["share"][:3], [0, 9 / 25, 1], atol=1e-12)
    assert found["reached"] == pytest.approx(9 / 25)  # lambda mu^2 = 1, 0.25, 0.06


def test_a_rotation_turns_by_a_complex_eigenvalue():
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    found = predictions(turn, np.array([True, True]), np.array([1.0, 0.0]), size=0.5)
    # mu^2 = -1: the step goes the wrong way
    assert found["linear"] == found["complex"] == pytest.approx(1.5)
    assert found["real"] == pytest.approx(0.5)
    assert found["symmetric"] == pytest.approx(1)


def test_on_a_gaussian_the_linear_model_is_the_truth():
    oracle = make_gaussian(DiscreteSchedule.linear())
    x_t = seeded_noise([0], oracle.shape, dtype=torch.float64)
    constraint = Inpainting(
        seeded_noise([1], oracle.shape, dtype=torch.float64), half(oracle.shape)
    )
    for t in (200, 500, 800):
        found = contraction(oracle.denoiser(), x_t, t, constraint, Fixed(0.3))
        assert found["linear"] == pytest.approx(float(found["measured"]), rel=1e-6)
        assert found["symmetric"] == pytest.approx(float(found["linear"]), rel=1e-9)
        assert found["share"].shape == RANKS.shape
        assert found["share"][-1] == pytest.approx(1)

"""Orthogonal to rounding, also where a vector lies nearly in the space."""

import numpy as np
import pytest

from jacobian_lab import InputError
from jacobian_lab.krylov.gram_schmidt import orthogonal_to, project_out, unit_vector

RNG = np.random.default_rng(0)
Q = np.linalg.qr(RNG.standard_normal((80, 20)))[0]


@pytest.mark.parametrize("outside", [1.0, 1e-8, 1e-13])
def test_what_is_left_is_orthogonal_and_what_was_taken_is_known(outside):
    inside = RNG.standard_normal(20)
    w = Q @ inside + outside * orthogonal_to(Q, RNG.standard_normal(80))
    rest, h = project_out(Q, w)
    np.testing.assert_allclose(rest + Q @ h, w, atol=1e-14)
    np.testing.assert_allclose(h, inside, atol=1e-14)
    assert np.abs(Q.T @ rest).max() < 1e-15
    unit = orthogonal_to(Q, w)
    assert np.linalg.norm(unit) == pytest.approx(1, rel=1e-14)
    assert np.abs(Q.T @ unit).max() < 1e-14


def test_a_start_vector_has_length_1_at_every_scale_or_is_refused():
    for scale in (1e-300, 1.0, 1e300):
        assert np.linalg.norm(unit_vector(scale * np.ones(5), 5)) == pytest.approx(1)
    for bad, message in (
        (np.zeros(5), "the start vector is zero"),
        (np.ones(4), r"shape \(4,\): expected \(5,\)"),
        (np.full(5, np.nan), "5 values of 5 that are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            unit_vector(bad, 5)

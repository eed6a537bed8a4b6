"""Schur forms: a similarity, the wanted eigenvalues first, conjugate pairs whole."""

import numpy as np
import pytest
import scipy.linalg

from jacobian_lab.krylov.schur import (
    RANKS,
    conditions_of,
    ordered_schur,
    schur_values,
    whole_pairs,
)


def matrix(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n))


@pytest.mark.parametrize("which", RANKS)
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_the_wanted_come_first_and_pairs_are_whole(which, k):
    for seed in range(5):
        H = matrix(12, seed)
        Z, T, count = ordered_schur(H, k, RANKS[which])
        assert np.linalg.norm(Z.T @ Z - np.eye(12)) < 1e-12
        assert np.linalg.norm(Z @ T @ Z.T - H) < 1e-12
        assert count in (k, k + 1)
        assert count == 12 or T[count, count - 1] == 0
        ranks = np.sort(RANKS[which](np.linalg.eigvals(H)))[::-1]
        found = np.sort(RANKS[which](schur_values(T[:count, :count])))[::-1]
        np.testing.assert_allclose(found, ranks[:count], atol=1e-10)


def test_the_better_half_of_the_rest_follows():
    _, T, count = ordered_schur(np.diag(np.arange(9.0)), 2, RANKS["LR"])
    assert set(np.diag(T)[:count]) == {8.0, 7.0}
    assert set(np.diag(T)[count:6]) == {6.0, 5.0, 4.0, 3.0}


def test_values_stand_in_the_order_of_the_diagonal():
    T, _ = scipy.linalg.schur(matrix(11, 3), output="real")
    values = schur_values(T)
    np.testing.assert_allclose(values.real, np.diag(T), atol=1e-13)
    np.testing.assert_allclose(
        np.sort_complex(values), np.sort_complex(np.linalg.eigvals(T)), atol=1e-12
    )
    pair = int(np.flatnonzero(np.diag(T, -1))[0])
    assert whole_pairs(T, pair + 1) == pair + 2
    assert whole_pairs(T, 0) == 0
    assert whole_pairs(T, 11) == 11


def test_conditions_are_those_of_a_jordan_block_that_was_moved_apart():
    values, conditions = conditions_of(np.array([[1.0, 1.0], [0.0, 1.0 + 1e-3]]))
    np.testing.assert_allclose(np.sort(values.real), [1, 1.001])
    np.testing.assert_allclose(conditions, np.hypot(1, 1e3), rtol=1e-6)
    assert np.isfinite(conditions_of(np.array([[1.0, 1.0], [0.0, 1.0]]))[1]).all()

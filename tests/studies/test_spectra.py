"""Ritz values by step, and real vectors of eigenvectors."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from studies.explore.spectra import leading_eigenpairs, real_vector, ritz_values


def matrix():
    """Eigenvalues 3 +- i, 2, 1, and a tail; not normal."""
    A = np.diag([3.0, 3.0, 2.0, 1.0, *np.linspace(0, 0.5, 26)])
    A[0, 1], A[1, 0] = 1, -1
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    return Q @ (A + np.triu(np.ones((30, 30)), 4) * 0.02) @ Q.T


def test_ritz_values_converge_to_the_eigenvalues_with_residuals_that_fall():
    A = matrix()
    steps = list(ritz_values(aslinearoperator(A), 15))
    assert [ritz.step for ritz in steps] == list(range(1, 16))
    assert all(len(ritz.values) == ritz.step for ritz in steps)
    exact = np.linalg.eigvals(A)
    last = steps[-1].values
    assert min(abs(exact - last[0])) < 1e-8
    assert steps[-1].residuals[0] < 1e-6 < steps[3].residuals[0]


def test_there_are_no_more_steps_than_dimensions():
    assert len(list(ritz_values(aslinearoperator(np.eye(4)), 9))) == 4


def test_the_leading_eigenpairs_are_asked_for_and_say_whether_they_converged():
    found = leading_eigenpairs(aslinearoperator(matrix()), 3)
    assert found.converged
    assert abs(found.values[0]) == pytest.approx(10**0.5, rel=0.05)


def test_a_real_vector_of_a_complex_pair_stays_in_the_plane_that_a_maps_to_itself():
    A = matrix()
    found = leading_eigenpairs(aslinearoperator(A), 2)
    v = real_vector(found, 0)
    assert abs(v).max() == pytest.approx(1)
    assert np.isrealobj(v)
    plane = np.linalg.qr(np.stack([found.vectors[:, 0].real, found.vectors[:, 0].imag], 1))[0]
    for w in (v, A @ v):
        assert np.linalg.norm(w - plane @ (plane.T @ w)) < 1e-6

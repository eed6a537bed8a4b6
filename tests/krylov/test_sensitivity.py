"""Stated errors hold where eigenvalues are ill-conditioned."""

import warnings

import numpy as np
import pytest
import scipy.linalg
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import ConvergenceWarning, InputError
from jacobian_lab.krylov.eigen import eigenpairs
from jacobian_lab.krylov.krylov_schur import KrylovSchur
from jacobian_lab.krylov.restarting import RestartedArnoldi
from jacobian_lab.krylov.schur import RANKS, schur_values
from jacobian_lab.krylov.sensitivity import sensitivity

from matrices import ranked_right


@pytest.mark.parametrize(
    ("A", "true"),
    [
        (
            -np.eye(100)
            + np.triu(10.0 ** (4 * (np.arange(100)[None] - np.arange(100)[:, None]) / 100), 1),
            -np.ones(100),
        ),
        (np.eye(100, k=1), np.zeros(100)),
        (np.eye(100, k=-1), np.zeros(100)),
    ],
    ids=["Demmel", "shift", "shift back"],
)
@pytest.mark.parametrize("which", RANKS)
def test_errors_of_matrices_far_from_normal_are_as_large_as_they_are(A, true, which):
    for k in (1, 3, 6):
        for options in ({}, {"subspace": 30}, {"left": True}, {"rtol": 1e-4}, {"max_products": 60}):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                result = eigenpairs(A, k, which, **options)
            assert not result.converged or ranked_right(result, which, true)


@pytest.mark.parametrize("size", [1e-10, 1e-6])
@pytest.mark.parametrize("coupled", [False, True])
def test_no_perturbation_moves_an_eigenvalue_further(size, coupled):
    rng = np.random.default_rng(0)
    A = np.diag(np.r_[3.0, 2.0, 1.5, np.linspace(1, 0, 37)])
    if coupled:
        A = A + np.triu(rng.standard_normal(A.shape), 1) / 4
    search = KrylovSchur(RestartedArnoldi(A), 3, "LM", False, 1e-12, 40, 200, False)
    assert search.run()
    values = schur_values(search.T)
    conditions, errors = sensitivity(search, values, np.full(len(values), size), True)
    w, L, R = scipy.linalg.eig(A, left=True)
    true = 1 / abs((L.conj() * R).sum(0))
    for value, condition in zip(values, conditions, strict=True):
        assert condition >= 0.99 * true[abs(w - value).argmin()]
    for _ in range(20):
        E = rng.standard_normal(A.shape)
        moved = np.linalg.eigvals(A + size * E / np.linalg.norm(E, 2))
        assert all(
            abs(moved - value).min() <= error for value, error in zip(values, errors, strict=True)
        )
    assert (errors < 1e4 * size).all()


def test_the_coupling_of_a_small_space_may_exceed_what_the_space_shows_of_A():
    for seed in range(20):
        u, v = np.random.default_rng(seed).standard_normal((2, 38))
        result = eigenpairs(np.outer(u, v), 1, subspace=30)
        condition = np.linalg.norm(u) * np.linalg.norm(v) / abs(u @ v)
        assert result.converged
        assert result.conditions[0] == pytest.approx(condition, rel=0.05)


def test_a_transpose_that_is_no_number_is_named():
    A = np.diag(np.r_[3.0, 2.0, np.linspace(1, 0, 38)]) + 0.1 * np.eye(40, k=1)
    broken = LinearOperator(A.shape, lambda v: A @ v, rmatvec=lambda v: v * np.nan, dtype=A.dtype)
    with pytest.raises(InputError, match=r"of the transpose has 40 values .* audit the operator"):
        eigenpairs(broken, 2, subspace=20)


def test_without_a_transpose_the_coupling_is_not_underestimated():
    A = np.diag(np.r_[3.0, 2.0, np.linspace(1, 0, 38)]) + np.eye(40, k=1)
    blind = LinearOperator(A.shape, lambda v: A @ v, dtype=A.dtype)
    found = []
    for operator in (A, blind):
        search = KrylovSchur(RestartedArnoldi(operator), 2, "LM", False, 1e-12, 40, 30, False)
        complete = search.run()
        values = schur_values(search.T)
        found.append(sensitivity(search, values, np.full(len(values), 1e-9), complete)[1])
    assert (found[1] >= found[0]).all()

"""The restarted iteration: it ends, it keeps every copy, and it notices a broken promise."""

import warnings

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import ConvergenceWarning, InputError
from jacobian_lab.krylov.eigen import eigenpairs
from jacobian_lab.krylov.krylov_schur import KrylovSchur
from jacobian_lab.krylov.restarting import RestartedArnoldi
from jacobian_lab.krylov.schur import RANKS, schur_values

import matrices
from matrices import ADVERSARIAL, blur


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_an_exact_eigenvector_as_start_blinds_nobody(name):
    A = ADVERSARIAL[name]
    values, vectors = np.linalg.eig(A)
    start = vectors[:, np.abs(values).argmin()].real  # of the least wanted eigenvalue
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = eigenpairs(A, 1, start=start if start.any() else np.ones(len(A)))
    assert result.converged == (not caught)
    if result.converged:
        assert (
            abs(result.values).max()
            >= (1 - 1e-8) * abs(values).max() - result.errors.max() - 1e-300
        )


def test_the_smallest_subspace_has_room_for_left_vectors_of_a_pair_at_the_cut(monkeypatch):
    """Seven values of A^T in the room of six kept all ten vectors, and never took a step again."""
    shrink = KrylovSchur._shrink

    def progress(self, *arguments):
        shrink(self, *arguments)
        assert self.factorisation.steps < self.room

    monkeypatch.setattr(KrylovSchur, "_shrink", progress)
    for seed in range(12):
        A = np.random.default_rng(seed).standard_normal((36, 36))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = eigenpairs(A, 6, "SR", block=3, left=True, subspace=10)
        assert result.left is None or len(result.values) == result.left.shape[1]


@pytest.mark.parametrize("which", RANKS)
def test_the_smallest_subspace_ends(which):
    for name in ("random", "skew", "orthogonal"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = eigenpairs(ADVERSARIAL[name], 1, which, subspace=5, max_products=300)
        assert result.products <= 300
    with pytest.raises(InputError, match="subspace must be at least k \\+ 4 = 5: got 4"):
        eigenpairs(ADVERSARIAL["random"], 1, subspace=4)


@pytest.fixture(scope="module")
def decaying():
    return matrices.decaying()


@pytest.mark.parametrize("symmetric", [True, False])
def test_no_copy_of_a_repeated_eigenvalue_is_dropped(symmetric):
    A = np.diag(np.r_[5.0, 3, 3, 3, 2, 2, np.linspace(1, 0, 300)])
    for seed in range(20):
        for k in (2, 3, 4, 5, 6) if seed < 2 else (5,):
            result = eigenpairs(A, k, symmetric=symmetric, seed=seed)
            assert result.converged
            np.testing.assert_allclose(result.values, [5, 3, 3, 3, 2, 2][:k], atol=1e-8)


@pytest.mark.parametrize("k", [2, 4, 5, 6, 9])
def test_a_blur_keeps_its_four_copies(k):
    A = blur(32)
    true = np.linalg.eigvalsh(A)[::-1]
    for seed in range(3):
        result = eigenpairs(A, k, symmetric=True, seed=seed)
        assert result.converged
        assert (abs(result.values - true[:k]) <= result.errors + 1e-14).all()


@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("skew", [1e-6, 0.05, 1.0])
def test_a_promise_of_symmetry_that_does_not_hold_is_refused_early(decaying, transpose, skew):
    S, K = decaying + decaying.T, decaying - decaying.T
    A, spent = S + skew * K, []

    def matvec(v):
        spent.append(1)
        return A @ v

    operator = LinearOperator(
        A.shape, matvec=matvec, rmatvec=(lambda u: A.T @ u) if transpose else None, dtype=A.dtype
    )
    with pytest.raises(
        InputError,
        match=r"not symmetric: \|A - A\^T\| / \|A \+ A\^T\| is .*take its symmetric_part",
    ):
        eigenpairs(operator, 6, symmetric=True)
    assert len(spent) <= 50


def made(A, k=4, which="LM", room=20, limit=400, whole=False, symmetric=False):
    return KrylovSchur(RestartedArnoldi(A), k, which, symmetric, 1e-10, room, limit, whole)


@pytest.mark.parametrize("which", ["LM", "LR"])
def test_the_wanted_part_is_an_invariant_space(decaying, which):
    search = made(decaying, which=which, room=60)
    assert search.run()
    residual = decaying @ search.basis - search.basis @ search.T
    assert np.linalg.norm(residual) <= search.tolerance
    assert np.linalg.norm(search.basis.T @ search.basis - np.eye(len(search.T))) < 1e-12
    ranks = np.sort(RANKS[which](np.linalg.eigvals(decaying)))[::-1]
    found = np.sort(RANKS[which](schur_values(search.T)))[::-1]
    np.testing.assert_allclose(found, ranks[: len(found)], rtol=1e-6, atol=1e-8)
    assert 0 < search.found < search.factorisation.products  # the search outside came after
    assert search.size <= np.linalg.norm(decaying, 2) * (1 + 1e-12)


def test_the_limit_ends_it_and_the_whole_space_needs_permission(decaying):
    search = made(decaying, limit=12)
    assert not search.run()
    assert search.factorisation.products == 12
    assert search.found == 0
    assert not made(decaying, limit=1000).complete()
    assert not made(decaying, limit=100, whole=True).complete()
    search = made(decaying, limit=1000, whole=True)
    assert search.complete()
    assert search.factorisation.exhausted
    residual = decaying @ search.basis - search.basis @ search.T
    assert np.linalg.norm(residual) < 1e-11

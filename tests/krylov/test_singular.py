"""Singular triplets against LAPACK, with their residuals, errors and costs."""

import warnings

import numpy as np
import pytest

from jacobian_lab import ConvergenceWarning, InputError
from jacobian_lab.krylov.operators import Operator
from jacobian_lab.krylov.singular import singular_values

import matrices
from matrices import ADVERSARIAL


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_singular_values_of_adversarial_matrices(name):
    A = ADVERSARIAL[name]
    true = np.linalg.svd(A, compute_uv=False)
    for k in sorted({min(k, len(A)) for k in (1, 6, max(1, len(A) - 2))}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = singular_values(A, k)
        assert result.converged == (not caught)
        u, v, scale = result.left, result.right, true[0]
        residuals = np.maximum(
            np.linalg.norm(A @ v - u * result.values, axis=0),
            np.linalg.norm(A.T @ u - v * result.values, axis=0),
        )
        np.testing.assert_allclose(result.residuals, residuals, atol=1e-12 * scale)
        for basis in (u, v):
            assert np.linalg.norm(basis.T @ basis - np.eye(k)) < 1e-12
        assert (
            np.abs(result.values - true[:k]) <= result.errors + 1e-13 * scale
        ).all() or not result.converged


@pytest.mark.parametrize("shape", [(60, 20), (20, 60)])
def test_singular_values_of_a_rectangle_cost_what_they_say(shape):
    A, columns = np.random.default_rng(0).standard_normal(shape), []

    def apply(M):
        def product(V):
            columns.append(V.shape[1])
            return M @ V

        return product

    result = singular_values(Operator(shape, A.dtype, apply(A), apply(A.T)), 4)
    np.testing.assert_allclose(result.values, np.linalg.svd(A, compute_uv=False)[:4], rtol=1e-13)
    assert result.products == sum(columns)
    with pytest.warns(ConvergenceWarning, match="not converged"):
        assert not singular_values(A, 4, max_products=30, subspace=8).converged
    with pytest.raises(InputError, match="max_products must be at least 16: got 10"):
        singular_values(A, 4, max_products=10)
    with pytest.raises(InputError, match="k must lie from 1"):
        singular_values(A, 100)


@pytest.fixture(scope="module")
def decaying():
    return matrices.decaying()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_singular_values_are_free_of_scale(decaying, scale):
    one, scaled = (singular_values(c * decaying, 3) for c in (1.0, scale))
    assert scaled.converged
    np.testing.assert_allclose(scaled.values / scale, one.values, rtol=1e-10)


def test_provenance_and_known_rounding_reach_the_singular_values(decaying):
    A = matrices.by_differences(decaying)
    for B in (A, A.T, 2 * A, A + A):
        found = singular_values(B, 3)
        assert (found.path, found.product_error) == ("central difference", 1e-3)
        assert (found.errors >= 1e-5 * found.values[0]).all()


@pytest.mark.parametrize("gap", [3e-10, 1e-11, 0.0])
def test_singular_values_that_agree_to_the_tolerance_are_within_the_stated_errors(gap):
    d = np.r_[1 + gap * np.array([1, 0, 0.5, 0.7]), 0.4 * np.random.default_rng(0).random(596)]
    A = Operator((600, 600), np.float64, lambda V: d[:, None] * V, lambda U: d[:, None] * U)
    for seed in range(8):
        for k in (1, 2, 3):
            found = singular_values(A, k, seed=seed, max_products=500)
            assert found.converged
            assert (abs(found.values - np.sort(d)[::-1][:k]) <= found.errors).all()


def test_no_copy_of_a_repeated_singular_value_is_dropped():
    A = np.diag(np.r_[5.0, 3, 3, 3, 2, 2, np.linspace(1, 0, 300)])
    for seed in range(20):
        values = singular_values(A, 5, seed=seed)
        assert values.converged
        np.testing.assert_allclose(values.values, [5, 3, 3, 3, 2], atol=1e-8)


def test_a_budget_of_singular_values_is_a_hard_cap(decaying):
    calls = []

    def counted(M):
        def product(V):
            calls.append(V.shape[1])
            return M @ V

        return product

    A = Operator(decaying.shape, decaying.dtype, counted(decaying), counted(decaying.T))
    for most in (26, 60, 150, 310, 400):
        calls.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            assert singular_values(A, 6, max_products=most).products == sum(calls) <= most


def test_rounding_of_restarts_is_no_asymmetry():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        U, V = (np.linalg.qr(rng.standard_normal((40, 40)))[0] for _ in range(2))
        values = np.r_[1, 1e-4 * (1 + 1e-6 * rng.random(39))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = singular_values(U * values @ V.T, 7, subspace=15, block=4, rtol=1e-12)
        assert found.values[0] == pytest.approx(1)

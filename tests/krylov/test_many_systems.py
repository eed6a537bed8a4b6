"""Many systems at once: each as if it were alone."""

import numpy as np
import pytest

from jacobian_lab import (
    ConvergenceWarning,
    InputError,
)
from jacobian_lab.krylov.least_squares import gmres
from jacobian_lab.krylov.many_systems import arnoldi_batch, gmres_batch, ritz_values_batch

from conftest import relative


@pytest.fixture
def systems():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((4, 12, 12))
    A[3] = 0
    A[2] = np.diag([2.0, 1.0] * 6)  # an invariant space of dimension 2
    return A, rng.standard_normal((4, 12)), lambda V: np.einsum("bij,bj->bi", A, V)


def test_the_factorisation_holds_for_each_system(systems):
    A, b, apply = systems
    Q, H = arnoldi_batch(apply, b, 8)
    assert (
        np.abs(np.einsum("bij,bkj->bki", A, Q[:, :-1]) - np.einsum("bki,bkj->bji", Q, H)).max()
        < 1e-13
    )
    gram = np.einsum("bki,bli->bkl", Q, Q)
    assert np.abs(gram[:2] - np.eye(9)).max() < 1e-14
    assert np.abs(gram[2] - np.diag([1.0, 1.0] + [0.0] * 7)).max() < 1e-13


def test_gmres_is_that_of_one_system(systems):
    A, b, apply = systems
    for steps in (3, 12):
        x = gmres_batch(apply, b, steps)
        for i in (0, 1):
            assert relative(x[i], gmres(A[i], b[i], steps).x) < 1e-8
    assert relative(A[2] @ x[2], b[2]) < 1e-12
    assert not x[3].any()


def test_ritz_values_of_all_steps_are_the_eigenvalues(systems):
    A, b, apply = systems
    found = ritz_values_batch(apply, b, 12)
    for i in (0, 1):
        np.testing.assert_allclose(
            np.sort(abs(found[i])), np.sort(abs(np.linalg.eigvals(A[i]))), rtol=1e-9
        )
    assert abs(found[2]).max() == pytest.approx(2)
    with pytest.raises(InputError, match="steps must lie from 1 to n = 12: got 13"):
        arnoldi_batch(apply, b, 13)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["right-hand side", "operator", "one product"])
def test_a_system_that_is_not_finite_harms_no_other_and_is_told(systems, value, where):
    A, b, apply = systems
    A, b, calls = A.copy(), b.copy(), []
    expected, ritz = gmres_batch(apply, b, 6), ritz_values_batch(apply, b, 6)
    if where == "right-hand side":
        b[1, 4] = value
    if where == "operator":
        A[1, 3, 5] = value

    def product(V):
        calls.append(0)
        with np.errstate(invalid="ignore"):
            W = np.einsum("bij,bj->bi", A, V)
        if where == "one product" and len(calls) % 6 == 4:
            W[1, 2] = value
        return W

    with pytest.warns(
        ConvergenceWarning, match=r"systems \[1\] of 4 have values that are not finite"
    ):
        found = gmres_batch(product, b, 6)
    assert np.isnan(found[1]).all()
    with pytest.warns(ConvergenceWarning, match=r"systems \[1\] of 4"):
        values = ritz_values_batch(product, b, 6)
    assert np.isnan(values[1]).all()
    for i in (0, 2, 3):
        np.testing.assert_allclose(found[i], expected[i], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(
            np.sort(abs(values[i])), np.sort(abs(ritz[i])), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_batches_are_free_of_scale(systems, scale):
    _, b, apply = systems
    x = gmres_batch(apply, b, 6)
    np.testing.assert_allclose(gmres_batch(lambda V: scale * apply(V), scale * b, 6), x, rtol=1e-8)
    np.testing.assert_allclose(gmres_batch(apply, scale * b, 6) / scale, x, rtol=1e-8)
    ritz, one = (
        ritz_values_batch(lambda V: scale * apply(V), scale * b, 6),
        ritz_values_batch(apply, b, 6),
    )
    np.testing.assert_allclose(np.sort(abs(ritz)) / scale, np.sort(abs(one)), rtol=1e-7, atol=1e-12)
    mixed = np.array([1.0, scale, 1.0, scale])[:, None]  # each system for itself
    np.testing.assert_allclose(gmres_batch(lambda V: mixed * apply(V), mixed * b, 6), x, rtol=1e-8)

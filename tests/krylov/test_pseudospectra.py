import numpy as np
import pytest
import scipy.linalg

from jacobian_lab import InputError, arnoldi
from jacobian_lab.krylov.pseudospectra import bendixson_box, numerical_range, pseudospectrum

RNG = np.random.default_rng(0)
GRCAR = scipy.linalg.toeplitz([1, -1, *[0] * 38], [1, 1, 1, 1, *[0] * 36]).astype(float)
MATRICES = {
    "random": RNG.standard_normal((40, 40)),
    "Grcar": GRCAR,
    "skew": np.triu(np.ones((30, 30)), 1) - np.tril(np.ones((30, 30)), -1),
    "symmetric": np.diag(np.arange(20.0)),
    "one": np.array([[2.0]]),
}
Z = (np.linspace(-6, 6, 9)[:, None] + 1j * np.linspace(-6, 6, 7)).astype(complex)


def support(boundary, theta):
    """How far the hull of the points reaches in the direction theta."""
    return (np.exp(-1j * theta) * boundary).real.max()


@pytest.mark.parametrize("name", MATRICES)
def test_the_sets_hold_what_they_must(name):
    A = MATRICES[name]
    values, boundary, box = np.linalg.eigvals(A), numerical_range(A, 32), bendixson_box(A)
    slack = 1e-12 * np.linalg.norm(A)
    quotients = [
        x.conj() @ A @ x / (x.conj() @ x) for x in RNG.standard_normal((50, len(A), 2)) @ [1, 1j]
    ]
    for k in range(32):  # at the angles that were taken the boundary is exact
        theta = 2 * np.pi * k / 32
        assert (
            support(boundary, theta)
            >= max(support(values, theta), support(np.array(quotients), theta)) - slack
        )
    assert box.left - slack <= values.real.min()
    assert values.real.max() <= box.right + slack
    assert np.abs(values.imag).max() <= box.height + slack
    # the box touches the numerical range
    assert box.right == pytest.approx(support(boundary, 0), abs=slack)
    assert box.height == pytest.approx(support(boundary, np.pi / 2), abs=slack)
    found = pseudospectrum(A, Z)
    assert found.shape == Z.shape
    assert (found <= np.abs(Z[..., None] - values).min(-1) + slack).all()  # equality if A is normal
    if np.allclose(A @ A.T, A.T @ A):
        np.testing.assert_allclose(found, np.abs(Z[..., None] - values).min(-1), atol=slack)


@pytest.mark.parametrize("name", ["random", "Grcar"])
def test_a_factorisation_gives_inner_sets_that_grow_to_the_true_ones(name):
    A = MATRICES[name]
    true, box, boundary = pseudospectrum(A, Z), bendixson_box(A), numerical_range(A, 16)
    f, before, reach = arnoldi(A, 5), np.full(Z.shape, np.inf), 0.0
    while not f.exhausted:
        found, inner = pseudospectrum(f, Z), bendixson_box(f)
        assert (found >= true - 1e-12).all()
        assert (found <= before + 1e-12).all()
        assert box.left - 1e-12 <= inner.left <= inner.right <= box.right + 1e-12
        assert reach - 1e-12 <= inner.height <= box.height + 1e-12
        before, reach = found, inner.height
        f.extend(5)
    np.testing.assert_allclose(pseudospectrum(f, Z), true, atol=1e-11)
    np.testing.assert_allclose(
        [support(numerical_range(f, 16), 1.0)], [support(boundary, 1.0)], atol=1e-11
    )
    assert f.products == 40  # nothing was spent on the sets


def test_large_grids_are_taken_in_pieces(monkeypatch):
    whole = pseudospectrum(GRCAR, Z)
    monkeypatch.setattr("jacobian_lab.krylov.pseudospectra.BATCH", 5000)
    np.testing.assert_array_equal(pseudospectrum(GRCAR, Z), whole)
    assert pseudospectrum(GRCAR, []).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: numerical_range(np.eye(3), 2), "points must lie from 3 to 1000000: got 2"),
        (lambda: numerical_range(np.ones((3, 2))), r"square matrix.*got shape \(3, 2\)"),
        (lambda: bendixson_box(arnoldi(np.eye(3), 0)), "at least one step"),
        (lambda: pseudospectrum(np.full((2, 2), np.nan), 1j), "not finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_the_sets_are_free_of_scale(scale):
    for A in (MATRICES["random"], GRCAR):
        for one, scaled in ((A, scale * A), (arnoldi(A, 12), arnoldi(scale * A, 12))):
            np.testing.assert_allclose(
                numerical_range(scaled, 16) / scale, numerical_range(one, 16), atol=1e-8
            )
            np.testing.assert_allclose(
                pseudospectrum(scaled, scale * Z) / scale, pseudospectrum(one, Z), atol=1e-10
            )
            np.testing.assert_allclose(
                np.array(bendixson_box(scaled)) / scale, bendixson_box(one), atol=1e-10
            )


def test_the_box_of_the_largest_numbers_is_finite():
    box = bendixson_box(np.full((2, 2), 1.7e308 / 2))
    assert np.isfinite([box.left, box.right, box.height]).all()

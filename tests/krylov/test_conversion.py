"""Operators that others wrote: right for vectors and matrices, or refused by name; and where
products come from.
"""

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from jacobian_lab import (
    InputError,
    arnoldi,
    asymmetry,
    diagonal,
    eigenpairs,
    frobenius_norm,
    singular_values,
    trace,
)
from jacobian_lab.krylov.conversion import provenance, real_operator, square
from jacobian_lab.krylov.counting import Counted
from jacobian_lab.krylov.least_squares import as_matrix, gmres, lsmr, lstsq
from jacobian_lab.krylov.operators import Operator

N = 64


RNG = np.random.default_rng(0)


M = RNG.standard_normal((N, N)) / 8


def gaussian(x):
    return scipy.ndimage.gaussian_filter(x, 1.3, mode="wrap")


def cosine(x):
    return scipy.fft.dct(x, norm="ortho")


def inverse_cosine(x):
    return scipy.fft.idct(x, norm="ortho")


def image(x):
    return scipy.ndimage.uniform_filter(x.reshape(8, 8), 3, mode="wrap").reshape(-1)


class Subclass(LinearOperator):
    """Only products with vectors of shape (n,)."""

    def __init__(self):
        super().__init__(np.dtype(np.float64), (N, N))

    def _matvec(self, x):
        return np.cumsum(x)

    def _rmatvec(self, x):
        return np.cumsum(x[::-1])[::-1]


FOREIGN = {
    "gaussian filter": (LinearOperator((N, N), gaussian, gaussian, dtype=np.float64), gaussian),
    "dct": (LinearOperator((N, N), cosine, inverse_cosine, dtype=np.float64), cosine),
    "image": (LinearOperator((N, N), image, image, dtype=np.float64), image),
    "subclass": (Subclass(), np.cumsum),
    "float32": (
        LinearOperator(
            (N, N),
            lambda x: cosine(x.astype(np.float32)),
            lambda x: inverse_cosine(x.astype(np.float32)),
            dtype=np.float32,
        ),
        cosine,
    ),
}


for base in ("gaussian filter", "dct", "subclass"):
    A, one = FOREIGN[base]
    FOREIGN |= {
        f"2 {base}": (2 * A, lambda x, one=one: 2 * one(x)),
        f"{base} squared": (A @ A, lambda x, one=one: one(one(x))),
        f"{base} + 1": (A + aslinearoperator(np.eye(N)), lambda x, one=one: one(x) + x),
        f"{base} cubed": (A**3, lambda x, one=one: one(one(one(x)))),
        f"{base} twice transposed": (A.T.T, one),
        f"{base} adjoint of adjoint": (A.H.H, one),
    }


def dense(one):
    return np.stack([one(e) for e in np.eye(N)], axis=1)


@pytest.mark.parametrize("name", FOREIGN)
def test_products_of_a_matvec_for_vectors_are_right(name):
    A, one = FOREIGN[name]
    truth = dense(one)
    close = 1e-5 if A.dtype == np.float32 else 1e-12
    for B, true in ((A, truth), (A.T, truth.T), (A.H, truth.T)):
        counted = Counted(B)
        np.testing.assert_allclose(counted @ np.eye(N), true, atol=close)
        np.testing.assert_allclose(counted.T @ M, true.T @ M, atol=close)
        np.testing.assert_allclose(square(B) @ M[:, 0], true @ M[:, 0], atol=close)
        assert counted.products == 2 * N
        np.testing.assert_allclose(as_matrix(B), true, atol=close)
    assert trace(A, sketch=N, probes=2).value == pytest.approx(
        np.trace(truth), rel=close, abs=close
    )
    assert frobenius_norm(A, sketch=N, probes=2).value == pytest.approx(
        np.linalg.norm(truth), rel=1e-5
    )
    np.testing.assert_allclose(diagonal(A, sketch=N, probes=2).value, np.diag(truth), atol=close)
    assert asymmetry(A, sketch=N, probes=2).value == pytest.approx(
        np.linalg.norm(truth - truth.T) / np.linalg.norm(truth + truth.T), abs=1e-5
    )
    np.testing.assert_allclose(
        singular_values(A, 3).values, np.linalg.svd(truth, compute_uv=False)[:3], rtol=1e-5
    )
    f = arnoldi(A, 10)
    assert np.linalg.norm(
        truth @ f.basis[:, :10] - f.basis @ f.hessenberg
    ) < 10 * close * np.linalg.norm(truth)
    b = truth @ RNG.standard_normal(N)
    for solve in (lstsq, lambda *args: lsmr(*args, rtol=1e-5, steps=2000)):
        assert np.linalg.norm(truth @ solve(A, b).x - b) < 1e-3 * np.linalg.norm(b)


def test_one_call_is_made_where_the_operator_has_its_own_matmat():
    widths = []

    def matmat(V):
        widths.append(V.shape)
        return M @ V

    A = LinearOperator(
        (N, N), lambda x: M @ x, matmat=matmat, rmatvec=lambda x: M.T @ x, dtype=M.dtype
    )
    for B in (A, 2 * A, A + A, A.T.T):
        widths.clear()
        Counted(B) @ np.eye(N)
        assert set(widths) == {(N, N)}


REFUSED = {
    "no transpose": (
        LinearOperator((N, N), lambda x: M @ x, dtype=M.dtype),
        "64 x 64 operator has no rmatvec",
        True,
    ),
    "complex": (
        LinearOperator((N, N), lambda x: 1j * x, lambda x: -1j * x, dtype=np.float64),
        "is complex128, but its dtype is",
        False,
    ),
    "too short": (
        LinearOperator((N, N), lambda x: x[1:], lambda x: x[1:], dtype=np.float64),
        r"shape \(63,\).*expected \(64,\)",
        False,
    ),
    "an image": (
        LinearOperator(
            (N, N), lambda x: x.reshape(8, 8), lambda x: x.reshape(8, 8), dtype=np.float64
        ),
        r"returns shape \(8, 8\).*expected \(64,\)",
        False,
    ),
    "matmat": (
        LinearOperator(
            (N, N),
            lambda x: x,
            lambda x: x,
            matmat=lambda X: X.T[:3],
            rmatmat=lambda X: X.T[:3],
            dtype=np.float64,
        ),
        r"has shape \(3, \d+\): expected \(64, \d+\)|has shape \(\d+, 64\)",
        False,
    ),
    "raises": (
        LinearOperator(
            (N, N), lambda x: x @ np.ones((3, 3)), lambda x: x @ np.ones((3, 3)), dtype=np.float64
        ),
        "matvec of the 64 x 64 operator failed on vectors of shape",
        False,
    ),
    "own class": (
        Operator((N, N), np.float64, lambda V: V[1:], lambda V: V[1:]),
        r"has shape \(63, \d+\): expected \(64, \d+\)",
        False,
    ),
    "own class, complex": (
        Operator((N, N), np.float64, lambda V: 1j * V, lambda V: 1j * V),
        "expected real numbers",
        False,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_by_name(name):
    A, message, transposed_only = REFUSED[name]
    calls = [lambda: singular_values(A, 2), lambda: asymmetry(A), lambda: lsmr(A, np.ones(N))]
    if not transposed_only:
        calls += [
            lambda: trace(A),
            lambda: eigenpairs(A, 2),
            lambda: gmres(A, np.ones(N)),
            lambda: lstsq(A, np.ones(N)),
        ]
    for call in calls:
        with pytest.raises(InputError, match=message):
            call()


def test_without_a_transpose_eigenpairs_are_right_and_left_ones_refused():
    A = LinearOperator((N, N), lambda x: M @ x, dtype=M.dtype)
    result = eigenpairs(A, 3)
    assert result.converged
    np.testing.assert_allclose(
        abs(result.values),
        np.sort(abs(np.linalg.eigvals(M)))[::-1][: len(result.values)],
        rtol=1e-8,
    )
    with pytest.raises(InputError, match="no rmatvec"):
        eigenpairs(A, 1, subspace=40, left=True)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, np.bool_])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda A: A,
        aslinearoperator,
        scipy.sparse.csr_array,
        lambda A: LinearOperator(A.shape, lambda x: A @ x, lambda x: A.T @ x, dtype=A.dtype),
    ],
)
def test_integers_become_float64(dtype, wrap):
    A = RNG.integers(0, 2 if dtype == np.bool_ else 100, (N, N)).astype(dtype)
    B = wrap(A)
    assert real_operator(B).dtype == np.float64
    np.testing.assert_allclose(Counted(B) @ M, A.astype(float) @ M, atol=1e-10)
    assert eigenpairs(B, 1).values[0].real == pytest.approx(
        abs(np.linalg.eigvals(A.astype(float))).max()
    )
    assert Operator(A.shape, dtype, lambda V: A @ V, lambda U: A.T @ U).dtype == np.float64


def test_what_is_no_real_operator_is_refused():
    for bad, message in (
        (np.array([["a"]]), "operator of real numbers"),
        ([1.0], "expected a LinearOperator"),
        (1j * np.eye(3), "expected a real operator: got complex128"),
    ):
        with pytest.raises(InputError, match=message):
            real_operator(bad)


def test_provenance_is_passed_on_and_the_worst_of_parts():
    def made(path, error, rounding):
        return Operator(
            (N, N),
            np.float64,
            lambda V: M @ V,
            lambda U: M.T @ U,
            path=path,
            product_error=error,
            rounding=rounding,
        )

    A, B = made("linearised", 1e-7, 0.0), made("central difference", 1e-3, 1e-5)
    foreign = LinearOperator((N, N), lambda x: M @ x, lambda x: M.T @ x, dtype=M.dtype)
    assert (
        provenance(M)
        == provenance(aslinearoperator(M))
        == provenance(scipy.sparse.eye_array(3))
        == ("matrix", 0.0, 0.0)
    )
    for same in (A, A.T, A.H, A.T.T, 2 * A, -A, A**2, A + A, Counted(A), real_operator(2 * A)):
        assert provenance(same) == ("linearised", 1e-7, 0.0)
    for mixed in (A + B, A @ B, B - 2 * A, (A @ B).T, Counted(A + B)):
        assert provenance(mixed) == ("central difference", 1e-3, 1e-5)
    for unknown, known_rounding in (
        (foreign, 0.0),
        (foreign + B, 1e-5),
        (3 * foreign, 0.0),
        (Counted(foreign), 0.0),
        (real_operator(foreign), 0.0),
    ):
        path, error, rounding = provenance(unknown)
        assert path == "as given"
        assert np.isnan(error)
        assert rounding == known_rounding
    assert (A.T.path, A.T.product_error, B.H.rounding) == ("linearised", 1e-7, 1e-5)


def test_digits_beyond_float64_are_none_that_a_solver_keeps():
    A = np.outer(np.arange(1, 31), np.arange(2, 32)).astype(np.longdouble) / 3
    estimate = frobenius_norm(A, sketch=30)
    assert abs(estimate.value - np.linalg.norm(A.astype(float))) <= estimate.standard_error
    assert lstsq(A, np.ones(30)).rank == 1


COMBINED = {
    "multiple": lambda A, _: 2 * A,
    "negative": lambda A, _: -A,
    "symmetric part": lambda A, _: 0.5 * (A + A.T),
    "sum": lambda A, identity: A + identity,
}


@pytest.mark.parametrize("name", COMBINED)
def test_what_is_made_of_a_float32_operator_is_no_more_exact_than_it(name):
    single = M.astype(np.float32)
    own = Operator(
        M.shape,
        np.float32,
        lambda V: single @ V.astype(np.float32),
        lambda U: single.T @ U.astype(np.float32),
    )
    A = COMBINED[name](own, aslinearoperator(np.eye(N)))
    truth = COMBINED[name](single.astype(np.float64), np.eye(N))
    assert A.dtype == np.float64  # which is SciPy's
    for estimator, value in ((trace, np.trace(truth)), (frobenius_norm, np.linalg.norm(truth))):
        estimate = estimator(A, sketch=N)
        assert abs(estimate.value - value) <= estimate.standard_error <= 1e-3
    found = singular_values(A, 3)
    assert found.converged
    assert (abs(found.values - np.linalg.svd(truth)[1][:3]) <= found.errors).all()
    assert "rcond 7.63e-06" in lstsq(A, np.ones(N)).message

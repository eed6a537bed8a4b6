"""Operators that are given by their products with matrices."""

import numpy as np
import pytest

from jacobian_lab import InputError
from jacobian_lab.krylov.operators import Operator, Provenance

RNG = np.random.default_rng(0)
M = RNG.standard_normal((5, 7))


def counting():
    """An operator of M, and the widths of the matrices that it was multiplied with."""
    widths = []

    def apply(V):
        widths.append(V.shape[1])
        return M @ V

    return Operator(M.shape, M.dtype, apply, lambda U: M.T @ U, path="made", rounding=1e-5), widths


def test_a_matrix_is_one_call_and_complex_vectors_too():
    A, widths = counting()
    V = RNG.standard_normal((7, 3)) + 1j * RNG.standard_normal((7, 3))
    np.testing.assert_allclose(A @ V, M @ V, rtol=1e-14)
    np.testing.assert_allclose(A @ V.real, M @ V.real, rtol=1e-14)
    np.testing.assert_allclose(A @ V[:, 0].real, M @ V[:, 0].real, rtol=1e-14)
    assert widths == [6, 3, 1]
    np.testing.assert_allclose(A.H @ M, M.T @ M, rtol=1e-14)


def test_a_matrix_of_no_columns_has_a_product_of_none():
    A = Operator((5, 7), np.float32, lambda V: 1 / 0, lambda U: 1 / 0)
    for V in (np.ones((7, 0), np.float32), np.ones((7, 0)), np.ones((7, 0), complex)):
        assert (A @ V).shape == (5, 0)
        assert (A @ V).dtype == V.dtype
    assert (A.T @ np.ones((5, 0))).shape == (7, 0)


def test_a_float32_operator_keeps_a_float64_vector():
    A = Operator((7, 7), np.float32, lambda V: V.astype(np.float32), lambda U: U)
    assert (A @ np.ones(7)).dtype == np.float64
    assert (A @ np.ones(7, dtype=np.float32)).dtype == np.float32


def test_a_transpose_says_the_same_of_its_products():
    A, _ = counting()
    assert A.provenance == A.T.provenance == A.H.provenance == Provenance("made", 0.0, 1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A: A @ np.ones(5), r"takes shape \(7,\) or \(7, k\): got \(5,\)"),
        (lambda A: A.T @ np.ones(7), r"takes shape \(5,\) or \(5, k\): got \(7,\)"),
        (lambda A: A @ np.ones((7, 1, 1)), "Flatten an image"),
        (lambda A: A @ ["a"], "a vector or a matrix of numbers"),
        (lambda A: A @ 2, "write 2 \\* A for a multiple"),
        (lambda A: Operator((7, 7), complex, A, A), "expected a real operator: got complex128"),
    ],
)
def test_what_is_no_product_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(counting()[0])

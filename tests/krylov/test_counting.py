"""Every product is counted, and scales at which squares over- or underflow are taken out."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from jacobian_lab import eigenpairs
from jacobian_lab.krylov.counting import Counted
from jacobian_lab.krylov.operators import Operator

M = np.random.default_rng(0).standard_normal((64, 64)) / 8


def test_progress_waits_and_needs_no_terminal(capsys):
    eigenpairs(M, 3)
    assert capsys.readouterr().err == ""


def test_a_matrix_counts_its_columns_and_transposes_count_too():
    A = Counted(aslinearoperator(M))
    A @ np.ones(64)
    A @ np.ones((64, 3))
    A.T @ np.ones((64, 5))
    assert A.products == 9
    assert (Counted(M.astype(np.float32)) @ np.ones(64)).dtype == np.float64


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_the_unit_is_a_power_of_two_and_is_taken_from_the_first_product(scale):
    A = Counted(scale * M, scaled=True)
    assert not (A @ np.zeros(64)).any()
    assert A.unit == 1
    first = A @ np.ones(64)
    assert (A.unit == 1) == (scale == 1)
    assert np.frexp(A.unit)[0] == 0.5
    assert np.array_equal(first * A.unit, scale * M @ np.ones(64))
    assert Counted(scale * M).unit == 1


def test_the_rounding_is_that_of_the_sums_or_what_is_known_beyond_it():
    rough = Operator(M.shape, np.float32, lambda V: M @ V, lambda U: M.T @ U, rounding=1e-2)
    assert Counted(M).rounding == pytest.approx(8 * np.finfo(np.float64).eps)
    assert Counted(M.astype(np.float32)).rounding == pytest.approx(8 * np.finfo(np.float32).eps)
    assert Counted(rough).rounding == 1e-2
    assert Counted(M).rounding_with(10) == pytest.approx(10 * Counted(M).rounding)

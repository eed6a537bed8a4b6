import warnings

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from jacobian_lab import ConvergenceWarning, InputError
from jacobian_lab.krylov.least_squares import gmres, lsmr, lstsq
from jacobian_lab.krylov.operators import Operator
from jacobian_lab.krylov.regularisation import truncated_svd
from jacobian_lab.krylov.singular import singular_values

from conftest import relative
from matrices import SCALES


def matrix(seed, rows=20, columns=20, rank=None, condition=1e3):
    """A random matrix of known rank and condition number."""
    rng = np.random.default_rng(seed)
    rank = rank or min(rows, columns)
    u, v = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (rows, columns))
    return u * np.geomspace(1, 1 / condition, rank) @ v.T, rng.standard_normal(rows)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 25),
    columns=st.integers(1, 25),
    data=st.data(),
)
def test_lstsq_is_the_pseudoinverse(seed, rows, columns, data):
    rank = data.draw(st.integers(1, min(rows, columns)))
    A, b = matrix(seed, rows, columns, rank)
    solution = lstsq(A, b, rcond=1e-6)
    expected = np.linalg.pinv(A, rcond=1e-6) @ b
    assert np.linalg.norm(solution.x - expected) < 1e-8 * (1 + np.linalg.norm(expected))
    assert solution.rank == rank
    assert solution.residual == pytest.approx(
        np.linalg.norm(b - A @ expected) / np.linalg.norm(b), abs=1e-8
    )


def test_a_zero_matrix_has_the_zero_solution():
    solution = lstsq(np.zeros((3, 3)), np.ones(3))
    assert not solution.x.any()
    assert solution.rank == 0
    assert solution.residual == 1.0


def test_a_float32_operator_is_cut_at_its_own_rounding():
    A, b = matrix(1, rank=5)
    assert lstsq(A.astype(np.float32), b).rank == 5  # stored in float64 it would have rank 20


def test_lsmr_solves_and_counts():
    A, b = matrix(2, 20, 12, condition=10)
    solution = lsmr(aslinearoperator(A), b, rtol=1e-12)
    assert solution.converged
    assert relative(solution.x, np.linalg.lstsq(A, b)[0]) < 1e-9
    assert solution.products > 12


@pytest.mark.parametrize("damp", [0.01, 0.3])
def test_lsmr_with_damping_is_tikhonov(damp):
    A, b = matrix(3)
    expected = np.linalg.solve(A.T @ A + damp**2 * np.eye(20), A.T @ b)
    assert relative(lsmr(A, b, damp=damp, rtol=1e-12, steps=500).x, expected) < 1e-7


def test_lsmr_that_stops_early_warns_and_hands_back_what_it_has():
    A, b = matrix(4)
    with pytest.warns(ConvergenceWarning, match="not converged after 3 steps"):
        solution = lsmr(A, b, rtol=1e-12, steps=3)
    assert not solution.converged
    assert solution.residual == pytest.approx(
        np.linalg.norm(b - A @ solution.x) / np.linalg.norm(b)
    )
    assert 0 < solution.residual < 1


def test_gmres_solves_and_counts():
    A, b = matrix(5, condition=10)
    solution = gmres(aslinearoperator(A), b, steps=20, rtol=1e-10)
    assert solution.converged
    assert relative(solution.x, np.linalg.solve(A, b)) < 1e-8
    assert solution.products <= 22


def test_gmres_for_a_number_of_steps_is_the_minimiser_over_the_krylov_space():
    A, b = matrix(6, condition=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = gmres(A, b, steps=4)
    K = scipy.linalg.orth(np.stack([np.linalg.matrix_power(A, k) @ b for k in range(4)], axis=1))
    best = K @ np.linalg.lstsq(A @ K, b)[0]
    assert solution.residual == pytest.approx(
        np.linalg.norm(b - A @ best) / np.linalg.norm(b), rel=1e-8
    )
    assert "4 steps as asked" in solution.message


def test_gmres_names_the_tolerance_that_rounding_allows():
    A, b = matrix(6, 6, 6, condition=10)
    solution = gmres(A, b, steps=6, rtol=1e-300)
    assert solution.residual <= float(solution.message.rsplit(" ", 1)[1]) < 1e-14


def test_gmres_that_stops_early_warns():
    A, b = matrix(7)
    with pytest.warns(ConvergenceWarning, match="not converged to rtol 1.0e-12 after 2 steps"):
        assert not gmres(A, b, steps=2, rtol=1e-12).converged


def test_gmres_on_an_exhausted_krylov_space_says_so():
    with pytest.warns(ConvergenceWarning, match="exhausted after . of 5 steps"):
        solution = gmres(
            np.array([[0.0, 1.0, 0], [0, 0, 0], [0, 0, 1]]), np.array([1.0, 0, 0]), steps=5
        )
    assert not solution.converged
    assert solution.residual == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_gmres_in_the_whole_space_of_a_singular_operator_has_not_solved(n):
    A, b = np.eye(n, k=1), np.eye(n)[-1]
    with pytest.warns(ConvergenceWarning, match=f"exhausted after {n} of 10 steps: A is singular"):
        assert not gmres(A, b).converged
    assert gmres(A, b, steps=n).converged  # as many steps as were asked for
    for dtype in (np.float32, np.float64):
        assert gmres((A + np.eye(n)).astype(dtype), b).converged


def test_dense_solves_of_operators_go_in_chunks_and_count():
    A, b = matrix(10, 100, 150)
    widths = []

    def apply(V):
        widths.append(V.shape[1])
        return A @ V

    solution = lstsq(Operator(A.shape, np.float64, apply, lambda U: A.T @ U), b)
    assert widths == [64, 64, 22]
    assert solution.products == 150
    assert relative(solution.x, np.linalg.lstsq(A, b)[0]) < 1e-9
    assert lstsq(A, b).products == 0  # a matrix is dense already
    for path, products in (("as given", 100), ("central difference", 150)):
        operator = Operator(A.shape, np.float64, apply, lambda U: A.T @ U, path=path)
        operator.dense = lambda: A  # as that of `operator_of`, by the fewer of rows and columns
        assert lstsq(operator, b).products == products


def test_a_zero_right_hand_side_gives_zero():
    A, _ = matrix(8)
    for solver in (lstsq, lsmr, gmres):
        solution = solver(A, np.zeros(20))
        assert not solution.x.any()
        assert solution.residual == 0


def test_bad_input_is_named():
    A, b = matrix(9)
    for solver in (lstsq, lsmr, gmres):
        with pytest.raises(InputError, match=r"shape \(19,\): expected \(20,\)"):
            solver(A, b[:19])
        with pytest.raises(InputError, match="1 values of 20 that are not finite"):
            solver(A, np.where(np.arange(20) == 3, np.nan, b))
    with pytest.raises(InputError, match="rcond, relative to the largest singular value"):
        lstsq(A, b, rcond=2.0)
    with pytest.raises(InputError, match="square operator: got 20 x 3"):
        gmres(A[:, :3], b)
    for solver in (gmres, lsmr):
        with pytest.raises(InputError, match="steps must be at least 1: got 0"):
            solver(A, b, steps=0)


def test_gmres_whose_krylov_space_contains_the_solution_has_converged():
    A = matrix(0, 10, 10, condition=10)[0]
    A = A @ A.T
    vector = np.linalg.eigh(A)[1][:, -1]
    solution = gmres(A, vector, steps=5)
    assert solution.converged, solution.message
    assert relative(A @ solution.x, vector) < 1e-14


@pytest.mark.parametrize("call", [lstsq, lsmr, gmres])
def test_complex_operators_and_vectors_are_refused(call):
    with pytest.raises(InputError, match="expected a real operator: got complex128"):
        call(1j * np.eye(5), np.ones(5))
    with pytest.raises(InputError, match="right-hand side is complex"):
        call(np.eye(5), 1j * np.ones(5))


@pytest.mark.parametrize(("scale", "size"), SCALES)
def test_solutions_are_free_of_scale(scale, size):
    A, b = matrix(11, condition=10)
    for solve in (
        lstsq,
        gmres,
        lambda *args: gmres(*args, steps=20, rtol=1e-10),
        lambda *args: lsmr(*args, rtol=1e-12),
    ):
        one, scaled = solve(A, b), solve(scale * A, size * b)
        assert scaled.converged
        np.testing.assert_allclose(scaled.x / size * scale, one.x, rtol=1e-7)
        assert scaled.residual == pytest.approx(one.residual, abs=1e-9)
    one, scaled = (
        lsmr(A, b, damp=0.3, rtol=1e-12),
        lsmr(scale * A, size * b, damp=0.3 * scale, rtol=1e-12),
    )
    np.testing.assert_allclose(scaled.x / size * scale, one.x, rtol=1e-7)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_largest_and_smallest_operators_are_solved(scale):
    A, b = matrix(12, condition=10)
    for solve in (
        lstsq,
        lambda *args: gmres(*args, steps=20, rtol=1e-10),
        lambda *args: lsmr(*args, rtol=1e-12),
    ):
        np.testing.assert_allclose(solve(scale * A, scale * b).x, np.linalg.solve(A, b), rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_gmres_on_a_singular_operator_is_the_minimiser_over_its_krylov_space(rank):
    rng = np.random.default_rng(0)
    for _ in range(30):
        A, b = rng.standard_normal((12, rank)) @ rng.standard_normal((rank, 12)), rng.random(12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            solution = gmres(A, b, steps=6)
        columns = [b / np.linalg.norm(b)]
        for _ in range(rank):
            columns.append(A @ columns[-1] / np.linalg.norm(A @ columns[-1]))
        K = scipy.linalg.orth(np.stack(columns, axis=1))
        best = K @ np.linalg.lstsq(A @ K, b, rcond=1e-10)[0]
        assert solution.residual <= np.linalg.norm(b - A @ best) / np.linalg.norm(b) + 1e-8


def test_lsmr_says_which_tolerance_was_met():
    rng = np.random.default_rng(1)
    U, V = (np.linalg.qr(rng.standard_normal((10, 10)))[0] for _ in range(2))
    A = U * np.geomspace(1, 1e-6, 10) @ V.T
    for size in (1, 1e-1, 1e-6):
        b = U @ (rng.standard_normal(10) * np.geomspace(size, 1, 10))
        solution = lsmr(A, b, rtol=1e-6)
        assert solution.converged
        if solution.message.endswith("residual below rtol 1.0e-06") and (
            "least-squares" not in solution.message
        ):
            assert solution.residual <= 1e-6
        elif solution.message.endswith("of |b| + |A| |x|"):
            assert solution.residual <= 4e-6 * (1 + np.linalg.norm(solution.x) / np.linalg.norm(b))
        else:
            r = b - A @ solution.x
            assert np.linalg.norm(A.T @ r) <= 1e-5 * np.linalg.norm(r)


@pytest.mark.parametrize("solve", [lsmr, lambda A, b, rtol: gmres(A, b, 12, rtol)])
def test_rounded_products_do_not_converge_beyond_their_rounding(solve):
    Q = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 12)))[0].astype(np.float32)
    A = Operator(
        Q.shape,
        np.float32,
        lambda V: Q @ V.astype(np.float32),
        lambda U: Q.T @ U.astype(np.float32),
    )
    b = np.random.default_rng(3).standard_normal(12)
    assert solve(A, b, rtol=1e-5).converged
    with pytest.warns(ConvergenceWarning, match="rounding of the products|not converged to rtol"):
        assert not solve(A, b, rtol=1e-12).converged
    for size in (1e-60, 1e-39, 1e38, 1e60):  # beyond float32
        scaled = solve(A, size * b, rtol=1e-5)
        assert scaled.converged
        np.testing.assert_allclose(scaled.x / size, solve(A, b, rtol=1e-5).x, rtol=1e-5)


def test_a_product_that_is_no_number_is_named():
    A = Operator((4, 4), np.float64, lambda V: V * np.nan, lambda U: U * np.nan)
    for solve in (gmres, lsmr, lstsq, truncated_svd, lambda A, _: singular_values(A, 1)):
        with pytest.raises(InputError, match=r"not finite.*audit the operator"):
            solve(A, np.ones(4))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jacobian_lab import InputError
from jacobian_lab.krylov.factorisation import Arnoldi, arnoldi
from jacobian_lab.krylov.operators import Operator


def matrix(n=40, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n))


def holds(A, f):
    Q, H = f.basis, f.hessenberg
    assert np.linalg.norm(A @ Q[:, : f.steps] - Q @ H) < 1e-13 * max(np.linalg.norm(A), 1)
    assert np.linalg.norm(Q.T @ Q - np.eye(Q.shape[1])) < 1e-13
    assert np.abs(np.tril(H, -2 * f.block)).max(initial=0) == 0


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 25),
    steps=st.integers(0, 30),
    rank=st.integers(0, 25),
    seed=st.integers(0, 1000),
    block=st.integers(1, 6),
)
def test_the_invariant_holds_for_any_rank_block_and_number_of_steps(n, steps, rank, seed, block):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n))
    f = arnoldi(A, steps // 3, seed=seed, block=min(block, n)).extend(steps - steps // 3)
    assert f.steps == min(steps, n)
    assert f.products == f.steps
    assert f.basis.shape == (n, min(f.steps + f.block, n))
    holds(A, f)


def passes(A, widths):
    def apply(V):
        widths.append(V.shape[1])
        return A @ V

    return Operator(A.shape, A.dtype, apply, lambda U: A.T @ U)


@pytest.mark.parametrize("block", [2, 5, 16])
def test_a_block_is_a_pass_and_spans_the_krylov_space_of_all_its_starts(block):
    A, widths = matrix(80), []
    f = arnoldi(passes(A, widths), 3 * block, seed=4, block=block)
    assert widths == [block] * 3
    starts, Q = f.basis[:, :block], f.basis[:, : 3 * block]
    space = np.hstack([starts, A @ starts, A @ (A @ starts)])
    assert np.linalg.norm(space - Q @ (Q.T @ space)) < 1e-12 * np.linalg.norm(space)
    assert f.coupling.shape == (block, 3 * block)
    bounds = f.ritz()[1]
    theta, Y = np.linalg.eig(f.projected)
    residuals = np.linalg.norm(A @ (Q @ Y) - Q @ Y * theta, axis=0)
    order = np.argsort(-abs(theta), kind="stable")
    np.testing.assert_allclose(residuals[order], bounds, rtol=1e-8)


def test_a_block_shows_copies_that_a_single_vector_hides():
    A = np.diag(np.r_[3.0, 3.0, 3.0, np.linspace(1, 2, 57)])
    for block, copies in ((1, 1), (2, 2), (3, 3), (4, 3)):
        values = arnoldi(A, 24, block=block).ritz()[0]  # before rounding brings another copy
        assert (abs(values - 3) < 1e-3).sum() == copies


@pytest.mark.parametrize("block", [2, 3])
def test_a_block_that_loses_its_rank_says_so_and_goes_on(tmp_path, block):
    A = np.diag(np.r_[5.0, 4.0, np.zeros(28)])
    f = arnoldi(A, 12, block=block)
    assert f.breakdowns
    holds(A, f)
    f.save(tmp_path / "run.npz")
    loaded = Arnoldi.load(tmp_path / "run.npz", A).extend(30)
    assert loaded.block == block
    assert loaded.exhausted
    assert np.array_equal(loaded.hessenberg, f.extend(30).hessenberg)
    np.testing.assert_allclose(np.sort(loaded.ritz()[0].real), np.diag(A)[::-1], atol=1e-13)


def test_extended_is_the_same_as_at_once_to_the_last_bit():
    A = matrix()
    at_once, extended = arnoldi(A, 30), arnoldi(A, 7).extend(13).extend(10)
    assert np.array_equal(at_once.hessenberg, extended.hessenberg)
    assert np.array_equal(at_once.basis, extended.basis)


@pytest.mark.parametrize("rank", [40, 5])
def test_interrupted_and_resumed_is_the_same_to_the_last_bit(tmp_path, rank):
    A = matrix()[:, :rank] @ matrix(seed=1)[:rank]
    calls = []

    def interrupted(V):
        calls.append(0)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return A @ V

    f = Arnoldi(Operator(A.shape, A.dtype, interrupted, lambda U: A.T @ U))
    with pytest.raises(KeyboardInterrupt):
        f.extend(30)
    assert f.steps == 12
    holds(A, f)
    f.save(tmp_path / "run.npz")
    truth = arnoldi(Operator(A.shape, A.dtype, lambda V: A @ V, lambda U: A.T @ U), 30)
    resumed = Arnoldi.load(tmp_path / "run.npz", f.operator.operator).extend(18)
    assert resumed.breakdowns == truth.breakdowns
    for other in (resumed, f.extend(18)):
        assert np.array_equal(other.hessenberg, truth.hessenberg)
        assert np.array_equal(other.basis, truth.basis)
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_breakdown_is_noted_and_gone_through():
    A = np.diag(np.r_[3.0, 2.0, 2.0, np.zeros(5)])
    f = arnoldi(A, 8, start=np.eye(8)[0])
    assert f.breakdowns[0] == 1  # an exact eigenvector as start
    assert f.exhausted
    holds(A, f)
    np.testing.assert_allclose(np.sort(f.ritz()[0].real), np.sort(np.diag(A)), atol=1e-14)
    assert f.breakdowns[-1] == arnoldi(A, 1).exhaust().breakdowns[-1] == 8


def test_ritz_bounds_are_the_residuals():
    A = matrix()
    f = arnoldi(A, 15)
    values, bounds = f.ritz()
    theta, Y = np.linalg.eig(f.projected)
    for value, bound in zip(values, bounds, strict=True):
        y = f.basis[:, :15] @ Y[:, np.abs(theta - value).argmin()]
        assert np.linalg.norm(A @ y - value * y) == pytest.approx(bound, rel=1e-8)


def test_the_basis_is_in_float64_over_a_float32_operator():
    A = matrix().astype(np.float32)
    f = arnoldi(
        Operator(A.shape, A.dtype, lambda V: A @ V.astype(np.float32), lambda U: A.T @ U), 20
    )
    assert f.basis.dtype == np.float64
    assert np.linalg.norm(f.basis.T @ f.basis - np.eye(21)) < 1e-13


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arnoldi(matrix()[:, :3], 2), "square operator: got 40 x 3"),
        (lambda: arnoldi(1j * matrix(), 2), "complex"),
        (lambda: arnoldi(matrix(), -1), "steps must be at least 0: got -1"),
        (lambda: arnoldi(matrix(), 2, block=0), "block must lie from 1 to n = 40: got 0"),
        (lambda: arnoldi(matrix(), 2, block=41), "block must lie from 1 to n = 40: got 41"),
        (lambda: arnoldi(matrix(), 2, start=np.zeros(40)), "start vector is zero"),
        (lambda: arnoldi(matrix(), 2, start=np.ones(3)), r"shape \(3,\): expected \(40,\)"),
        (
            lambda: arnoldi(matrix() * np.nan, 2),
            "the matrix has 1600 values of 1600 that are not finite",
        ),
        (lambda: Arnoldi.load("/nowhere.npz", matrix()), "/nowhere.npz does not exist"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_whole_space_by_blocks_is_the_operator_in_another_basis():
    A, widths = matrix(150), []

    def apply(V):
        widths.append(V.shape[1])
        return A @ V

    for steps in (0, 1, 7, 149, 150):
        widths.clear()
        f = Arnoldi(Operator(A.shape, A.dtype, apply, lambda U: A.T @ U)).extend(steps)
        assert f.exhaust() is f
        assert f.exhausted
        assert f.products == sum(widths) == 150
        assert len(widths) <= steps + 3
        assert np.linalg.norm(f.basis.T @ f.basis - np.eye(150)) < 1e-12
        assert np.linalg.norm(A @ f.basis - f.basis @ f.projected) < 1e-11
        assert not f.coupling.any()


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_the_factorisation_is_free_of_scale(tmp_path, scale):
    A = matrix()
    f, one = arnoldi(scale * A, 12), arnoldi(A, 12)
    holds(A, one)
    np.testing.assert_allclose(f.hessenberg / scale, one.hessenberg, atol=1e-12)
    np.testing.assert_allclose(f.basis, one.basis, atol=1e-10)
    np.testing.assert_allclose(f.ritz()[1] / scale, one.ritz()[1], rtol=1e-6)
    assert one.unit == 1
    f.save(tmp_path / "f.npz")
    loaded = Arnoldi.load(tmp_path / "f.npz", scale * A)
    np.testing.assert_allclose(
        loaded.extend(3).hessenberg / scale, one.extend(3).hessenberg, atol=1e-12
    )


def test_a_small_start_and_a_nilpotent_operator_of_any_scale():
    for scale in (1e-300, 1.0, 1e300):
        # its first product is zero
        f = arnoldi(scale * np.eye(6, k=1), 6, start=1e-300 * np.eye(6)[0])
        assert f.exhausted
        np.testing.assert_allclose(
            f.basis @ (f.projected / scale) @ f.basis.T, np.eye(6, k=1), atol=1e-14
        )

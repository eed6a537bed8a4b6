"""All truncations at once are those that `lstsq` finds one by one."""

import numpy as np
import pytest

from jacobian_lab import InputError
from jacobian_lab.krylov.least_squares import lstsq
from jacobian_lab.krylov.regularisation import truncated_svd

from conftest import relative
from matrices import SCALES


def matrix(seed, rows=20, columns=20, rank=None, condition=1e3):
    """A random matrix of known rank and condition number."""
    rng = np.random.default_rng(seed)
    rank = rank or min(rows, columns)
    u, v = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (rows, columns))
    return u * np.geomspace(1, 1 / condition, rank) @ v.T, rng.standard_normal(rows)


def test_truncated_svd_holds_every_truncation():
    A, b = matrix(0, 20, 15, 10)
    path = truncated_svd(A, b)
    for rcond in (0.5, 0.12, 0.02, 1e-6):
        rank = path.rank(rcond)
        direct = lstsq(A, b, rcond)
        assert rank == direct.rank
        assert relative(path.solution(rank), direct.x) < 1e-9
        assert path.solution_norms[rank] == pytest.approx(np.linalg.norm(direct.x), rel=1e-9)
        assert path.residual_norms[rank] == pytest.approx(
            direct.residual * np.linalg.norm(b), rel=1e-9
        )
    assert path.solution_norms[0] == 0
    assert path.residual_norms[0] == pytest.approx(np.linalg.norm(b))
    assert (np.diff(path.residual_norms) <= 0).all()
    assert (np.diff(path.solution_norms) >= 0).all()


@pytest.mark.parametrize(("scale", "size"), SCALES)
def test_truncations_are_free_of_scale(scale, size):
    A, b = matrix(11, condition=10)
    one, scaled = truncated_svd(A, b), truncated_svd(scale * A, size * b)
    np.testing.assert_allclose(scaled.singular_values / scale, one.singular_values)
    np.testing.assert_allclose(scaled.solution_norms / size * scale, one.solution_norms, rtol=1e-9)
    np.testing.assert_allclose(scaled.residual_norms / size, one.residual_norms, atol=1e-9)
    np.testing.assert_allclose(scaled.solution(7) / size * scale, one.solution(7), rtol=1e-9)


def test_norms_whose_squares_over_or_underflow_are_told():
    svd = truncated_svd(np.diag([1.0, 1e-200]), np.array([1.0, 1e-170]))
    np.testing.assert_allclose(svd.residual_norms, [1, 1e-170, 0])
    svd = truncated_svd(np.diag([1.0, 1e-200]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(svd.solution_norms, [0, 1, 1e200])
    np.testing.assert_allclose(svd.solution(2), [1, 1e200])


def test_bad_systems_and_ranks_are_named():
    A, b = matrix(9)
    with pytest.raises(InputError, match=r"shape \(19,\): expected \(20,\)"):
        truncated_svd(A, b[:19])
    with pytest.raises(InputError, match="1 values of 20 that are not finite"):
        truncated_svd(A, np.where(np.arange(20) == 3, np.nan, b))
    with pytest.raises(InputError, match="rank must lie from 0 to 20: got 21"):
        truncated_svd(A, b).solution(21)
    assert truncated_svd(np.zeros((3, 3)), np.ones(3)).rank(1e-3) == 0


def test_ranks_beyond_the_last_singular_value_above_zero_are_refused():
    found = truncated_svd(np.diag([2.0, 1.0, 0.0]), np.ones(3))
    np.testing.assert_allclose(found.solution(2), [0.5, 1, 0])
    with pytest.raises(InputError, match="rank must lie from 0 to 2: got 3"):
        found.solution(3)

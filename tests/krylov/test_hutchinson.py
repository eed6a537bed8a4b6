"""Sampling outside of a sketch: the split is exact, the interval is Student's."""

import numpy as np
import pytest
from scipy.stats import t as student

from jacobian_lab import ConvergenceWarning, Estimate, InputError
from jacobian_lab.krylov.hutchinson import Figure, from_samples, split

A = np.random.default_rng(0).standard_normal((40, 6)) @ np.random.default_rng(1).standard_normal(
    (6, 40)
)
MEAN = Figure(
    value=lambda m: m[0],
    influence=lambda z, _: z[:, 0],
    bound=lambda z, _: np.sqrt(np.square(z).mean()),
    scale=lambda _: 0.0,
)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_sketch_as_wide_as_the_rank_holds_the_range(transposed):
    operator, Q, AQ, AtQ = split(A, 8, 2, None, 0, both=True, transposed=transposed)
    B = A.T if transposed else A
    assert np.linalg.norm(B - Q @ (Q.T @ B)) < 1e-10
    assert np.linalg.norm(Q.T @ Q - np.eye(8)) < 1e-13
    np.testing.assert_allclose(AQ, A @ Q, atol=1e-12)
    np.testing.assert_allclose(AtQ, A.T @ Q, atol=1e-12)
    assert operator.products == 24
    assert split(A, 0, 2, None, 0, both=False)[1].shape == (40, 0)
    assert split(A, 99, 2, None, 0, both=False)[1].shape == (40, 40)


def test_samples_lie_outside_of_the_sketch_and_their_mean_is_added():
    operator, Q, *_ = split(A, 8, 10, None, 0, both=False)
    seen = []

    def sample(G, _):
        seen.append(G)
        return np.arange(G.shape[1], dtype=float)[:, None]

    found = from_samples(operator, Q, np.array([5.0]), sample, 10, None, 0, MEAN)
    assert np.abs(Q.T @ np.concatenate(seen, axis=1)).max() < 1e-12
    assert found.value == 5 + 4.5
    assert found.standard_error == pytest.approx(np.std(np.arange(10), ddof=1) / np.sqrt(10))
    assert found.degrees == 9


def test_an_accuracy_out_of_reach_ends_with_the_space():
    operator, Q, *_ = split(A, 0, 2, 0.01, 0, both=False)
    rng = np.random.default_rng(0)
    with pytest.warns(ConvergenceWarning, match="take a larger sketch"):
        found = from_samples(
            operator,
            Q,
            np.zeros(1),
            lambda G, _: 1 + 5 * rng.standard_normal((G.shape[1], 1)),
            2,
            0.01,
            0,
            MEAN,
        )
    assert found.degrees + 1 == 48  # the pilot, which is more than n


def test_a_product_that_is_not_finite_is_named():
    operator, Q, *_ = split(A, 0, 2, None, 0, both=False)
    with pytest.raises(InputError, match=r"not finite \(NaN or infinite\): audit the operator"):
        from_samples(
            operator,
            Q,
            np.zeros(1),
            lambda G, _: np.full((G.shape[1], 1), np.nan),
            2,
            None,
            0,
            MEAN,
        )


def test_the_interval_is_students():
    found = Estimate(2.0, 0.5, 10, 4)
    half = 0.5 * student.ppf(0.95, 4)
    assert found.interval(0.9) == pytest.approx((2 - half, 2 + half))
    assert float(found) == 2.0
    assert str(found) == "2 +- 0.5 (10 products)"
    low, high = Estimate(np.array([1.0, 2.0]), np.array([0.1, 0.2]), 10, 4).interval()
    assert (high - low)[1] == pytest.approx(2 * (high - low)[0])

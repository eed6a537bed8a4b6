import numpy as np
import pytest

from jacobian_lab import ConvergenceWarning, InputError
from jacobian_lab.krylov.estimates import (
    among,
    asymmetry,
    diagonal,
    frobenius_norm,
    trace,
    variances,
)
from jacobian_lab.krylov.operators import Operator

import matrices


def decaying(skew, n=150, seed=0):
    """A matrix shaped like a denoiser's J: a falling spectrum, and a skew part."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    S = Q @ np.diag(10 / np.arange(1, n + 1) ** 1.2) @ Q.T
    K = Q @ np.diag(1 / np.arange(1, n + 1)) @ rng.standard_normal((n, n))
    K = (K - K.T) * np.linalg.norm(S) / np.linalg.norm(K - K.T)
    return S + skew * K


MATRICES = {
    "mild": decaying(0.2),
    "strong": decaying(1.5),
    "weak": decaying(0.01),
    "flat": np.eye(150) + np.random.default_rng(1).standard_normal((150, 150)) / 30,
    "low rank": decaying(0.3)[:, :5] @ decaying(0.3, seed=1)[:5],
}
TRUTH = {
    trace: np.trace,
    frobenius_norm: np.linalg.norm,
    asymmetry: lambda A: np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T),
}


@pytest.mark.parametrize(
    "options", [{}, {"sketch": 0}, {"rtol": 0.02, "probes": 16}], ids=["split", "plain", "stopped"]
)
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("estimator", TRUTH)
@pytest.mark.filterwarnings("ignore::jacobian_lab.ConvergenceWarning")
def test_the_intervals_cover_the_truth_in_90_to_99_percent_of_200_trials(estimator, name, options):
    A, truth = MATRICES[name], TRUTH[estimator](MATRICES[name])
    estimates = [estimator(A, seed=seed, **options) for seed in range(200)]
    covered = sum(low <= truth <= high for low, high in (e.interval() for e in estimates))
    assert covered >= 180
    # else exact: the interval is rounding
    if max(e.standard_error / abs(e.value) for e in estimates) > 1e-10:
        assert covered <= 198
    if "rtol" in options:
        assert all(e.standard_error <= 0.02 * abs(e.value) or e.degrees == 149 for e in estimates)


@pytest.mark.parametrize(
    "options", [{}, {"sketch": 0}, {"rtol": 0.2}], ids=["split", "plain", "stopped"]
)
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.filterwarnings("ignore::jacobian_lab.ConvergenceWarning")
def test_the_intervals_of_a_diagonal_cover_each_entry(name, options):
    A = MATRICES[name]
    covered = []
    for seed in range(200):
        estimate = diagonal(A, seed=seed, **options)
        low, high = estimate.interval()
        covered.append((low <= np.diag(A)) & (np.diag(A) <= high))
        if "rtol" in options:
            assert (
                np.linalg.norm(estimate.standard_error) <= 0.2 * np.linalg.norm(estimate.value)
                or estimate.degrees == 149
            )
    if name != "low rank" or options == {"sketch": 0}:  # else exact: the interval is rounding
        assert 0.9 <= np.mean(covered) <= 0.99
    assert np.mean(covered, axis=0).min() >= 0.85  # of 150 entries the worst in 200 trials
    assert "150 numbers" in str(estimate)


@pytest.mark.parametrize("estimator", TRUTH)
def test_the_split_pays_on_a_falling_spectrum(estimator):
    A = MATRICES["mild"]
    split = [estimator(A, seed=s).standard_error for s in range(10)]
    plain = [estimator(A, seed=s, sketch=0, probes=64).standard_error for s in range(10)]
    assert np.median(split) < np.median(plain)


def test_edges_of_asymmetry():
    S, K = MATRICES["mild"] + MATRICES["mild"].T, MATRICES["mild"] - MATRICES["mild"].T
    low, high = asymmetry(S).interval()
    assert low <= 0 <= high < 1e-10
    assert asymmetry(K).value > 1e10
    with pytest.raises(InputError, match="0 / 0"):
        asymmetry(np.zeros((5, 5)))


@pytest.mark.parametrize("symmetric", [1e-13, 1e-15, 1e-17])
def test_a_symmetric_part_that_is_rounding_has_no_small_error(symmetric):
    K = MATRICES["mild"] - MATRICES["mild"].T
    A = K + symmetric * np.eye(len(K))
    for seed in range(5):
        low, high = asymmetry(A, seed=seed).interval()
        assert low <= TRUTH[asymmetry](A) <= high


def test_products_are_counted_and_a_full_sketch_is_exact():
    A, columns = MATRICES["mild"], []

    def apply(M):
        def product(V):
            columns.append(V.shape[1])
            return M @ V

        return product

    for estimator, truth in TRUTH.items():
        columns.clear()
        estimate = estimator(Operator(A.shape, A.dtype, apply(A), apply(A.T)))
        assert estimate.products == sum(columns)
        assert "products)" in str(estimate)
        exact = estimator(A, sketch=150, probes=2)
        assert exact.value == pytest.approx(truth(A), rel=1e-12)
        assert exact.standard_error < 1e-9 * exact.value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trace(np.ones((3, 2))), "square"),
        (lambda: trace(np.eye(3), probes=1), "probes must be at least 2: got 1"),
        (lambda: trace(np.eye(3), rtol=0), "rtol must lie in"),
        (lambda: trace(np.full((3, 3), np.nan)), "not finite"),
        (lambda: trace(np.eye(3)).interval(1), "level must lie"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_an_accuracy_out_of_reach_warns():
    with pytest.warns(ConvergenceWarning, match="take a larger sketch"):
        trace(MATRICES["flat"], rtol=1e-9)


@pytest.mark.parametrize("estimator", [trace, diagonal, frobenius_norm, asymmetry])
def test_what_is_no_real_operator_is_refused(estimator):
    with pytest.raises(InputError, match="expected a real operator: got complex128"):
        estimator(1j * np.eye(50))
    with pytest.raises(InputError, match="expected a LinearOperator or a numpy matrix: got list"):
        estimator([[1.0]])


SPARSE = {
    "one entry": np.eye(150) + 5 * np.eye(150, k=40) * (np.arange(150) == 3),
    "ring": np.roll(np.eye(150), 1, 0),
    "permutation": np.eye(150)[np.random.default_rng(0).permutation(150)],
}


@pytest.mark.parametrize("sketch", [0, 16])
@pytest.mark.parametrize("probes", [2, 3, 4])
@pytest.mark.parametrize("name", ["mild", "flat", *SPARSE])
def test_intervals_of_few_probes_cover_the_truth(name, probes, sketch):
    """Two probes of a sparse matrix often give the same number: half of the intervals had no width
    and missed.
    """
    A = (MATRICES | SPARSE)[name]
    for estimator, truth in TRUTH.items():
        estimates = [estimator(A, seed=seed, probes=probes, sketch=sketch) for seed in range(100)]
        low, high = np.array([e.interval() for e in estimates]).T
        slack = 1e-12 * truth(A)
        assert ((low - slack <= truth(A)) & (truth(A) <= high + slack)).mean() >= 0.85
    if not sketch:
        diagonals = [
            diagonal(A, seed=seed, probes=probes, sketch=0).interval() for seed in range(100)
        ]
        covered = [
            (low - 1e-12 <= np.diag(A)) & (np.diag(A) <= high + 1e-12) for low, high in diagonals
        ]
        assert np.mean(covered) >= 0.85


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_wanted_accuracy_of_no_asymmetry_ends_at_once_and_warns_not(dtype):
    S = (MATRICES["mild"] + MATRICES["mild"].T).astype(dtype)
    for A in (S, 1e-300 * S, 1e300 * S) if dtype == np.float64 else (S, S @ S):
        estimate = asymmetry(
            Operator(
                A.shape,
                dtype,
                lambda V, A=A: A @ V.astype(dtype),
                lambda U, A=A: A.T @ U.astype(dtype),
            ),
            rtol=0.01,
        )
        assert estimate.degrees < 48
        low, high = estimate.interval()
        assert low <= 0 <= high < (1e-10 if dtype == np.float64 else 1e-2)
    skew = MATRICES["mild"] - MATRICES["mild"].T
    assert trace(skew, rtol=0.01).degrees < 48  # exactly zero, whatever the probes
    assert abs(trace(skew, rtol=0.01).value) < 1e-10


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-77, 1e-61, 1e61, 1e75, 1e77, 1e160, 1e300])
def test_estimates_are_free_of_scale(scale):
    A = MATRICES["strong"]
    for estimator in (trace, frobenius_norm, asymmetry, diagonal):
        one, scaled = estimator(A), estimator(scale * A)
        factor = 1.0 if estimator is asymmetry else scale
        np.testing.assert_allclose(scaled.value / factor, one.value, rtol=1e-10)
        np.testing.assert_allclose(scaled.standard_error / factor, one.standard_error, rtol=1e-8)


def test_provenance_and_known_rounding_reach_the_estimate():
    A = MATRICES["low rank"]  # exact, but for what is known of its products
    operator = matrices.by_differences(A, rounding=1e-4)
    for estimator in (trace, frobenius_norm, asymmetry, diagonal):
        estimate = estimator(operator)
        assert (estimate.path, estimate.product_error) == ("central difference", 1e-3)
        assert np.linalg.norm(estimate.standard_error) >= 1e-4 * np.linalg.norm(estimate.value) * (
            1 - 1e-12
        )


@pytest.mark.parametrize("sketch", [0, 16, 150, 200])
def test_a_small_diagonal_states_the_rounding_of_whole_products(sketch):
    A = np.ones((200, 200)) - np.eye(200)
    rng = np.random.default_rng(0)

    def product(V):
        noise = rng.standard_normal(V.shape) * np.linalg.norm(A @ V, axis=0) / 200**0.5
        return A @ V + 1e-5 * noise

    estimate = diagonal(Operator(A.shape, A.dtype, product, product, rounding=1e-5), sketch=sketch)
    assert np.sqrt(np.mean((estimate.value / estimate.standard_error) ** 2)) < 2


def test_a_low_mean_of_skewed_samples_has_no_small_error():
    # one large eigenvalue: samples are nearly chi-squared, and a low mean has a low spread
    Q = np.linalg.qr(np.random.default_rng(7).standard_normal((128, 128)))[0]
    A = (Q * np.r_[1, np.full(127, 1e-3)]) @ Q.T
    found = [trace(A, sketch=0, seed=seed) for seed in range(1000)]
    z = np.array([(e.value - np.trace(A)) / e.standard_error for e in found])
    assert np.abs(z).max() < 5
    assert 0.9 < z.std() < 1.05


@pytest.mark.parametrize("name", MATRICES)
def test_the_variance_of_a_trace_is_known_from_products(name):
    B, rng = MATRICES[name], np.random.default_rng(0)
    off = B - np.diag(np.diag(B))
    exact = np.square(off).sum() + (off * off.T).sum()
    G = rng.choice([-1.0, 1.0], size=(150, 4000))
    found = np.concatenate([variances(g, B @ g) for g in np.split(G, 250, axis=1)])
    error = found.reshape(250, -1).mean(1).std() / np.sqrt(250)
    assert abs(found.mean() - exact) < 4 * error
    assert np.var(np.einsum("ik,ik->k", G, B @ G)) == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize(
    "values",
    [np.r_[1, np.full(127, 1e-3)], np.r_[np.ones(4), np.full(124, 1e-3)], 1 / np.arange(1, 129)],
    ids=["one", "four", "falling"],
)
def test_a_low_norm_of_skewed_samples_has_no_small_error(values):
    found = []
    for basis in range(4):
        rng = np.random.default_rng(basis)
        P, Q = (np.linalg.qr(rng.standard_normal((128, 128)))[0] for _ in range(2))
        A = (P * values) @ Q.T
        found += [frobenius_norm(A, sketch=0, seed=seed) for seed in range(250)]
    z = np.array([(e.value - np.linalg.norm(values)) / e.standard_error for e in found])
    assert np.abs(z).max() < 6.5
    assert 0.9 < z.std() < 1.07
    assert np.mean(np.abs(z) < 2.04) > 0.935


def test_the_error_of_a_norm_outside_of_many_directions_is_at_most_twice_too_large():
    noise = np.random.default_rng(0).standard_normal((128, 128))
    A = np.diag(np.linspace(0, 1, 128)) + 0.01 * noise
    found = [frobenius_norm(A, sketch=16, seed=seed) for seed in range(200)]
    stated = np.median([e.standard_error for e in found])
    assert 0.9 < stated / np.std([e.value for e in found]) < 2.1


def test_one_probe_more_than_a_batch_tells_the_error_as_well():
    A = np.random.default_rng(0).standard_normal((128, 128))
    errors = {
        probes: [
            frobenius_norm(A, sketch=0, probes=probes, seed=seed).standard_error
            for seed in range(200)
        ]
        for probes in (32, 33)
    }
    assert np.std(errors[33]) < 1.2 * np.std(errors[32])


def test_a_tiny_skew_part_has_a_finite_error():
    A = np.diag(np.r_[np.ones(100), 0, 0])
    A[100, 101], A[101, 100] = 1e-160, -1e-160
    with np.errstate(all="raise", under="ignore"):
        found = asymmetry(A)
    assert found.value < 1e-150
    assert 0 < found.standard_error < 1e-12


@pytest.mark.parametrize("sketch", [0, 16])
def test_the_norm_of_an_orthogonal_matrix_is_as_exact_as_its_sketch(sketch):
    A = np.linalg.qr(np.random.default_rng(3).standard_normal((128, 128)))[0]
    found = [frobenius_norm(A, sketch=sketch, seed=seed) for seed in range(200)]
    error = np.array([e.value for e in found]) - np.sqrt(128)
    stated = np.median([e.standard_error for e in found])
    assert stated < 1e-12 if sketch == 0 else 0.8 < stated / error.std() < 1.3


@pytest.mark.parametrize("name", MATRICES)
def test_the_squared_norm_of_a_product_is_known_from_pairs_of_samples(name):
    A, rng = MATRICES[name], np.random.default_rng(0)
    G = rng.choice([-1.0, 1.0], size=(150, 8000))
    found = np.concatenate([among(A @ g, A @ g) for g in np.split(G, 500, axis=1)])
    error = found.reshape(500, -1).mean(1).std() / np.sqrt(500)
    assert abs(found.mean() - np.linalg.norm(A.T @ A) ** 2) < 4 * error
    assert among(A[:, :1], A[:, :1]) == pytest.approx(np.linalg.norm(A[:, 0]) ** 4)


def test_the_asymmetry_of_skewed_samples_has_no_small_error():
    A = 0.01 * np.linalg.qr(np.random.default_rng(7).standard_normal((128, 128)))[0]
    A[0] += 1
    truth = TRUTH[asymmetry](A)
    found = [asymmetry(A, seed=seed) for seed in range(1000)]
    z = np.array([(e.value - truth) / e.standard_error for e in found])
    assert np.abs(z).max() < 4.5
    assert 0.9 < z.std() < 1.12

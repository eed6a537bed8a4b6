"""Eigenpairs against dense truth, on networks' spectra and adversarial ones: right, or honestly
unconverged.
"""

import warnings

import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import linear_sum_assignment

from jacobian_lab import ConvergenceWarning, InputError, JacobianOperator
from jacobian_lab.krylov.eigen import eigenpairs
from jacobian_lab.krylov.operators import Operator
from jacobian_lab.krylov.schur import RANKS

import matrices
import networks
from matrices import ADVERSARIAL, blur, ranked_right


@pytest.mark.parametrize("which", RANKS)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_matrices_are_never_silently_wrong(name, which):
    A = ADVERSARIAL[name]
    true = np.linalg.eigvals(A)
    for k in sorted({min(k, len(A)) for k in (1, 3, 6, max(1, len(A) - 2))}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = eigenpairs(A, k, which)
        residuals = np.linalg.norm(A @ result.vectors - result.vectors * result.values, axis=0)
        np.testing.assert_allclose(result.residuals, residuals, atol=1e-12 * np.linalg.norm(A, 2))
        assert result.converged == (not caught)
        if not result.converged:
            continue
        assert result.values.size in (k, k + 1)
        excess = np.maximum(np.abs(result.values[:, None] - true) - result.errors[:, None], 0)
        # distinct; eigvals errs too
        assert excess[linear_sum_assignment(excess)].max() <= 1e-11 * np.abs(A).max()
        found, wanted = (np.sort(RANKS[which](z))[::-1] for z in (result.values, true))
        # none was missed
        assert (found >= wanted[: len(found)] - result.errors.max() - 1e-8 * np.abs(A).max()).all()


def test_adversarial_matrices_mostly_converge_where_eigenvalues_are_well_conditioned():
    for name in (
        "repeated",
        "identity",
        "zero",
        "rank one",
        "Hilbert",
        "equal moduli",
        "orthogonal",
        "skew",
        "clustered",
        "random",
    ):
        for k in (1, 6):
            assert eigenpairs(ADVERSARIAL[name], k).converged


@pytest.fixture(scope="module")
def decaying():
    return matrices.decaying()


def test_imaginary_parts_are_claimed_of_the_whole_space_only(decaying):
    true = np.sort(abs(np.linalg.eigvals(decaying).imag))[::-1]
    for k in (1, 2, 3, 10):
        result = eigenpairs(decaying, k, "LI")
        assert result.converged
        assert result.products <= 300 + k + 3
        found = np.sort(abs(result.values.imag))[::-1]
        assert (abs(found - true[: len(found)]) <= result.errors.max()).all()
        assert result.errors.max() < 1e-10
        for limits in ({"subspace": 50}, {"max_products": 200}):
            with pytest.warns(ConvergenceWarning, match="not converged"):
                assert not eigenpairs(decaying, k, "LI", **limits).converged
    with pytest.warns(
        ConvergenceWarning, match="imaginary parts may be too small.* allow n products"
    ):
        eigenpairs(
            np.roll(np.eye(300), 1, 0) / 2 + np.diag(np.r_[np.zeros(298), 3, 3]),
            1,
            "LI",
            rtol=0.1,
            subspace=250,
        )


@pytest.mark.parametrize("which", ["LM", "LR", "SR"])
def test_ten_pairs_are_right_to_1e_8(decaying, which):
    result = eigenpairs(decaying, 10, which, left=True)
    true = np.linalg.eigvals(decaying)
    scale = abs(true).max()
    assert result.converged
    assert all(abs(true - value).min() < 1e-8 * scale for value in result.values)
    ranks = np.sort(RANKS[which](true))[::-1][: len(result.values)]
    np.testing.assert_allclose(np.sort(RANKS[which](result.values))[::-1], ranks, atol=1e-8 * scale)
    distance = np.array([abs(true - value).min() for value in result.values])
    assert (distance <= result.errors).all()
    left = np.linalg.norm(
        decaying.T @ result.left.conj() - result.left.conj() * result.values, axis=0
    )
    assert left.max() < 1e-8 * scale
    w, L, R = scipy.linalg.eig(decaying, left=True)
    conditions = 1 / abs((L.conj() * R).sum(0))
    np.testing.assert_allclose(
        result.conditions, conditions[[abs(w - v).argmin() for v in result.values]], rtol=1e-4
    )


@pytest.mark.parametrize("which", ["LM", "LR", "SR"])
def test_the_symmetric_mode_has_real_values_and_rigorous_errors(decaying, which):
    S = (decaying + decaying.T) / 2
    result = eigenpairs(S, 10, which, symmetric=True)
    true = np.linalg.eigvalsh(S)
    assert result.converged
    assert result.values.dtype == np.float64
    expected = true[np.argsort(-RANKS[which](true))][:10]
    assert (np.abs(result.values - expected) <= result.errors).all()
    assert np.linalg.norm(result.vectors.T @ result.vectors - np.eye(10)) < 1e-12


def test_a_float32_network_states_its_noise_and_keeps_its_word():
    import torch

    x = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = eigenpairs(JacobianOperator(networks.unet(torch.float32), x, 300), 5)
    true = np.linalg.eigvals(networks.truth(networks.unet(), x.double(), 300).numpy())
    assert "noise floor" in result.message
    assert 1e-7 < result.noise / abs(true).max() < 1e-4
    assert (np.array([abs(true - value).min() for value in result.values]) <= result.errors).all()


@pytest.mark.parametrize(
    ("block", "found", "least", "most"),
    [(1, 50, 8, 15), (2, 50, 0, 0), (5, 70, 0, 0), (8, 90, 0, 0)],
)
def test_what_the_certificate_costs_is_told(decaying, block, found, least, most):
    result = eigenpairs(decaying, 10, block=block)
    # less the noise, the residuals, and one with A^T
    search = result.certificate - 1 - len(result.values) - 1
    assert least <= search <= most
    assert result.products - result.certificate < found  # it stops where the wanted pairs converge


def test_left_vectors_that_were_asked_for_and_are_not_there_are_no_convergence(decaying):
    for budget in (5, 6, 7, 8, 9, 10, 40, 70):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = eigenpairs(decaying, 4, left=True, max_products=budget)
        assert result.products <= budget
        assert (result.left is None) == ("too few products" in result.message) == (budget < 10)
        assert result.converged == (budget == 70)


def test_left_vectors_of_a_space_that_falls_apart_keep_their_digits():
    for seed in range(40):
        A = np.outer(*np.random.default_rng(seed).standard_normal((2, 23)))
        result = eigenpairs(A, 2, "SR", rtol=1e-12, left=True)
        assert result.converged
        left = result.left.conj().T
        assert np.linalg.norm(left @ A - result.values[:, None] * left) < 1e-13 * np.linalg.norm(A)


def test_partial_results_say_so_and_products_are_counted(decaying):
    calls = []

    def count(V):
        calls.append(V.shape[1])
        return decaying @ V

    A = Operator(decaying.shape, decaying.dtype, count, lambda U: decaying.T @ U)
    with pytest.warns(ConvergenceWarning, match="not converged"):
        result = eigenpairs(A, 10, "LI", rtol=1e-13, subspace=14, max_products=30)
    assert not result.converged
    assert result.products == sum(calls)
    assert result.certificate == 0  # nothing was found
    assert result.vectors.shape == (300, len(result.values))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must lie from 1 to n = 300: got 0"),
        ({"k": 301}, "got 301"),
        ({"which": "XX"}, "unknown which 'XX'"),
        ({"which": "LI", "symmetric": True}, "real"),
        ({"rtol": 0}, "rtol must lie in"),
        ({"subspace": 5}, "at least k \\+ 4"),
    ],
)
def test_bad_input_is_refused(decaying, arguments, message):
    with pytest.raises(InputError, match=message):
        eigenpairs(decaying, **arguments)


@pytest.mark.parametrize("which", RANKS)
def test_permutations_of_6_to_40_are_right(which):
    for n in range(6, 41):
        A = np.eye(n)[np.random.default_rng(n).permutation(n)]
        true = np.linalg.eigvals(A)
        for k, options in ((1, {}), (3, {"subspace": 9}), (5, {"max_products": n}), (n // 2, {})):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                result = eigenpairs(A, min(k, n), which, **options)
            assert not result.converged or ranked_right(result, which, true)
            assert result.converged or options


def test_a_budget_is_a_hard_cap(decaying):
    calls = []

    def counted(M):
        def product(V):
            calls.append(V.shape[1])
            return M @ V

        return product

    A = Operator(decaying.shape, decaying.dtype, counted(decaying), counted(decaying.T))
    for most in (5, 10, 26, 60, 150, 310, 400):
        for k, options in (
            (1, {}),
            (6, {}),
            (6, {"which": "SR"}),
            (6, {"which": "LI"}),
            (6, {"left": most > 9}),
            (6, {"subspace": 12}),
        ):
            calls.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                result = eigenpairs(A, k, max_products=most, **options)
            assert result.products == sum(calls) <= most
    with pytest.raises(InputError, match="max_products must be at least 5: got 4"):
        eigenpairs(A, max_products=4)


@pytest.mark.parametrize("which", RANKS)
def test_never_many_more_than_n_products(which):
    rng = np.random.default_rng(0)
    for A in (
        blur(12),
        np.roll(np.eye(150), 1, 0),
        rng.standard_normal((150, 150)),
        np.eye(150, k=1),
        np.diag(np.arange(150.0)),
    ):
        for k in (1, 6, 20):
            result = eigenpairs(A, k, which)
            assert result.converged
            # the search outside and the certificate on top
            assert result.products <= 1.25 * len(A) + k + 13


def test_what_does_not_fit_is_bounded():
    n = 12288
    d = 1 / np.arange(1, n + 1)
    A = Operator((n, n), np.float64, lambda V: d[:, None] * V, lambda U: d[:, None] * U)
    result = eigenpairs(A, 6, symmetric=True)
    assert result.converged
    np.testing.assert_allclose(result.values, d[:6], rtol=1e-8)
    with pytest.warns(ConvergenceWarning, match="not converged"):
        assert eigenpairs(A, 1, "LI").products < 3000


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_eigenpairs_are_free_of_scale(decaying, scale):
    for options in ({}, {"symmetric": True}, {"left": True}, {"which": "LI"}):
        A = decaying + decaying.T if "symmetric" in options else decaying
        one, scaled = (eigenpairs(c * A, 3, **options) for c in (1.0, scale))
        assert scaled.converged
        np.testing.assert_allclose(scaled.values / scale, one.values, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(scaled.tolerance / scale, one.tolerance, rtol=1e-6)


def test_provenance_and_known_rounding_reach_the_result(decaying):
    A = matrices.by_differences(decaying)
    for B in (A, A.T, 2 * A, A + A):
        result = eigenpairs(B, 3)
        assert (result.path, result.product_error) == ("central difference", 1e-3)
        assert result.noise >= 1e-5 * abs(result.values).max()
        assert (result.errors >= result.noise).all()
        assert "noise floor" in result.message
    assert eigenpairs(decaying, 1).path == "matrix"


@pytest.mark.parametrize("gap", [3e-10, 1e-11, 0.0])
def test_copies_that_agree_to_the_tolerance_are_within_the_stated_errors(gap):
    d = np.r_[1 + gap * np.array([1, 0, 0.5, 0.7]), 0.4 * np.random.default_rng(0).random(596)]
    A = Operator((600, 600), np.float64, lambda V: d[:, None] * V, lambda U: d[:, None] * U)
    for seed in range(8):
        for k in (1, 2, 3):
            for symmetric in (True, False):
                result = eigenpairs(A, k, symmetric=symmetric, seed=seed, max_products=500)
                assert result.converged
                assert ranked_right(result, "LM", d)


@pytest.mark.parametrize("left", [False, True])
def test_ill_conditioned_values_that_a_coupling_moves_further_keep_their_errors(left):
    # Frank's matrix: ten of its eigenvalues, from 32.2 to 0.09, have conditions up to 1e5
    frank = np.array(
        [[12 - max(i, j) if j >= i - 1 else 0 for j in range(12)] for i in range(12)], dtype=float
    )
    A = scipy.linalg.block_diag(frank, np.zeros((228, 228)))
    true, converged = np.linalg.eigvals(frank), 0
    for seed in range(6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = eigenpairs(A, 10, "LM", block=8, subspace=19, rtol=1e-4, seed=seed, left=left)
        if found.converged:
            off = np.abs(found.values[:, None] - true).min(1)
            assert (off <= found.errors + 1e-10).all()
        converged += found.converged
    assert converged >= 4


@pytest.mark.parametrize("scale", [1e-20, 1e-40, 1e40])
def test_values_come_in_order_at_any_scale(scale):
    found = eigenpairs(scale * np.diag([1.0, 5, 3, 2, 4]), 3)
    np.testing.assert_allclose(found.values / scale, [5, 4, 3])

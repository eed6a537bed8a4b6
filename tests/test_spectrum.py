"""Eigenpairs against dense truth, and a market of adversarial matrices: right, or honestly unconverged."""

import warnings

import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import linear_sum_assignment

import networks
from jacobian_lab import ConvergenceWarning, InputError, JacobianOperator
from jacobian_lab.krylov_schur import RANKS
from jacobian_lab.operators import Operator
from jacobian_lab.singular import singular_values
from jacobian_lab.spectrum import eigenpairs

RNG = np.random.default_rng(0)


def similar(T):
    S = RNG.standard_normal((len(T), len(T)))
    return S @ T @ np.linalg.inv(S)


def jordan(value, size):
    return value * np.eye(size) + np.diag(np.ones(size - 1), 1)


REPEATED = np.diag([5.0, 5, 5, 4, 3, 2, *(0.5**i for i in range(34))])
MARKET = {
    "repeated": REPEATED, "repeated, nonsymmetric": similar(REPEATED), "identity": np.eye(30), "zero": np.zeros((20, 20)),
    "rank one": np.outer(RNG.standard_normal(30), RNG.standard_normal(30)),
    "rank one, nilpotent": np.eye(20, k=3) * (np.arange(20) < 1),
    "nilpotent": np.eye(30, k=1),
    "defective": scipy.linalg.block_diag(jordan(3, 4), jordan(2, 3), np.diag(np.linspace(0, 1, 30))),
    "defective, dense": similar(scipy.linalg.block_diag(jordan(3, 4), np.diag(np.linspace(0, 1, 30)))),
    "Grcar": scipy.linalg.toeplitz([1, -1, *[0] * 48], [1, 1, 1, 1, *[0] * 46]).astype(float),
    "Hilbert": scipy.linalg.hilbert(30),
    "equal moduli": np.roll(np.eye(36), 1, 0), "orthogonal": np.linalg.qr(RNG.standard_normal((40, 40)))[0],
    "skew": (lambda a: a - a.T)(RNG.standard_normal((40, 40))),
    "clustered": np.diag(np.r_[1 + 1e-9 * np.arange(10), RNG.random(30) / 2]),
    "large": 1e120 * RNG.standard_normal((30, 30)), "small": 1e-120 * RNG.standard_normal((30, 30)),
    "random": RNG.standard_normal((120, 120)), "one": np.array([[3.0]]), "rotation": np.array([[0.0, 1], [-1, 0]]),
}


@pytest.mark.parametrize("which", RANKS)
@pytest.mark.parametrize("name", MARKET)
def test_the_market_is_never_silently_wrong(name, which):
    A = MARKET[name]
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
        assert excess[linear_sum_assignment(excess)].max() <= 1e-11 * np.abs(A).max()  # distinct; eigvals errs too
        found, wanted = (np.sort(RANKS[which](z))[::-1] for z in (result.values, true))
        assert (found >= wanted[:len(found)] - result.errors.max() - 1e-8 * np.abs(A).max()).all()  # none was missed


@pytest.mark.parametrize("name", MARKET)
def test_an_exact_eigenvector_as_start_blinds_nobody(name):
    A = MARKET[name]
    values, vectors = np.linalg.eig(A)
    start = vectors[:, np.abs(values).argmin()].real  # of the least wanted eigenvalue
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = eigenpairs(A, 1, start=start if start.any() else np.ones(len(A)))
    assert result.converged == (not caught)
    if result.converged:
        assert abs(result.values).max() >= (1 - 1e-8) * abs(values).max() - result.errors.max() - 1e-300


@pytest.mark.parametrize("name", MARKET)
def test_singular_values_of_the_market(name):
    A = MARKET[name]
    true = np.linalg.svd(A, compute_uv=False)
    for k in sorted({min(k, len(A)) for k in (1, 6, max(1, len(A) - 2))}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = singular_values(A, k)
        assert result.converged == (not caught)
        u, v, scale = result.left, result.right, true[0]
        residuals = np.maximum(np.linalg.norm(A @ v - u * result.values, axis=0),
                               np.linalg.norm(A.T @ u - v * result.values, axis=0))
        np.testing.assert_allclose(result.residuals, residuals, atol=1e-12 * scale)
        for basis in (u, v):
            assert np.linalg.norm(basis.T @ basis - np.eye(k)) < 1e-12
        assert (np.abs(result.values - true[:k]) <= result.errors + 1e-13 * scale).all() or not result.converged


@pytest.mark.parametrize("shape", [(60, 20), (20, 60)])
def test_singular_values_of_a_rectangle_cost_what_they_say(shape):
    A, columns = RNG.standard_normal(shape), []

    def apply(M):
        def product(V):
            columns.append(V.shape[1])
            return M @ V
        return product

    result = singular_values(Operator(shape, A.dtype, apply(A), apply(A.T)), 4)
    np.testing.assert_allclose(result.values, np.linalg.svd(A, compute_uv=False)[:4], rtol=1e-13)
    assert result.products == sum(columns)
    with pytest.warns(ConvergenceWarning, match="not converged"):
        assert not singular_values(A, 4, max_products=10, subspace=8).converged
    with pytest.raises(InputError, match="k must lie from 1"):
        singular_values(A, 100)


@pytest.mark.parametrize("which", RANKS)
def test_the_smallest_subspace_ends(which):
    for name in ("random", "skew", "orthogonal"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = eigenpairs(MARKET[name], 1, which, subspace=5, max_products=300)
        assert result.products <= 330
    with pytest.raises(InputError, match="subspace must be at least k \\+ 4 = 5: got 4"):
        eigenpairs(MARKET["random"], 1, subspace=4)


def test_the_market_mostly_converges_where_eigenvalues_are_well_conditioned():
    for name in ("repeated", "identity", "zero", "rank one", "Hilbert", "equal moduli", "orthogonal", "skew", "clustered",
                 "random"):
        for k in (1, 6):
            assert eigenpairs(MARKET[name], k).converged
            assert singular_values(MARKET[name], k).converged


@pytest.fixture(scope="module")
def decaying():
    """A nonsymmetric 300 x 300 matrix with a spectrum that falls as a denoiser's does."""
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    S = Q @ np.diag(10 / np.arange(1, 301) ** 1.5) @ Q.T
    return S + 0.1 * S @ rng.standard_normal((300, 300)) / 17


def test_small_imaginary_parts_are_not_claimed(decaying):
    with pytest.warns(ConvergenceWarning, match="imaginary parts are too small"):
        assert not eigenpairs(decaying, 10, "LI").converged


@pytest.mark.parametrize("which", ["LM", "LR", "SR"])
def test_ten_pairs_are_right_to_1e_8(decaying, which):
    result = eigenpairs(decaying, 10, which, left=True)
    true = np.linalg.eigvals(decaying)
    scale = abs(true).max()
    assert result.converged
    assert all(abs(true - value).min() < 1e-8 * scale for value in result.values)
    ranks = np.sort(RANKS[which](true))[::-1][:len(result.values)]
    np.testing.assert_allclose(np.sort(RANKS[which](result.values))[::-1], ranks, atol=1e-8 * scale)
    distance = np.array([abs(true - value).min() for value in result.values])
    assert (distance <= result.errors).all()
    left = np.linalg.norm(decaying.T @ result.left.conj() - result.left.conj() * result.values, axis=0)
    assert left.max() < 1e-8 * scale
    w, L, R = scipy.linalg.eig(decaying, left=True)
    conditions = 1 / abs((L.conj() * R).sum(0))
    np.testing.assert_allclose(result.conditions, conditions[[abs(w - v).argmin() for v in result.values]], rtol=1e-4)


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


def test_what_the_certificate_costs_is_told(decaying):
    result = eigenpairs(decaying, 10)
    assert result.certificate == 1 + 10 + len(result.values)  # noise, search outside, residuals
    assert result.products - result.certificate < 50  # it stops where the wanted pairs converge


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


@pytest.mark.parametrize(("arguments", "message"), [
    ({"k": 0}, "k must lie from 1 to n = 300: got 0"), ({"k": 301}, "got 301"), ({"which": "XX"}, "unknown which 'XX'"),
    ({"which": "LI", "symmetric": True}, "real"), ({"rtol": 0}, "rtol must lie in"), ({"subspace": 5}, "at least k \\+ 4"),
])
def test_bad_input_is_refused(decaying, arguments, message):
    with pytest.raises(InputError, match=message):
        eigenpairs(decaying, **arguments)

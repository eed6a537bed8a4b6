"""Thousands of random structured matrices against dense truth: no certificate is wrong by more than
its stated errors.

A trial is a matrix, an operator that hides it, and a question; its seed makes all three. `pytest -m
exhaustive` asks 4,800, the normal run 200 others. Operators too large for a dense matrix are upper
bidiagonal, so that their spectrum is known: 800 and 2.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.linalg import LinearOperator

from jacobian_lab.krylov.eigen import eigenpairs
from jacobian_lab.krylov.operators import Operator
from jacobian_lab.krylov.schur import RANKS
from jacobian_lab.krylov.singular import singular_values

ALL, OFTEN, CHUNK = 5000, 200, 50


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def hidden(rng, T):
    """The same spectrum, in another order of the unknowns or another orthonormal basis."""
    n = len(T)
    if rng.random() < 0.5:
        order = rng.permutation(n)
        return T[np.ix_(order, order)]
    Q = orthogonal(rng, n)
    return Q @ T @ Q.T


def repeated(rng, n):
    """Few distinct values, many times each; the rest falls or is zero."""
    values = rng.integers(-8, 9, size=rng.integers(2, 8)) / 2
    spectrum = np.repeat(values, rng.integers(1, 5, size=len(values)))[:n]
    rest = n - len(spectrum)
    tail = np.zeros(rest) if rng.random() < 0.5 else spectrum.min() / 2 * 0.8 ** np.arange(rest)
    S = hidden(rng, np.diag(np.r_[spectrum, tail]))
    return (S + S.T) / 2


def repeated_nonsymmetric(rng, n):
    T = repeated(rng, n)
    X = np.eye(n) + 0.3 * rng.standard_normal((n, n)) / np.sqrt(n)
    return X @ T @ np.linalg.inv(X)


def clustered(rng, n):
    gap = 10.0 ** rng.integers(-12, -2)
    p = int(rng.integers(2, 7))
    S = hidden(rng, np.diag(np.r_[1 + gap * np.arange(p), 0.9 * rng.random(n - p)]))
    return (S + S.T) / 2


def permutation(rng, n):
    return np.eye(n)[rng.permutation(n)]


def circulant(rng, n):
    return scipy.linalg.circulant(rng.integers(-2, 3, n) * (rng.random(n) < 0.3) + 0.0)


def ring(rng, n):
    shift = np.roll(np.eye(n), 1, 0)
    return rng.choice([1.0, -1.0]) * (shift + shift.T) + rng.integers(0, 3) * np.eye(n)


def blur(rng, n):
    """A Gaussian blur on a torus: eigenvalues in fours and eights."""
    side = max(3, int(np.sqrt(n)))
    d = np.minimum(np.arange(side), side - np.arange(side))
    row = np.exp(-((d / rng.uniform(0.5, 2.5)) ** 2))
    return np.kron(scipy.linalg.circulant(row / row.sum()), scipy.linalg.circulant(row / row.sum()))


def grid(rng, n):
    side = max(3, int(np.sqrt(n)))
    L = 2 * np.eye(side) - np.eye(side, k=1) - np.eye(side, k=-1)
    return np.kron(L, np.eye(side)) + np.kron(np.eye(side), L)


def jordan(rng, n):
    blocks, left = [], n
    while left:
        size = min(left, int(rng.choice([1, 1, 1, 2, 3, 4])))
        blocks.append(rng.integers(-6, 7) / 4 * np.eye(size) + np.diag(np.ones(size - 1), 1))
        left -= size
    T = scipy.linalg.block_diag(*blocks)
    order = rng.permutation(n)
    return T[np.ix_(order, order)]


def shift(rng, n):
    return rng.choice([1.0, 0.5, 3.0]) * np.eye(n, k=int(rng.integers(1, 3)))


def demmel(rng, n):
    return (
        -np.diag(np.arange(1.0, n + 1) / n)
        + 10.0 ** rng.integers(1, 8) * np.triu(rng.standard_normal((n, n)), 1) / n
    )


def demmel_gallery(rng, n):
    return -np.eye(n) + np.triu(10.0 ** (4 * (np.arange(n)[None] - np.arange(n)[:, None]) / n), 1)


def triangular(rng, n):
    return np.diag(rng.integers(-8, 9, n) / 8) + rng.choice([0.05, 0.3, 1]) * np.triu(
        rng.standard_normal((n, n)), 1
    )


def grcar(rng, n):
    return scipy.linalg.toeplitz([1, -1, *[0] * (n - 2)], [1, 1, 1, 1, *[0] * n][:n]).astype(float)


def bull(rng, n):
    return scipy.linalg.toeplitz([0, 0, 1, 0.7, *[0] * n][:n], [0, 2j.imag, *[0] * n][:n]).astype(
        float
    )


def convection(rng, n):
    return scipy.linalg.toeplitz(
        [-2, rng.uniform(1, 3), *[0] * (n - 2)], [-2, rng.uniform(0.2, 1), *[0] * (n - 2)]
    )


def kahan(rng, n):
    s = np.sin(rng.uniform(0.8, 1.4))
    return np.diag(s ** np.arange(n)) @ (
        np.eye(n) - np.sqrt(1 - s**2) * np.triu(np.ones((n, n)), 1)
    )


def frank(rng, n):
    m = min(n, 12)
    F = np.array(
        [[0 if j < i - 1 else m - max(i, j) for j in range(m)] for i in range(m)], dtype=float
    )
    return scipy.linalg.block_diag(F, np.zeros((n - m, n - m)))


def clement(rng, n):
    k = np.arange(1.0, n)
    return np.diag(k, 1) + np.diag(k[::-1], -1)


def gaussian(rng, n):
    return rng.standard_normal((n, n)) / np.sqrt(n)


def decaying(rng, n):
    """As a denoiser's J: a falling spectrum and a skew part."""
    Q = orthogonal(rng, n)
    S = Q @ np.diag(1 / np.arange(1, n + 1) ** rng.uniform(0.5, 3)) @ Q.T
    return S + rng.choice([0, 0.1, 0.5]) * S @ gaussian(rng, n)


def rank_one(rng, n):
    u, v = rng.standard_normal((2, n))
    return np.outer(u, u if rng.random() < 0.3 else v - (u @ v) / (u @ u) * u * rng.integers(0, 2))


def zero(rng, n):
    return np.zeros((n, n))


def identity(rng, n):
    return np.diag(rng.choice([1.0, -1.0], n))


def projector(rng, n):
    Q = orthogonal(rng, n)[:, : rng.integers(1, n)]
    return Q @ Q.T


def skew(rng, n):
    a = gaussian(rng, n)
    return a - a.T


def rotation(rng, n):
    return orthogonal(rng, n)


def symmetric(rng, n):
    a = gaussian(rng, n)
    return a + a.T


def near_defective(rng, n):
    T = np.diag(np.linspace(0, 0.8, n))
    T[:2, :2] = [[1, 1], [10.0 ** rng.integers(-14, -2) * rng.choice([-1, 1]), 1]]
    return T


def two_cycles(rng, n):
    lengths = np.diff(np.r_[0, sorted(rng.integers(1, n, 3)), n])
    return scipy.linalg.block_diag(*[np.roll(np.eye(m), 1, 0) for m in lengths if m])


def blocks(rng, n):
    """Two of the others side by side."""
    make = rng.choice([m for m in FAMILIES if m is not blocks], 2)
    m = int(rng.integers(12, max(13, n - 12)))
    return scipy.linalg.block_diag(
        rng.choice([1.0, 0.5, 2.0]) * make[0](rng, m), make[1](rng, max(12, n - m))
    )


FAMILIES = (
    repeated,
    repeated,
    repeated_nonsymmetric,
    clustered,
    permutation,
    circulant,
    ring,
    blur,
    blur,
    grid,
    jordan,
    shift,
    demmel,
    demmel_gallery,
    triangular,
    grcar,
    bull,
    convection,
    kahan,
    frank,
    clement,
    gaussian,
    decaying,
    decaying,
    rank_one,
    zero,
    identity,
    projector,
    skew,
    rotation,
    symmetric,
    near_defective,
    two_cycles,
    blocks,
    blocks,
)


@dataclass
class Trial:
    """A matrix, the operator that hides it, and a question; truth and verdict."""

    seed: int

    def __post_init__(self):
        rng = self.rng = np.random.default_rng([12, self.seed])
        make = FAMILIES[self.seed % len(FAMILIES)]
        n = int(rng.choice([12, 20, 40, 100, 160, 240], p=[0.15, 0.2, 0.2, 0.2, 0.15, 0.1]))
        A = np.asarray(make(rng, n))
        self.single = rng.random() < 0.25
        self.scale = 2.0 ** int(
            rng.choice([0, 0, 0, *((-90, 90) if self.single else (-990, -300, 300, 990))])
        )
        if self.single:
            A = A.astype(np.float32).astype(np.float64)
        self.A = A
        self.n = len(A)
        self.is_symmetric = bool((A == A.T).all())
        self.which = str(rng.choice(list(RANKS)))
        self.promise = self.is_symmetric and self.which != "LI" and bool(rng.random() < 0.5)
        self.truth()
        self.k = self.count()
        self.options = self.chosen()
        self.block = (2, 1, 2, 3, 8)[self.seed % 5]
        self.name = (
            f"seed {self.seed}: {make.__name__}, n {self.n},"
            f" {'float32' if self.single else 'float64'}, scale {self.scale:.0e}, k {self.k},"
            f" {self.which}, symmetric {self.promise}, block {self.block}, {self.options},"
            f" {self.form}"
        )

    def truth(self):
        A, eps = self.A, np.finfo(float).eps
        if self.is_symmetric:
            self.true = np.linalg.eigvalsh(A).astype(complex)
            self.slack = np.full(self.n, 10 * eps * np.sqrt(self.n) * np.linalg.norm(A, 2))
        elif not np.tril(A, -1).any() or not np.triu(A, 1).any():
            self.true, self.slack = np.diag(A).astype(complex), np.zeros(self.n)
        else:
            self.true, left, right = scipy.linalg.eig(A, left=True)
            with np.errstate(divide="ignore"):
                conditions = 1 / abs((left.conj() * right).sum(0))
            self.slack = np.minimum(10 * eps * np.sqrt(self.n) * conditions, 2) * np.linalg.norm(
                A, 2
            )

    def count(self):
        """At, below or above a multiplicity, or any small number."""
        ranks = np.sort(RANKS[self.which](self.true))[::-1]
        steps = np.flatnonzero(np.diff(ranks) < -1e-8 * abs(ranks).max()) + 1
        near = [k for s in steps[:6] for k in (s - 1, s, s + 1) if 1 <= k <= min(self.n, 30)]
        return (
            int(self.rng.choice(near))
            if near and self.rng.random() < 0.6
            else int(self.rng.integers(1, min(self.n, 12)))
        )

    def chosen(self):
        options = [
            {},
            {},
            {},
            {"subspace": self.k + 4 + int(self.rng.integers(0, 10))},
            {"subspace": 3 * self.k + 20},
            {"max_products": int(self.rng.integers(5, 2 * self.n + 20))},
            {"left": True},
            {"rtol": 1e-5},
        ]
        self.form = str(self.rng.choice(["matrix", "operator", "foreign", "no transpose"]))
        if self.single:
            self.form = "operator"
        found = options[self.rng.integers(len(options))]
        return {} if self.form == "no transpose" and "left" in found else found

    def operator(self):
        M = (self.A * self.scale).astype(np.float32 if self.single else np.float64)
        if self.form == "matrix":
            return M
        if self.form == "operator":
            return Operator(
                M.shape, M.dtype, lambda V: M @ V.astype(M.dtype), lambda U: M.T @ U.astype(M.dtype)
            )
        back = None if self.form == "no transpose" else (lambda u: (u[None] @ M)[0])
        return LinearOperator(
            M.shape, matvec=lambda v: (M @ v[:, None])[:, 0], rmatvec=back, dtype=M.dtype
        )

    def eigen(self):
        """Return whether it converged, and how far beyond the stated errors it is wrong, relative
        to A.
        """
        result = eigenpairs(
            self.operator(),
            self.k,
            self.which,
            symmetric=self.promise,
            seed=self.seed,
            block=self.block,
            **self.options,
        )
        assert result.products <= self.options.get("max_products", np.inf), self.name
        if not result.converged:
            return False, 0.0
        values, errors = result.values / self.scale, result.errors / self.scale
        assert len(values) in (self.k, self.k + 1), self.name
        excess = np.maximum(abs(values[:, None] - self.true) - errors[:, None] - self.slack, 0)
        wrong = excess[linear_sum_assignment(excess)].max()
        rank = RANKS[self.which]
        reached = np.sort(rank(values) + errors)[::-1]
        wanted = np.sort(rank(self.true) - self.slack)[::-1][: len(values)]
        return True, max(wrong, (wanted - reached).max()) / max(np.linalg.norm(self.A, 2), 1e-300)

    def singular(self):
        """The same of singular values."""
        if self.form == "no transpose":
            return False, 0.0
        true = np.linalg.svd(self.A, compute_uv=False)
        k = min(self.k, self.n)
        limits = {
            name: max(value, 16)
            for name, value in self.options.items()
            if name in ("subspace", "max_products")
        }
        result = singular_values(self.operator(), k, seed=self.seed, block=self.block, **limits)
        assert result.products <= limits.get("max_products", np.inf), self.name
        if not result.converged:
            return False, 0.0
        excess = abs(result.values / self.scale - true[:k]) - result.errors / self.scale
        return True, excess.max() / max(true[0], 1e-300) - 1e-14


def ask(first, count):
    """Return how many of both kinds converged, and what is wrong."""
    converged, faults = np.zeros(2, dtype=int), []
    for seed in range(first, first + count):
        trial = Trial(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i, (kind, question) in enumerate(
                [("eigenpairs", trial.eigen), ("singular values", trial.singular)]
            ):
                if kind == "singular values" and seed % 3:
                    continue
                sure, excess = question()
                converged[i] += sure
                if excess > 1e-13:
                    faults.append(f"{kind} off by {excess:.1e} more than stated: {trial.name}")
    return converged, faults


@pytest.mark.parametrize("chunk", range(OFTEN // CHUNK))
def test_no_certificate_is_wrong(chunk):
    converged, faults = ask(chunk * CHUNK, CHUNK)
    assert not faults, "\n".join(faults)
    assert converged[0] > CHUNK / 2
    assert converged[1] > CHUNK / 8


@pytest.mark.exhaustive
@pytest.mark.parametrize("chunk", range(OFTEN // CHUNK, ALL // CHUNK))
def test_no_certificate_of_thousands_is_wrong(chunk):
    test_no_certificate_is_wrong(chunk)


def large(seed):
    """Return whether eigenpairs of a bidiagonal operator converged, and by how much more than
    stated they err.

    A few copied or clustered values lie at the top; their neighbours on the diagonal make them
    nearly defective.
    """
    rng = np.random.default_rng([5, seed])
    n = int(rng.choice([600, 2000, 6000, 20000]))
    p = int(rng.integers(2, 8))
    values = np.sort(rng.choice(np.arange(1, 13) / 12, p, replace=False))[::-1] * 2 + 0.5
    top = np.repeat(values, rng.integers(1, 5, p))
    kind, m = rng.integers(4), n - len(top)
    tail = [
        np.zeros(m),
        rng.random(m) * 0.5 * rng.choice([0.5, 0.99, 1.0]),
        0.5 * 0.9 ** np.arange(m),
        np.repeat(rng.random(m // 3 + 1) * 0.5, 3)[:m],
    ][kind]
    if rng.random() < 0.3:
        top = top * (1 - 10.0 ** rng.integers(-10, -2) * rng.random(len(top)))
    d = np.r_[top, tail] * rng.choice([1, -1])
    if rng.random() < 0.2:
        d[: len(top)] *= rng.choice([1, -1], len(top))
    above = np.zeros(n - 1)
    symmetric = bool(rng.random() < 0.5)
    if not symmetric and rng.random() < 0.6:
        above = rng.choice([0.01, 0.1, 0.5]) * rng.standard_normal(n - 1)
    A = scipy.sparse.diags_array([d, above], offsets=[0, 1]).tocsr()
    operator = Operator((n, n), np.float64, lambda V: A @ V, lambda U: A.T @ U)
    which, k = str(rng.choice(["LM", "LR", "SR", "LM"])), int(rng.integers(1, 10))
    limits = {}
    if rng.random() >= 0.7:
        limits = {"subspace": k + 4 + int(rng.integers(0, 30)), "max_products": 1500}
    elif n <= 2000:
        limits = {"max_products": n // 2}
    result = eigenpairs(operator, k, which, symmetric=symmetric, seed=seed, **limits)
    rank = RANKS[which]
    reached = np.sort(rank(result.values) + result.errors)[::-1]
    missed = (np.sort(rank(d))[::-1][: len(reached)] - reached).max()
    off = max(abs(d - z).min() - e for z, e in zip(result.values, result.errors, strict=True))
    return result.converged, max(missed, off)


def ask_large(seeds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = [(seed, *large(seed)) for seed in seeds]
    assert not [
        (seed, f"{excess:.1e}") for seed, sure, excess in answers if sure and excess > 1e-12
    ]
    return sum(sure for _, sure, _ in answers)


def test_no_certificate_of_a_large_operator_is_wrong():
    """Seed 108: near-defective values 1.4e-6 below a wanted one, seen as one 1.4e-4 away. 651: one
    product left to look.
    """
    assert ask_large([108, 651]) >= 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("chunk", range(16))
def test_no_certificate_of_hundreds_of_large_operators_is_wrong(chunk):
    assert ask_large(range(CHUNK * chunk, CHUNK * chunk + CHUNK)) >= CHUNK / 2

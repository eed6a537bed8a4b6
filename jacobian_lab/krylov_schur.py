r"""Restarted Krylov-Schur iterations: the wanted part of the spectrum, and a search for what it missed.

    A Q_m = Q_m T + q_{m+1} b^T    ->   keep the wanted part of the Schur form T, extend, repeat

It ends as soon as the wanted part of b is below the tolerance: that is looked at while the space grows. Then the search goes on
from a random vector outside the space found, so that no copy of a repeated eigenvalue, and nothing that the start vector was
blind to, is missed.

References
----------
Stewart (2002), *A Krylov-Schur algorithm for large eigenproblems*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from jacobian_lab.arnoldi import Arnoldi

Array: TypeAlias = NDArray[np.float64]
Complex: TypeAlias = NDArray[np.complex128]
Which: TypeAlias = Literal["LM", "LR", "SR", "LI"]
RANKS: dict[str, Callable[[Any], Any]] = {"LM": np.abs, "LR": np.real, "SR": lambda z: -np.real(z), "LI": lambda z: abs(z.imag)}
"""What the wanted eigenvalues have most of."""
OUTSIDE = 10
"""Fewest steps of the search for what was missed."""
GAP = 1e-3
"""Of |A|: wanted eigenvalues that are nearer to the rest take the largest space."""
PLAIN = 100.0
"""Condition numbers above it take the largest space."""
SAFETY = 0.1
"""Of the tolerance: where the iteration ends, since the residual that it knows is not the one that is recomputed."""


class KrylovSchur:
    """The iteration on a factorisation, whose leading part becomes the wanted Schur form.

    Parameters
    ----------
    factorisation : Arnoldi
        Of at most two steps.
    k, which, symmetric, rtol
        As in `jacobian_lab.spectrum.eigenpairs`.

    Attributes
    ----------
    T, basis : array
        The wanted Schur form (p, p), k or k + 1 values, and its orthonormal Schur vectors (n, p): `A basis = basis T`.
    projected : array
        A on the largest space at the end: what lies outside bears on the conditioning.
    size : float
        |A| on the largest space seen.
    rounding : float
        Of a product with A, relative to its size: measured, and at least eps sqrt(n) of A's dtype.
    found : int
        Products spent when the pairs that are returned converged; those after it were for the search outside.
    """

    def __init__(self, factorisation: Arnoldi, k: int, which: Which, symmetric: bool, rtol: float) -> None:
        self.factorisation, self.k, self.which, self.symmetric = factorisation, k, which, symmetric
        self.rtol, self.rounding = rtol, _rounding(factorisation)
        self.size, self.found = 0.0, 0
        self.T, self.basis, self.projected = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0))

    @property
    def tolerance(self) -> float:
        """What residuals are held against."""
        return max(self.rtol, self.rounding) * self.size

    @property
    def noise(self) -> float:
        """Absolute size of the rounding in a product."""
        return self.rounding * self.size

    def run(self, m: int, limit: int) -> bool:
        """Iterate in spaces of up to m steps; return whether the wanted part converged and nothing better lies outside."""
        f, worst_found = self.factorisation, -np.inf
        while True:
            Z, count, coupling = self._extend(m)
            if f.exhausted:
                self.found = f.products
                return True
            if np.linalg.norm(coupling[:count]) > SAFETY * self.tolerance:
                if f.products >= limit:
                    return False
                kept = _whole(self.projected, count + (f.steps - count) // 2)
                f.restart(Z[:, :kept], self.projected[:kept, :kept], coupling[:kept])
                continue
            worst = self._worst(self.T)
            if worst <= worst_found + 2 * self.tolerance:
                return True  # the search outside added nothing
            worst_found, self.found = worst, f.products
            if f.products >= limit:
                return False
            elsewhere = np.random.default_rng([f.seed, f.products]).standard_normal(f.size)
            f.restart(Z[:, :count], self.T, coupling[:count], elsewhere)
            m = min(max(m, count + OUTSIDE), f.size)
            f.extend(min(max(OUTSIDE, count), m - f.steps))
            self.projected = f.projected
            _, T, count = self._schur()
            if self._worst(T[:count, :count]) <= worst + 2 * self.tolerance:
                return True

    def _extend(self, m: int) -> tuple[Array, int, Array]:
        """Take steps until the wanted part converges, at most up to m; return Z, how many are wanted, and their coupling."""
        f = self.factorisation
        f.extend(min(max(self.k + 2 - f.steps, 0), m - f.steps))
        while True:
            Z, T, count = self._schur()
            coupling = f.coupling @ Z
            left = float(np.linalg.norm(coupling[:count]))
            if f.steps >= m or (left <= SAFETY * self.tolerance and self._is_plain(T, count)):
                self.T, self.basis, self.projected = T[:count, :count], f.basis[:, :f.steps] @ Z[:, :count], T
                return Z, count, coupling
            f.extend(min(2 if left > self.tolerance else 1, m - f.steps))

    def _is_plain(self, T: Array, count: int) -> bool:
        """Return whether a small space can be trusted: the wanted values lie apart, and all are well conditioned."""
        rank, values = RANKS[self.which], schur_values(T)
        apart = rank(values[:count]).min() - rank(values[count:]).max() >= GAP * self.size
        return bool(apart and (self.symmetric or conditions_of(T, values).max() <= PLAIN))

    def _worst(self, T: Array) -> float:
        return float(RANKS[self.which](schur_values(T)).min())

    def _schur(self) -> tuple[Array, Array, int]:
        """Return Z, T = Z^T (projected) Z with the most wanted first, and how many of them are wanted (pairs kept whole)."""
        H = self.factorisation.projected
        self.size = max(self.size, float(np.linalg.norm(self.factorisation.hessenberg, 2)))
        if self.symmetric:
            values, Z = scipy.linalg.eigh((H + H.T) / 2, driver="ev")  # numpy's wakes threads that slow the next product
            order = np.argsort(-RANKS[self.which](values), kind="stable")
            return Z[:, order], np.diag(values[order]), min(self.k, len(H))
        T, Z = scipy.linalg.schur(H, output="real")
        values = schur_values(T)
        order = np.argsort(-RANKS[self.which](values), kind="stable")
        count, taken = 0, np.zeros(len(values), dtype=np.int32)
        for i in order:  # one after the other to the front: the most wanted first
            if not taken[i]:
                taken[[i, i + (values[i].imag > 0) - (values[i].imag < 0)]] = 1
                count = int(taken.sum())
            if count >= min(self.k, len(values)):
                break
        T, Z = _reordered(T, Z, taken)
        middle = RANKS[self.which](schur_values(T[count:, count:]))
        rest = np.zeros(len(values), dtype=np.int32)
        rest[:count] = 1
        if len(middle):  # what is kept beyond the wanted: the better half of the rest
            rest[count:] = middle >= np.median(middle)
            T, Z = _reordered(T, Z, rest)
        return Z, T, count


def schur_values(T: Array) -> Complex:
    """Return the eigenvalues of a real Schur form in the order of its diagonal."""
    values = np.diag(T).astype(np.complex128)
    for i in np.flatnonzero(np.diag(T, -1)):
        root = np.sqrt(abs(T[i, i + 1] * T[i + 1, i]))
        values[i], values[i + 1] = T[i, i] + 1j * root, T[i, i] - 1j * root
    return values


def conditions_of(T: Array, values: Complex) -> Array:
    """Return `1 / |y^H x|` of the eigenvalues of T nearest to the values."""
    own, left, right = scipy.linalg.eig(T, left=True)
    with np.errstate(divide="ignore"):
        conditions = 1 / np.abs((left.conj() * right).sum(0))
    nearest = np.abs(own[None] - values[:, None]).argmin(1)
    return np.asarray(np.minimum(conditions[nearest], 1 / np.finfo(float).eps))


def _reordered(T: Array, Z: Array, select: NDArray[np.int32]) -> tuple[Array, Array]:
    """Move the selected eigenvalues of a real Schur form to the front."""
    T, Z, *_ = scipy.linalg.lapack.dtrsen(select, T, Z, job="N")
    return T, Z


def _whole(T: Array, p: int) -> int:
    """Return p, or p + 1 where a conjugate pair would be cut."""
    return p + 1 if 0 < p < len(T) and T[p, p - 1] != 0 else p


def _rounding(f: Arnoldi) -> float:
    """Return the rounding of a product relative to its size: `A (q1 + q2)` against the two columns known, at one product."""
    n, dtype = f.size, np.dtype(f.operator.operator.dtype)
    floor = float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps) * np.sqrt(n)
    f.extend(2 - f.steps)
    known = f.basis @ f.hessenberg[:, :2].sum(axis=1)
    size = float(np.linalg.norm(f.hessenberg[:, :2]))
    fresh = f.operator.matvec(f.basis[:, :2].sum(axis=1)) if f.steps > 1 else known
    return max(floor, float(np.linalg.norm(fresh - known)) / size if size else 0.0)

r"""Restarted Krylov-Schur iterations: the wanted part of the spectrum, and a search for what it
missed.

    A Q_m = Q_m T + (q_{m+1} ... q_{m+b}) B    ->   keep the wanted part of the Schur form T, extend

The iteration converges when the wanted part of B falls below the tolerance. A search then starts
from b random vectors outside the space found and ends when the best Ritz values there have settled
below the wanted ones. With b > 1 the space itself shows b copies of a repeated eigenvalue: where
fewer are seen, and the others have settled, there is nothing to search for.

Departures from the textbook, by the numbers in the code:

    [1] convergence is tested while the space grows, not only when it is full
    [2] the iteration aims below the tolerance: the recurrence's residual can be smaller than the
        recomputed one
    [3] a small space is trusted only if its eigenvalues lie apart and are well conditioned
    [4] the search outside the space found: it finds further copies of repeated eigenvalues, and
        eigenvectors to which the start vector was orthogonal
    [5] the whole space is completed by blocks of products where that costs less than the search
    [6] for the imaginary parts only the whole space counts as converged
    [7] blocks take the search's place where the wanted values lie apart and are well conditioned

References
----------
Stewart (2002), *A Krylov-Schur algorithm for large eigenproblems*.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from jacobian_lab.errors import InputError
from jacobian_lab.krylov.restarting import RestartedArnoldi
from jacobian_lab.krylov.schur import (
    RANKS,
    Which,
    conditions_of,
    has_settled,
    ordered_schur,
    schur_values,
    whole_pairs,
)

Array: TypeAlias = NDArray[np.float64]
OUTSIDE = 8
"""Fewest steps of the search for missed eigenvalues: fewer show a copy of an eigenvalue only in
part. Found by tests on repeated eigenvalues.
"""
GAP = 1e-3
"""Relative to |A|: wanted eigenvalues nearer than this to the others are sought in the largest
space. A safety factor.
"""
PLAIN = 100.0
"""Eigenvalues of larger condition number are sought in the largest space. A safety factor."""
SAFETY = 0.1
"""The iteration stops at SAFETY * tolerance: the recurrence's residual can be smaller than the
recomputed one.
"""


class KrylovSchur:
    """The iteration on a factorisation, in its units; the leading part becomes the wanted Schur
    form.

    Parameters
    ----------
    factorisation : RestartedArnoldi
        Two steps at most are done.
    k, which, symmetric, rtol
        As in `jacobian_lab.krylov.eigen.eigenpairs`.
    room : int
        Steps of the largest space that is stored.
    limit : int
        Most products that the iteration spends.
    whole : bool
        Whether the space may be completed to the whole one.

    Attributes
    ----------
    T, basis : array
        The wanted Schur form (p, p), k or k + 1 values, and its orthonormal Schur vectors (n, p):
        `A basis = basis T`.
    projected : array
        A on the largest space at the end, in Schur form, the wanted part first: the conditioning
        depends on the rest, too.
    size : float
        |A| on the largest space seen.
    rounding : float
        Rounding of a product with A relative to its size: measured, and at least the one stated by
        the operator.
    doubt : float
        How far a value outside may exceed a wanted one where the two agree to the tolerance; else
        0.
    found : int
        Products spent when the returned pairs converged; the search outside took the later ones.
    """

    def __init__(
        self,
        factorisation: RestartedArnoldi,
        k: int,
        which: Which,
        symmetric: bool,
        rtol: float,
        room: int,
        limit: int,
        whole: bool,
    ) -> None:
        self.factorisation, self.k, self.which, self.symmetric = factorisation, k, which, symmetric
        self.rtol, self.rounding = rtol, _rounding(factorisation)
        self.room, self.limit, self.whole = room, limit, whole
        self.size, self.doubt, self.found = 0.0, 0.0, 0
        self.T, self.basis, self.projected = np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0))
        self._first: tuple[Array, Array] | None = None

    @property
    def tolerance(self) -> float:
        """What residuals are held against."""
        return max(self.rtol, self.rounding) * self.size

    @property
    def noise(self) -> float:
        """Absolute size of the rounding in a product."""
        return self.rounding * self.size

    def run(self) -> bool:
        """Iterate; return whether the wanted part converged and nothing better lies outside."""
        f = self.factorisation
        if self.which == "LI" and self.complete():  # [6]
            return True
        while True:
            Z, count, coupling = self._extend()
            if f.exhausted:
                self.found = f.products
                return True
            if np.linalg.norm(coupling[:, :count]) > SAFETY * self.tolerance:  # [2]
                if f.steps >= self.room and self.complete():
                    return True
                if f.products >= self.limit:
                    return False
                self._shrink(Z, self.projected, count, coupling)
                continue
            if self.which == "LI":
                # [6] the interior of a spectrum may hold more until the space is exhausted
                return False
            # [7], [5]
            if self._shows_all(coupling, count) or (4 * f.steps > f.size and self.complete()):
                return True
            settled = self._search(Z, count, coupling)
            if settled is not None:
                return settled

    def complete(self) -> bool:
        """Complete the space to the whole one, and decompose it; return whether that is within the
        limits.
        """
        f = self.factorisation
        steps = f.steps if self._first is None else max(f.steps, self._first[1].shape[1])
        if not self.whole or f.products + f.size - steps > self.limit:
            return False
        if self._first is not None and steps > f.steps:
            f.resume(*self._first)
        f.exhaust()
        Z, T, count = self._schur()
        self.T, self.basis, self.projected = T[:count, :count], f.basis @ Z[:, :count], T
        self.doubt, self.found = 0.0, f.products
        return True

    def _extend(self) -> tuple[Array, int, Array]:
        """Take steps until the wanted part converges, within the limits; return Z, how many are
        wanted, and their coupling.
        """
        f, self.found = self.factorisation, 0
        self._steps(self.k + 2 - f.steps)
        while True:
            Z, T, count = self._schur()
            coupling = f.in_units[1] @ Z
            left = float(np.linalg.norm(coupling[:, :count]))
            self.projected, self.T = T, T[:count, :count]
            near = left <= SAFETY * self.tolerance  # [1], [2]
            self.found = (self.found or f.products) if near else 0
            if near:
                many = f.steps >= f.block * (3 * self.k + 20)  # [3]
                alone = f.block == 1 or self._copies() >= f.block
                near = many or (
                    self._is_plain(T, count) and (alone or self._shows_all(coupling, count))
                )
            if f.steps >= self.room or f.products >= self.limit or near:
                self.basis = f.basis[:, : f.steps] @ Z[:, :count]
                return Z, count, coupling
            self._steps(max(2 if left > self.tolerance else 1, f.steps // 16))

    def _search(self, Z: Array, count: int, coupling: Array) -> bool | None:
        """Search outside the wanted space; return whether it settled within the limits, or None if
        it found better values.
        """
        f, best, self.doubt = self.factorisation, self._ranks(self.T), 0.0
        if self.whole and self._first is None:
            self._first = f.snapshot()
        # [4] random vectors have a part along everything that the space found lacks
        rng = np.random.default_rng([f.seed, f.products, f.size, 1])
        f.restart(Z[:, :count], self.T, coupling, rng.standard_normal((f.size, f.block)))
        fewest = OUTSIDE * f.block
        self.room = min(max(self.room, count + fewest), f.size)
        before = f.steps
        self._steps(fewest)
        if not f.exhausted and f.steps < before + fewest:
            return False  # the limit leaves too few steps
        while True:
            Z, T, count = self._schur()
            coupling, now = f.in_units[1] @ Z, self._ranks(T[:count, :count])
            if len(now) > len(best) or (now > best + 2 * self.tolerance).any():
                return None
            if f.exhausted or self._is_settled(T[count:, count:], coupling[:, count:], best[-1]):
                self.projected, self.doubt = T, max(self.doubt, float((now - best).max()))
                return True
            if f.products - self.found > f.size // 8 and self.complete():  # [5]
                return True
            if f.products >= self.limit:
                return False
            if f.steps >= self.room:
                self._shrink(Z, T, count, coupling)
            self._steps(max(1, f.steps // 16))

    def _is_settled(self, T: Array, coupling: Array, worst: float) -> bool:
        """Return whether the Ritz values outside show that no eigenvalue there is better than the
        worst of the wanted.
        """
        settled, doubt = has_settled(T, coupling, RANKS[self.which], worst, self.tolerance)
        self.doubt = doubt or self.doubt
        return settled

    def _steps(self, steps: int) -> None:
        f = self.factorisation
        whole = -(-steps // f.block) * f.block
        f.extend(max(0, min(whole, self.room - f.steps, self.limit - f.products)))

    def _shrink(self, Z: Array, T: Array, count: int, coupling: Array) -> None:
        """Restart with the wanted part and the better half of the rest."""
        f = self.factorisation
        kept = whole_pairs(T, count + (f.steps - count) // 2)
        f.restart(Z[:, :kept], T[:kept, :kept], coupling[:, :kept])

    def _shows_all(self, coupling: Array, count: int) -> bool:
        """Return whether blocks show that nothing better lies outside [7]: the wanted values are
        plain, fewer than a block's vectors lie close to each other, and the others have settled.
        """
        T, self.doubt = self.projected, 0.0
        return (
            self._copies() < self.factorisation.block
            and self._is_plain(T, count)
            and self._is_settled(T[count:, count:], coupling[:, count:], self._ranks(self.T)[-1])
        )

    def _copies(self) -> int:
        """Return how many wanted values lie close to one of them, itself included."""
        values = schur_values(self.T)
        return int((abs(values - values[:, None]) <= GAP * self.size).sum(0).max())

    def _is_plain(self, T: Array, count: int) -> bool:
        """Return whether a small space can be trusted [3]: the wanted values lie apart from the
        others, and all are well conditioned.
        """
        rank, values = RANKS[self.which], schur_values(T)
        if count == len(values):
            return False
        apart = rank(values[:count]).min() - rank(values[count:]).max() >= GAP * self.size
        return bool(apart and (self.symmetric or conditions_of(T)[1].max() <= PLAIN))

    def _ranks(self, T: Array) -> Array:
        """Return the ranks of the k most wanted eigenvalues of a Schur form, falling."""
        return np.sort(RANKS[self.which](schur_values(T)))[::-1][: self.k]

    def _schur(self) -> tuple[Array, Array, int]:
        """Return Z, T = Z^T (projected) Z with the most wanted first, and how many of them are
        wanted (pairs kept whole).
        """
        H, coupling = self.factorisation.in_units
        self.size = max(self.size, float(np.linalg.norm(np.vstack([H, coupling]), 2)))
        if self.symmetric:
            skew, even = float(np.linalg.norm(H - H.T)), float(np.linalg.norm(H + H.T))
            drift = np.finfo(float).eps * self.factorisation.size * self.size  # of restarts
            if skew > 20 * max(self.tolerance, drift):
                raise InputError(
                    "symmetric=True, but the operator is not symmetric: |A - A^T| / |A + A^T| is"
                    f" {skew / even if even else np.inf:.1e} on a space of {len(H)} vectors; take"
                    " its symmetric_part, or symmetric=False"
                )
            # numpy's eigh starts threads that slow the next product down
            values, Z = scipy.linalg.eigh((H + H.T) / 2, driver="ev")
            order = np.argsort(-RANKS[self.which](values), kind="stable")
            return Z[:, order], np.diag(values[order]), min(self.k, len(H))
        return ordered_schur(H, self.k, RANKS[self.which])


def _rounding(f: RestartedArnoldi) -> float:
    """Return the rounding of a product relative to its size: `A (q1 + q2)` against the two columns
    known, at one product.
    """
    f.extend(2 - f.steps)
    H = np.vstack(f.in_units)
    known = f.basis[:, : H.shape[0]] @ H[: f.basis.shape[1]].sum(axis=1)
    size = float(np.linalg.norm(H))
    fresh = f.operator.matvec(f.basis[:, :2].sum(axis=1)) if f.steps > 1 else known
    return max(f.operator.rounding, float(np.linalg.norm(fresh - known)) / size if size else 0.0)

r"""The Arnoldi factorisation of a real operator: the Krylov space, its orthonormal basis, and the
operator on it.

    A Q_m = Q_{m+b} H_m,    Q^T Q = I

With blocks of b = 1, H_m, (m + 1) x m, is upper Hessenberg after a plain run; with larger ones,
where a pass takes b vectors at once, it has 2 b - 1 subdiagonals. After a restart
(`jacobian_lab.krylov.restarting`) its leading columns are full, and the equation is the same.
Linear algebra only: A is any matrix or `LinearOperator`.

Departures from the textbook, by the numbers in the code:

    [1] after a breakdown the space goes on with a random vector, and H has a zero subdiagonal entry
    [2] the basis can be completed to the whole space by blocks of products, which are not iterates
    [3] products are divided by a power of two if squares of their entries would over- or underflow
    [4] the step counter moves last, so that an exception in a product leaves a valid factorisation
    [5] a block may be taken in parts: the vectors that are left wait for the next pass

>>> import numpy as np
>>> A = np.diag([5.0, 4.0, 1.0, 0.1])
>>> f = arnoldi(A, 3)
>>> bool(np.linalg.norm(A @ f.basis[:, :3] - f.basis @ f.hessenberg) < 1e-14)
True

References
----------
Arnoldi (1951), *The principle of minimized iterations*; Giraud, Langou, Rozloznik (2005), *The loss
of orthogonality in the Gram-Schmidt process*: twice is enough; Gutknecht (2007), *Block Krylov
space methods for linear systems with multiple right-hand sides*: ranks that fall.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import _require
from jacobian_lab._files import save_arrays
from jacobian_lab.krylov.conversion import square
from jacobian_lab.krylov.counting import Counted
from jacobian_lab.krylov.gram_schmidt import orthogonal_to, project_out, ranked, unit_vector
from jacobian_lab.krylov.operators import AUDIT
from jacobian_lab.krylov.storage import check_same, fingerprint, read

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
"""Rounding of the basis, which is in float64 whatever the operator."""


class Arnoldi:
    """`A Q_m = Q_{m+b} H_m`, extended step by step; the basis is in float64 even over a float32
    operator.

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
        Real.
    start : array, shape (n,), optional
        First basis vector, up to its length; random by default.
    seed : int
        Seed of the random vectors: the start, and those after breakdowns.
    block : int
        b, the vectors of a pass, at most n; the others of the first block are random.

    Attributes
    ----------
    steps : int
        m, the steps done, a vector each. An exception in the middle of a pass leaves the steps
        before it.
    products : int
        Products with A spent.
    unit : float
        The power of two in whose multiples it computes: 1, unless the operator is so large or so
        small that squares of the entries of its products would overflow or underflow.
    breakdowns : list of int
        Steps at which the Krylov space was invariant, or the block lost a rank: a subdiagonal entry
        is zero, and a random vector orthogonal to the basis went on. m = n is the last.
    """

    def __init__(
        self,
        A: LinearOperator | NDArray[Any],
        start: ArrayLike | None = None,
        seed: int = 0,
        block: int = 1,
    ) -> None:
        self.operator = Counted(square(A), scaled=True)  # [3]
        self.size, self.seed, self.steps = self.operator.shape[0], _require.seed(seed), 0
        self.block = _require.integer("block", block, 1, self.size, "n")
        self.breakdowns: list[int] = []
        self._Q, self._H = np.zeros((self.size, self.block)), np.zeros((self.block, 0))
        self._Q[:, 0] = self._random(0) if start is None else unit_vector(start, self.size)
        for i in range(1, self.block):
            self._Q[:, i] = self._random(i)

    @property
    def products(self) -> int:
        """Products with A spent."""
        return self.operator.products

    @property
    def unit(self) -> float:
        """The power of two in whose multiples it computes."""
        return self.operator.unit

    @property
    def exhausted(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.steps == self.size

    @property
    def basis(self) -> Array:
        """Q_{m+b}, shape (n, m + b), and at most (n, n)."""
        return self._Q[:, : self._rows]

    @property
    def hessenberg(self) -> Array:
        """H_m, shape (m + b, m), and at most (n, n)."""
        return self._H[: self._rows, : self.steps] * self.unit

    @property
    def projected(self) -> Array:
        """Q_m^T A Q_m, shape (m, m): its eigenvalues are the Ritz values."""
        return self._H[: self.steps, : self.steps] * self.unit

    @property
    def coupling(self) -> Array:
        """The last rows of H_m, shape (m,), or (b, m) with larger blocks: `A Q_m = Q_m (projected)
        + (q_{m+1} ... q_{m+b}) (coupling)`; zero, or none, at m = n.
        """
        coupling = self.in_units[1] * self.unit
        return coupling if self.block > 1 else coupling.sum(0)

    def extend(self, steps: int) -> Arnoldi:
        """Take `steps` more steps from where it stopped, as far as m = n; return itself."""
        steps = _require.integer("steps", steps, 0)
        goal = min(self.steps + steps, self.size)
        self._make_room(goal)
        while self.steps < goal:
            self._step(min(self.block, goal - self.steps))  # [5]
        return self

    def exhaust(self, block: int = 64) -> Arnoldi:
        """Complete the basis to the whole space by products with `block` vectors at once; return
        itself.

        `projected` is then A in another orthonormal basis, n products in all; H is no longer upper
        Hessenberg.
        """
        block = _require.integer("block", block, 1)
        m, n = self.steps, self.size
        if m == n:
            return self
        # [2] the last columns of a full QR are an orthonormal basis of the complement
        known = self._rows
        rest = scipy.linalg.qr(self._Q[:, :known], mode="full")[0][:, known:]
        self._make_room(n)
        self._Q[:, known:] = rest
        for first in range(m, n, block):
            columns = slice(first, min(first + block, n))
            image = self.operator.matmat(self._Q[:, columns])
            _require.finite(f"the product of step {first + 1}", image, AUDIT)
            self._H[:n, columns] = self._Q.T @ image
        self.breakdowns.append(n)
        self.steps = n
        return self

    @property
    def in_units(self) -> tuple[Array, Array]:
        """`projected`, and the coupling as a matrix, (b, m), divided by `unit`, as it stores them:
        not to be written to.
        """
        m = self.steps
        return self._H[:m, :m], self._H[m : self._rows, :m]

    def ritz(self) -> tuple[NDArray[np.complex128], Array]:
        """Return the Ritz values, by falling modulus, and the residual norms `|A x - theta x|` that
        the recurrence implies.
        """
        projected, coupling = self.in_units
        values, vectors = np.linalg.eig(projected)
        order = np.argsort(-abs(values), kind="stable")
        return (
            values[order].astype(np.complex128) * self.unit,
            np.linalg.norm(coupling @ vectors, axis=0)[order] * self.unit,
        )

    def save(self, path: str | Path) -> None:
        """Write the factorisation to a .npz file, whole or not at all, with a checksum.

        A is not stored: one more product, with a random vector, tells it apart from others when the
        file is loaded.
        """
        save_arrays(
            Path(path),
            {
                "basis": self.basis,
                "hessenberg": self.hessenberg,
                "seed": self.seed,
                "block": self.block,
                "probe": fingerprint(self.operator),
                "products": self.products,
                "breakdowns": np.array(self.breakdowns, dtype=np.int64),
            },
            compressed=False,
        )

    @classmethod
    def load(cls, path: str | Path, A: LinearOperator | NDArray[Any]) -> Arnoldi:
        """Read a factorisation of A from a file that `save` wrote; two products tell whether it is
        the same operator.

        Raises
        ------
        InputError
            If the file is missing, damaged, no factorisation, or that of another operator.
        """
        data = read(path, square(A).shape[0])
        found = cls(A, data["basis"][:, 0], int(data["seed"]), int(data["block"]))
        found.steps, found.breakdowns = data["hessenberg"].shape[1], data["breakdowns"].tolist()
        found.operator.at_scale(float(np.abs(data["hessenberg"]).max(initial=0.0)))
        found._make_room(found.steps)
        found._Q[:, : data["basis"].shape[1]] = data["basis"]
        found._H[: len(data["hessenberg"]), : found.steps] = data["hessenberg"] / found.unit
        check_same(path, found.operator, found.basis, found._H[:, : found.steps], data)
        found.operator.products += int(data["products"])
        return found

    @property
    def _rows(self) -> int:
        """How many basis vectors there are: m, and a block that waits."""
        return min(self.steps + self.block, self.size)

    def _step(self, count: int) -> None:
        """Take the first `count` of the vectors that wait, in one pass."""
        m, known = self.steps, self._rows
        W = self.operator.matmat(self._Q[:, m : m + count])
        _require.finite(f"the product of step {m + 1}", W, AUDIT)
        least = 10 * EPS * np.sqrt(self.size) * max(float(np.linalg.norm(W)), self._largest())
        Q = self._Q[:, :known]
        W, h = project_out(Q, W)
        new = min(count, self.size - known)
        q, R, rank = ranked(W, new, least)
        if count > 1 and rank:  # small remainders may have lost their orthogonality
            again, change = project_out(Q, q[:, :rank])
            q[:, :rank], upper = np.linalg.qr(again)
            h, R[:rank] = h + change @ R[:rank], upper @ R[:rank]
        self._H[:, m : m + count] = 0
        self._H[:known, m : m + count] = h
        self._H[known : known + rank, m : m + count] = R[:rank]
        self._Q[:, known : known + rank] = q[:, :rank]
        lost = range(known + rank, known + new)
        if lost or known + new == m + count:  # [1] what is left of W is rounding
            self.breakdowns.append(m + count)
        for i in lost:
            self._Q[:, i] = self._random(i)
        self.steps = m + count  # [4]

    def _largest(self) -> float:
        return float(np.abs(self._H[:, : self.steps]).max(initial=0.0))

    def _random(self, m: int) -> Array:
        """Return a random unit vector orthogonal to the first m of the basis, another one after
        each breakdown.
        """
        rng = np.random.default_rng([self.seed, m, len(self.breakdowns)])
        return orthogonal_to(self._Q[:, :m], rng.standard_normal(self.size))

    def _make_room(self, steps: int) -> None:
        columns = min(steps + self.block, self.size)
        if columns > self._Q.shape[1] or steps > self._H.shape[1]:
            Q, H = self._Q, self._H
            self._Q, self._H = (
                np.zeros((self.size, columns), order="F"),
                np.zeros((steps + self.block, steps)),
            )
            self._Q[:, : Q.shape[1]] = Q
            self._H[: H.shape[0], : H.shape[1]] = H


def arnoldi(
    A: LinearOperator | NDArray[Any],
    steps: int,
    start: ArrayLike | None = None,
    seed: int = 0,
    block: int = 1,
) -> Arnoldi:
    """Return the Arnoldi factorisation of A after `steps` steps.

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
        Real.
    steps : int
        At least 0; it ends at n.
    start, seed, block
        As in `Arnoldi`.

    Raises
    ------
    InputError
        If A is not square or not real, the start is zero or not finite, or a product is not finite.
    """
    return Arnoldi(A, start, seed, block).extend(steps)

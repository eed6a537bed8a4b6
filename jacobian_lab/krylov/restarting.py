r"""Restarts of an Arnoldi factorisation: a part of the Krylov space is kept, and steps go on.

    A (Q_m Z) = (Q_m Z) (Z^T H Z) + (q_{m+1} ... q_{m+b}) (B Z)

Z spans an invariant space of the projected A, B is the coupling.

References
----------
Stewart (2002), *A Krylov-Schur algorithm for large eigenproblems*.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from jacobian_lab.krylov.factorisation import Arnoldi
from jacobian_lab.krylov.gram_schmidt import orthogonal_to

Array: TypeAlias = NDArray[np.float64]


class RestartedArnoldi(Arnoldi):
    """An Arnoldi factorisation that can be compressed to a part of its space, and set back."""

    def restart(
        self, Z: Array, projected: Array, coupling: Array, vectors: Array | None = None
    ) -> None:
        """Compress to the basis Q_m Z, Z of shape (m, p), with the operator on it and its coupling
        to the vectors that wait.

        Both are in units of `unit`, as `in_units` gives them. With `vectors` the coupling is
        dropped (it is below the tolerance) and these, made orthogonal, go on.

        Parameters
        ----------
        Z : array, shape (m, p)
            Orthonormal columns: the new basis in the old one.
        projected : array, shape (p, p)
            Z^T (Q_m^T A Q_m) Z.
        coupling : array, shape (b, p)
            The last rows of H_m times Z.
        vectors : array, shape (n, b), optional
            Where the space goes on, in place of q_{m+1} ... q_{m+b}.
        """
        p, follow = Z.shape[1], self._Q[:, self.steps : self._rows].copy()
        self._Q[:, :p] = self._Q[:, : self.steps] @ Z
        self._H[:] = 0
        self._H[:p, :p], self.steps = projected, p
        known = p
        if vectors is None:
            known = p + follow.shape[1]
            self._Q[:, p:known], self._H[p:known, :p] = follow, coupling
        for i in range(known, self._rows):  # random where the end of the space left fewer than b
            self._Q[:, i] = (
                self._random(i)
                if vectors is None
                else orthogonal_to(self._Q[:, :i], vectors[:, i - p])
            )

    def snapshot(self) -> tuple[Array, Array]:
        """Return copies of basis and H, before the space is exhausted; `resume` takes them."""
        return self._Q[:, : self._rows].copy(), self._H[: self._rows, : self.steps].copy()

    def resume(self, basis: Array, hessenberg: Array) -> None:
        """Go back to what `snapshot` returned."""
        known, m = hessenberg.shape
        self._make_room(m)
        self._Q[:, :known], self._H[:], self.steps = basis, 0, m
        self._H[:known, :m] = hessenberg

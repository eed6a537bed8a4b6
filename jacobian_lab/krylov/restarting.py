r"""Restarts of an Arnoldi factorisation: a part of the Krylov space is kept, and steps go on.

    A (Q_m Z) = (Q_m Z) (Z^T H Z) + q_{m+1} (b^T Z)    Z spans an invariant space of the projected A

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
        self, Z: Array, projected: Array, coupling: Array, vector: Array | None = None
    ) -> None:
        """Compress to the basis Q_m Z, Z of shape (m, p), with the operator on it and its coupling
        to the next vector.

        Both are in units of `unit`, as `in_units` gives them. With a `vector` the coupling is
        dropped (it is below the tolerance) and the vector, made orthogonal, goes on.

        Parameters
        ----------
        Z : array, shape (m, p)
            Orthonormal columns: the new basis in the old one.
        projected : array, shape (p, p)
            Z^T (Q_m^T A Q_m) Z.
        coupling : array, shape (p,)
            The last row of H_m times Z.
        vector : array, shape (n,), optional
            Where the space goes on, in place of q_{m+1}.
        """
        p = Z.shape[1]
        follow = None if self.exhausted else self._Q[:, self.steps].copy()
        self._Q[:, :p] = self._Q[:, : self.steps] @ Z
        self._H[:] = 0
        self._H[:p, :p], self.steps = projected, p
        if vector is not None:
            self._Q[:, p] = orthogonal_to(self._Q[:, :p], vector)
        elif follow is not None:
            self._Q[:, p], self._H[p, :p] = follow, coupling

    def snapshot(self) -> tuple[Array, Array]:
        """Return copies of basis and H, before the space is exhausted; `resume` takes them."""
        m = self.steps
        return self._Q[:, : m + 1].copy(), self._H[: m + 1, :m].copy()

    def resume(self, basis: Array, hessenberg: Array) -> None:
        """Go back to what `snapshot` returned."""
        m = hessenberg.shape[1]
        self._make_room(m)
        self._Q[:, : m + 1], self._H[:], self.steps = basis, 0, m
        self._H[: m + 1, :m] = hessenberg

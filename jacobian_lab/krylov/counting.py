"""Operators that count their products, so that every result can say what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from jacobian_lab.krylov.conversion import provenance, real_operator
from jacobian_lab.krylov.operators import Array, ByMatrices, Matrix, Provenance


class Counted(ByMatrices):
    """An operator in float64 that counts its products, `products`: a matrix of k columns counts k.

    Parameters
    ----------
    A : LinearOperator or array
    scaled : bool
        Divide every product by `unit`: a power of two near the largest entry of the first product
        that is not zero, if squares of squares of that entry overflow or underflow in the
        operator's dtype, and else 1.
    """

    def __init__(self, A: Matrix, scaled: bool = False) -> None:
        self.operator = real_operator(A)
        self._provenance = provenance(A)
        self.products = 0
        self.unit = 1.0
        self._undecided = scaled
        self._tell: Callable[[int], Any] | None = None
        super().__init__(np.dtype(np.float64), self.operator.shape)

    @property
    def provenance(self) -> Provenance:
        """How the products of A are computed."""
        return self._provenance

    @property
    def rounding(self) -> float:
        """Relative error of a product: the rounding of its sums in A's dtype, or what it is known
        to have beyond that.
        """
        return self.rounding_with(1.0)

    def rounding_with(self, room: float) -> float:
        """Return `rounding`, that of the sums with so much room."""
        eps = float(np.finfo(self.operator.dtype).eps)
        return max(room * eps * float(np.sqrt(max(self.shape))), self.provenance.rounding)

    def at_scale(self, largest: float) -> None:
        """Fix the unit for entries up to `largest`."""
        if largest and np.isfinite(largest):
            self._undecided = False
            # fourth powers of sums of n entries are taken
            ordinary = float(np.finfo(self.operator.dtype).max) ** 0.2
            if not 1 / ordinary <= largest <= ordinary:
                self.unit = float(2.0 ** np.floor(np.log2(largest)))

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[None]:
        """Show how many of `total` products are done, after two seconds, on a terminal, where tqdm
        is installed.
        """
        try:
            from tqdm import tqdm
        except ImportError:
            yield
            return
        with tqdm(
            total=total, desc=what, unit="product", delay=2, disable=None, leave=False
        ) as bar:
            self._tell = bar.update
            try:
                yield
            finally:
                self._tell = None

    def _counted(self, product: Callable[[Array], Array], X: Array) -> Array:
        found = np.asarray(product(X), dtype=np.float64)
        self.products += X.shape[1]
        if self._undecided:
            self.at_scale(float(np.abs(found).max(initial=0.0)))
        if self._tell is not None:
            self._tell(X.shape[1])
        return found if self.unit == 1 else found / self.unit

    def _matmat(self, X: Array) -> Array:
        return self._counted(self.operator.matmat, X)

    def _rmatmat(self, X: Array) -> Array:
        return self._counted(self.operator.rmatmat, X)

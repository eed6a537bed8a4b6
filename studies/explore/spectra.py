"""Leading eigenvectors of J, and how Arnoldi's Ritz values get to them step by step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from jacobian_lab import Arnoldi, ConvergenceWarning, Eigenpairs, eigenpairs

Array: TypeAlias = NDArray[Any]
STEPS = 40
"""Arnoldi steps whose Ritz values are shown."""
LEADING = 6
"""Eigenpairs that are asked for; one more where that would cut a conjugate pair."""


@dataclass(frozen=True)
class Ritz:
    """The Ritz values after some Arnoldi steps."""

    step: int
    values: Array
    """Complex, (step,), by falling modulus."""
    residuals: Array
    """`|J x - theta x|` of each, by the recurrence, (step,)."""


def ritz_values(A: LinearOperator, steps: int = STEPS) -> Iterator[Ritz]:
    """Yield the Ritz values after each Arnoldi step, one product each."""
    factorisation = Arnoldi(A)
    for step in range(1, min(steps, A.shape[0]) + 1):
        yield Ritz(step, *factorisation.extend(1).ritz())


def leading_eigenpairs(A: LinearOperator, count: int = LEADING) -> Eigenpairs:
    """Return the eigenpairs of largest |eigenvalue|, with errors; the result says whether they
    converged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # shown beside the values
        return eigenpairs(A, k=min(count, A.shape[0]))


def real_vector(found: Eigenpairs, index: int) -> Array:
    """Return a real vector, (n,), of largest entry 1 in modulus, of an eigenvector; for a complex
    one its real part, after the turn that makes its largest entry real.

    Real and imaginary part of a complex eigenvector span the plane that J maps to itself.
    """
    v = found.vectors[:, index]
    largest = v[np.argmax(abs(v))]
    return np.asarray(np.real(v / largest))

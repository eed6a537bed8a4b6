r"""How far from symmetric, and other sums over the entries of an operator, from products with
random vectors, with error bars.

    trace            tr A;  of a denoiser's J the effective degrees of freedom of D(x_t)
    diagonal         every A_ii;  of J the posterior variance of each pixel, up to alpha / sigma^2
    frobenius_norm   |A|_F
    asymmetry        |A - A^T|_F / |A + A^T|_F:  0 symmetric, 1 as much skew as symmetric, inf skew

Each is split on an orthonormal basis Q of what a random sketch finds of the range: exact on Q,
sampled outside of it, where little is left (Hutch++). The samples outside are independent of Q, so
their spread is an honest standard error. Linear algebra only: A is any real matrix or
`LinearOperator`.

>>> import numpy as np
>>> bool(asymmetry(np.diag([3.0, 2.0, 1.0])).value < 1e-14)
True

References
----------
Hutchinson (1989); Meyer, Musco, Musco, Woodruff (2021), *Hutch++: optimal stochastic trace
estimation*; Efron (2004), *The estimation of prediction error*, for the degrees of freedom.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from jacobian_lab import _require
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.krylov.conversion import square
from jacobian_lab.krylov.counting import Counted
from jacobian_lab.krylov.operators import Matrix

Array = NDArray[np.float64]
BATCH = 16
"""Probes of one batched product."""
PILOT = 48
"""Fewest probes before a wanted accuracy can end the sampling: a lucky small sample must not."""
FEW = 8
"""Samples that may agree by chance if they are fewer: g^T A g of a sparse A takes few values."""


Value = TypeVar("Value", float, Array)


@dataclass(frozen=True)
class Estimate(Generic[Value]):
    """A number, or an array of numbers, with error bars."""

    value: Value
    standard_error: Value
    """Of the sampling, and at least the rounding of A's products."""
    products: int
    """Products with A and A^T spent."""
    degrees: int
    """Degrees of freedom of the standard error: samples less one."""
    path: str = "matrix"
    """How the products were computed: see `jacobian_lab.krylov.operators.Provenance`."""
    product_error: float = 0.0
    """Relative error of a product that the check of the operator's maker could not exclude, which
    no error bar above holds.
    """

    def interval(self, level: float = 0.95) -> tuple[Value, Value]:
        """Return the confidence interval, of each entry for itself, by Student's t."""
        level = _require.real("level", level, "(0, 1)")
        from scipy.special import stdtrit  # Student's quantile

        half = float(stdtrit(self.degrees, (1 + level) / 2)) * self.standard_error
        return self.value - half, self.value + half

    def __str__(self) -> str:
        if isinstance(self.value, float):
            return f"{self.value:.4g} +- {self.standard_error:.1g} ({self.products} products)"
        error = float(np.median(self.standard_error))
        return (
            f"{self.value.size} numbers, median standard error {error:.1g} ({self.products}"
            " products)"
        )

    def __repr__(self) -> str:
        return f"Estimate: {self}"

    def __float__(self) -> float:
        return float(self.value)


def trace(
    A: Matrix, *, sketch: int = 16, probes: int = 32, rtol: float | None = None, seed: int = 0
) -> Estimate[float]:
    """Return tr A: `tr Q^T A Q` exactly, and the mean of `g^T A g` over Rademacher g outside of Q
    (Hutch++).

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
    sketch : int
        Columns of the sketch; 0 is Hutchinson's estimator.
    probes : int
        Random vectors outside of the sketch; with `rtol` at first, and 48 or more.
    rtol : float, optional
        Go on until the standard error is below rtol times the value, or `n` probes are spent.
    seed : int

    Warns
    -----
    ConvergenceWarning
        If `rtol` was not reached.
    """
    operator, Q, AQ, _ = _split(A, sketch, probes, rtol, seed, both=False)

    def sample(G: Array) -> Array:
        AG = operator @ G
        return np.stack([np.einsum("ik,ik->k", G, AG), np.square(AG).sum(0)], axis=1)

    fixed = np.array([float(np.einsum("ij,ij->", Q, AQ)), np.square(AQ).sum()])
    return _estimate(
        operator,
        Q,
        fixed,
        sample,
        probes,
        rtol,
        seed,
        _Figure(
            value=lambda m: m[0],
            influence=lambda z, _: z[:, 0],
            bound=lambda z, _: np.sqrt(2 * z[:, 1].mean()),
            scale=lambda m: np.sqrt(m[1]),
        ),
    )


def diagonal(
    A: Matrix, *, sketch: int = 16, probes: int = 32, rtol: float | None = None, seed: int = 0
) -> Estimate[Array]:
    """Return the diagonal of A, shape (n,): that of `A Q Q^T` exactly, and the mean of `g * A g`
    over g outside of Q.

    Q sketches the range of A^T. Parameters as in `trace`; `rtol` is of the root mean square. Each
    entry has its own standard error, and the entries' errors are not independent.

    References
    ----------
    Bekas, Kokiopoulou, Saad (2007), *An estimator for the diagonal of a matrix*.
    """
    operator, Q, AQ, _ = _split(A, sketch, probes, rtol, seed, both=False, transposed=True)

    def sample(G: Array) -> Array:
        return np.asarray((G * (operator @ G)).T)

    return _estimate(
        operator,
        Q,
        np.einsum("ik,ik->i", AQ, Q),
        sample,
        probes,
        rtol,
        seed,
        _Figure(
            value=lambda m: m,
            influence=lambda z, _: z,
            bound=lambda z, _: np.sqrt(np.square(z).mean(0)),
            scale=lambda m: max(float(np.linalg.norm(m)), float(np.abs(AQ).max(initial=0.0))),
        ),
    )


def frobenius_norm(
    A: Matrix, *, sketch: int = 16, probes: int = 32, rtol: float | None = None, seed: int = 0
) -> Estimate[float]:
    """Return |A|_F: `|A Q|_F` exactly, and the mean of `|A g|^2` outside of Q; parameters as in
    `trace`.
    """
    operator, Q, AQ, _ = _split(A, sketch, probes, rtol, seed, both=False, transposed=True)

    def sample(G: Array) -> Array:
        return np.square(operator @ G).sum(0)[:, None]

    return _estimate(
        operator,
        Q,
        np.array([np.square(AQ).sum()]),
        sample,
        probes,
        rtol,
        seed,
        _Figure(
            value=lambda m: float(np.sqrt(m[0])),
            influence=lambda z, m: z[:, 0] / (2 * np.sqrt(m[0]) if m[0] else 1),
            bound=lambda z, m: z.mean() / np.sqrt(2 * m[0]) if m[0] else 0.0,
            scale=lambda m: float(np.sqrt(m[0])),
        ),
    )


def asymmetry(
    A: Matrix, *, sketch: int = 16, probes: int = 32, rtol: float | None = None, seed: int = 0
) -> Estimate[float]:
    """Return `|A - A^T|_F / |A + A^T|_F`, both sampled by the same vectors: two products each;
    parameters as in `trace`.

    `rtol` of a symmetric operator, where the ratio is rounding, ends as soon as rounding is all
    that is left.
    """
    operator, Q, AQ, AtQ = _split(A, sketch, probes, rtol, seed, both=True)

    def sample(G: Array) -> Array:
        AG, AtG = operator @ G, operator.T @ G
        return np.stack([np.square(AG - AtG).sum(0), np.square(AG + AtG).sum(0)], axis=1)

    def ratio(m: Array) -> float:
        if not m.any():
            raise InputError("A is zero: its asymmetry is 0 / 0")
        return float(np.sqrt(m[0] / m[1])) if m[1] else np.inf

    def influence(z: Array, m: Array) -> Array:
        return ratio(m) / 2 * (z[:, 0] / m[0] - z[:, 1] / m[1]) if m.all() else np.zeros(len(z))

    fixed = np.array([np.square(AQ - AtQ).sum(), np.square(AQ + AtQ).sum()])
    return _estimate(
        operator,
        Q,
        fixed,
        sample,
        probes,
        rtol,
        seed,
        _Figure(
            value=ratio,
            influence=influence,
            scale=lambda _: 1.0,
            absolute=False,
            bound=lambda z, m: ratio(m) * np.sqrt(0.5) * (z.mean(0) / m).sum() if m.all() else 0.0,
        ),
    )


class _Figure(NamedTuple, Generic[Value]):
    """What is estimated from `m = fixed + mean of the samples`."""

    value: Callable[[Array], Value]
    influence: Callable[[Array, Array], Array]
    """Linearised in deviations of the samples (delta method): (samples, m) -> shape (samples,) or
    (samples, entries).
    """
    bound: Callable[[Array, Array], Any]
    """A bound of the standard deviation of one sample's influence from the samples' sizes, not
    their spread: (samples, m).
    """
    scale: Callable[[Array], float]
    """The size, in the norm of the value, of which products' rounding is a part."""
    absolute: bool = True
    """Whether the value is in A's units."""


def _split(
    A: Matrix,
    sketch: int,
    probes: int,
    rtol: float | None,
    seed: int,
    both: bool,
    transposed: bool = False,
) -> tuple[Counted, Array, Array, Array]:
    """Return A counted, an orthonormal Q of a sketch of its range (or of its transpose's), A Q,
    and, for both, A^T Q.
    """
    operator = Counted(square(A), scaled=True)
    n = operator.shape[0]
    sketch, seed = _require.integer("sketch", sketch, 0), _require.seed(seed)
    _require.integer("probes", probes, 2)
    if rtol is not None:
        _require.real("rtol", rtol, "(0, 1)")
    Q = np.zeros((n, 0))
    if sketch:
        omega = np.random.default_rng([seed, 0]).choice([-1.0, 1.0], size=(n, min(sketch, n)))
        Y = (operator.T if transposed else operator) @ omega if sketch < n else np.eye(n)
        _check_finite(Y)
        Q = np.linalg.qr(Y)[0]
    return operator, Q, operator @ Q if sketch else Q, operator.T @ Q if both and sketch else Q


def _estimate(
    operator: Counted,
    Q: Array,
    fixed: Array,
    sample: Callable[[Array], Array],
    probes: int,
    rtol: float | None,
    seed: int,
    figure: _Figure[Value],
) -> Estimate[Value]:
    """Return the figure of `fixed + mean of the samples`, with the samples' spread and the
    products' rounding as its error.
    """
    n, rng = operator.shape[0], np.random.default_rng([seed, 1])
    samples = np.zeros((0, len(fixed)))
    goal = probes if rtol is None else max(probes, PILOT)
    while True:
        while len(samples) < goal:
            G = rng.choice([-1.0, 1.0], size=(n, min(BATCH, goal - len(samples))))
            found = sample(G - Q @ (Q.T @ G))
            _check_finite(found)
            samples = np.concatenate([samples, found])
        mean = fixed + samples.mean(0)
        value = figure.value(mean)
        size, root = float(np.linalg.norm(value)), np.sqrt(np.size(value))
        spread = np.std(figure.influence(samples - samples.mean(0), mean), axis=0, ddof=1)
        rounding = operator.rounding_with(10) * max(size, figure.scale(mean)) / root
        rounding = rounding if np.isfinite(rounding) else 0.0
        if len(samples) < FEW:  # which may agree by chance: their spread alone says little
            spread = np.maximum(spread, figure.bound(samples, mean))
        error = np.maximum(spread / np.sqrt(len(samples)), rounding)
        reached, least = float(np.linalg.norm(error)), rounding * root
        if rtol is None or reached <= rtol * size or len(samples) >= n or reached <= 2 * least:
            break  # more probes do not lower the rounding
        # one jump to where it should be:
        wanted = 1.2 * len(samples) * (reached / (rtol * size)) ** 2 if size else np.inf
        # many looks at the error would spoil the interval
        goal = int(min(max(1.5 * len(samples), wanted), max(n, goal)))
    unit = operator.unit if figure.absolute else 1.0
    # a value below the rounding is as good as zero
    if rtol is not None and reached > rtol * size > rtol * 2 * least:
        warnings.warn(
            f"a standard error of {reached / root * unit:.1e} was reached, not {rtol:.1e} of "
            f"{size / root * unit:.3g}, after {len(samples)} probes: take a larger sketch",
            ConvergenceWarning,
            stacklevel=3,
        )
    standard_error = error * unit if isinstance(value, np.ndarray) else float(error) * unit
    path, product_error, _ = operator.provenance
    return Estimate(
        value * unit, standard_error, operator.products, len(samples) - 1, path, product_error
    )


def _check_finite(x: Array) -> None:
    if not np.isfinite(x).all():
        raise InputError(
            "a product of the operator has values that are not finite: audit the operator"
        )

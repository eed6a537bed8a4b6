r"""Trace, diagonal, norm and asymmetry of an operator, estimated from products with random
vectors, with error bars.

    trace            tr A;  of a denoiser's J the effective degrees of freedom of D(x_t)
    diagonal         every A_ii;  of J the posterior variance of each pixel, up to alpha / sigma^2
    frobenius_norm   |A|_F
    asymmetry        |A - A^T|_F / |A + A^T|_F:  0 symmetric, 1 as much skew as symmetric, inf skew

Each is split by an orthonormal basis Q of a random sketch of the range: exact on Q, sampled outside
of it, where little is left (Hutch++). The samples outside are independent of Q, so that their
spread gives the standard error. Linear algebra only: A is any real matrix or
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

import numpy as np
from numpy.typing import NDArray

from jacobian_lab.errors import InputError
from jacobian_lab.krylov.hutchinson import Estimate, Figure, from_samples, split
from jacobian_lab.krylov.operators import Matrix

Array = NDArray[np.float64]


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

    Notes
    -----
    Where one eigenvalue outside of Q is large, the samples are skewed, and a mean that is too low
    comes with a spread that is too small. So the standard error follows, if that is more, from the
    variance of single entries of `g * A g`, which falls less.
    """
    operator, Q, AQ, _ = split(A, sketch, probes, rtol, seed, both=False)

    def sample(G: Array, signs: Array) -> Array:
        AG = operator @ G
        variance = variances(signs, AG - Q @ (Q.T @ AG))
        return np.stack([np.einsum("ik,ik->k", G, AG), np.square(AG).sum(0), variance], axis=1)

    fixed = np.array([float(np.einsum("ij,ij->", Q, AQ)), np.square(AQ).sum(), 0.0])
    return from_samples(
        operator,
        Q,
        fixed,
        sample,
        probes,
        rtol,
        seed,
        Figure(
            value=lambda m: m[0],
            influence=lambda z, _: z[:, 0],
            bound=lambda z, _: np.sqrt(2 * z[:, 1].mean()),
            scale=lambda m: np.sqrt(m[1]),
            steady=lambda z, _: np.sqrt(max(z[:, 2].mean(), 0.0)),
        ),
    )


def variances(G: Array, BG: Array) -> Array:
    """Return numbers whose mean is the variance of `g^T B g` over Rademacher g, from the columns of
    G, (n, b), and of B G.

    It is `sum_{i != j} B_ij^2 + B_ij B_ji`: twice `sum_i Var g_i (B g)_i`, less the mean of
    `(g^T B h - h^T B g)^2 / 2` over independent g and h.
    """
    count = G.shape[1]
    if count == 1:  # nothing to compare with: no less than it is
        return np.asarray(2 * np.square(BG).sum(0))
    entries, among = G * BG, G.T @ BG
    apart = np.square(entries - np.roll(entries, 1, axis=1)).sum(0)
    return np.asarray(apart - np.square(among - among.T).sum(0) / (2 * (count - 1)))


def diagonal(
    A: Matrix, *, sketch: int = 16, probes: int = 32, rtol: float | None = None, seed: int = 0
) -> Estimate[Array]:
    """Return the diagonal of A, shape (n,): that of `A Q Q^T` exactly, and the mean of `g * A g`
    over g outside of Q.

    Q sketches the range of A^T. Each entry has its own standard error, and the entries' errors are
    not independent.

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
    sketch : int
        Columns of the sketch, at least 0; 0 leaves all to the samples.
    probes : int
        Random vectors outside of the sketch, at least 2; with `rtol` at first, and 48 or more.
    rtol : float, optional
        In (0, 1): go on until the standard error is below rtol times the value, or `n` probes are
        spent. It is relative to the root mean square of the diagonal.
    seed : int

    References
    ----------
    Bekas, Kokiopoulou, Saad (2007), *An estimator for the diagonal of a matrix*.
    """
    operator, Q, AQ, _ = split(A, sketch, probes, rtol, seed, both=False, transposed=True)

    def sample(G: Array, _: Array) -> Array:
        return np.asarray((G * (operator @ G)).T)

    return from_samples(
        operator,
        Q,
        np.einsum("ik,ik->i", AQ, Q),
        sample,
        probes,
        rtol,
        seed,
        Figure(
            value=lambda m: m,
            influence=lambda z, _: z,
            bound=lambda z, _: np.sqrt(np.square(z).mean(0)),
            scale=lambda m: max([float(np.linalg.norm(m)), *np.linalg.norm(AQ, axis=0)]),
        ),
    )


def among(V: Array, W: Array) -> Array:
    """Return the mean of `(v_i^T v_j)(w_i^T w_j)` over the other columns j, for each column i of V
    and W, (n, b).

    Of a single one, which has nothing to compare with, `|v|^2 |w|^2`.
    """
    products = (V.T @ V) * (W.T @ W)
    if len(products) == 1:
        return np.asarray(products[0])
    return np.asarray((products.sum(0) - products.diagonal()) / (len(products) - 1))


def deviation(trace: float, squares: float, unit: float, n: int, outside: int) -> float:
    """Return the standard deviation of `g^T M g` over Rademacher g outside of Q, or more.

    The variance is `2 (|M|_F^2 - sum M_ii^2)`, and that sum is `(tr M)^2 / n` or more. |M|_F is
    told by how far M is from a multiple of the projection outside of Q: what is exact stays so.

    Parameters
    ----------
    trace, squares, unit : float
        tr M, and the means of `(g^T M h)^2` and `(g^T h)^2` over different g and h.
    n, outside : int
        Dimension, and that of the space outside of Q.
    """
    if not outside:
        return 0.0
    off = squares - (trace / outside) ** 2 * unit + trace**2 * (1 / outside - 1 / n)
    return float(np.sqrt(max(2 * off, 0.0)))


def frobenius_norm(
    A: Matrix, *, sketch: int = 16, probes: int = 32, rtol: float | None = None, seed: int = 0
) -> Estimate[float]:
    """Return |A|_F: `|A Q|_F` exactly, and the mean of `|A g|^2` outside of Q.

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
    sketch : int
        Columns of the sketch, at least 0; 0 leaves all to the samples.
    probes : int
        Random vectors outside of the sketch, at least 2; with `rtol` at first, and 48 or more.
    rtol : float, optional
        In (0, 1): go on until the standard error is below rtol times the value, or `n` probes are
        spent.
    seed : int

    Notes
    -----
    Where one singular value outside of Q is large, the samples are skewed, and a mean that is too
    low comes with a spread that is too small. So the standard error follows, if that is more, from
    the products of different samples, whose squares have the mean `|A^T A|_F^2`: they fall less.
    Where one singular value is nearly all that is outside, the error still falls with the norm, and
    one norm of some thousand is off by 5 or 6 errors. Where A^T A is nearly diagonal, samples vary
    less than such products tell, and the error is up to twice what it could be.
    """
    operator, Q, AQ, _ = split(A, sketch, probes, rtol, seed, both=False, transposed=True)
    n, outside = Q.shape[0], Q.shape[0] - Q.shape[1]

    def sample(G: Array, _: Array) -> Array:
        AG = operator @ G
        return np.stack([np.square(AG).sum(0), among(AG, AG), among(G, G)], axis=1)

    def steady(z: Array, m: Array) -> float:
        size, squares, unit = z.mean(0)
        return deviation(size, squares, unit, n, outside) / (2 * np.sqrt(m[0])) if m[0] else 0.0

    return from_samples(
        operator,
        Q,
        np.array([np.square(AQ).sum(), 0.0, 0.0]),
        sample,
        probes,
        rtol,
        seed,
        Figure(
            value=lambda m: float(np.sqrt(m[0])),
            influence=lambda z, m: z[:, 0] / (2 * np.sqrt(m[0]) if m[0] else 1),
            bound=lambda z, m: z[:, 0].mean() / np.sqrt(2 * m[0]) if m[0] else 0.0,
            scale=lambda m: float(np.sqrt(m[0])),
            steady=steady,
        ),
    )


def asymmetry(
    A: Matrix, *, sketch: int = 16, probes: int = 32, rtol: float | None = None, seed: int = 0
) -> Estimate[float]:
    """Return `|A - A^T|_F / |A + A^T|_F`, both sampled by the same vectors: two products each.

    Parameters
    ----------
    A : LinearOperator or array, shape (n, n)
    sketch : int
        Columns of the sketch, at least 0; 0 leaves all to the samples.
    probes : int
        Random vectors outside of the sketch, at least 2; with `rtol` at first, and 48 or more.
    rtol : float, optional
        In (0, 1): go on until the standard error is below rtol times the value, or `n` probes are
        spent. Where the ratio is rounding, because A is symmetric, it ends as
        soon as rounding is all that is left.
    seed : int

    Notes
    -----
    Of skewed samples as in `frobenius_norm`, with the change that they make in the ratio.
    """
    operator, Q, AQ, AtQ = split(A, sketch, probes, rtol, seed, both=True)
    n, outside = Q.shape[0], Q.shape[0] - Q.shape[1]

    def sample(G: Array, _: Array) -> Array:
        AG, AtG = operator @ G, operator.T @ G
        K, S = AG - AtG, AG + AtG
        sizes = np.square(K).sum(0), np.square(S).sum(0)
        return np.stack([*sizes, among(K, K), among(K, S), among(S, S), among(G, G)], axis=1)

    def ratio(m: Array) -> float:
        if not m[:2].any():
            raise InputError(
                "A v is zero for every v that was tried: A is zero, and its asymmetry 0 / 0, or"
                " more `probes` are needed to see it"
            )
        return float(np.sqrt(m[0] / m[1])) if m[1] else np.inf

    def weights(m: Array) -> Array:
        """Return what a change of |K|_F^2 and of |S|_F^2 changes in the ratio."""
        return ratio(m) / 2 * np.array([1, -1]) / m[:2] if m[:2].all() else np.zeros(2)

    def steady(z: Array, m: Array) -> float:
        of_K, of_S = weights(m)
        size_K, size_S, KK, KS, SS, unit = z.mean(0)
        # in an order in which none is infinite where a part is tiny
        squares = of_K * (of_K * KK) + 2 * of_K * (of_S * KS) + of_S * (of_S * SS)
        return deviation(of_K * size_K + of_S * size_S, squares, unit, n, outside)

    fixed = np.array([np.square(AQ - AtQ).sum(), np.square(AQ + AtQ).sum(), 0, 0, 0, 0])
    figure = Figure(
        value=ratio,
        influence=lambda z, m: z[:, :2] @ weights(m),
        # what a change of both parts by |A| changes in the ratio
        scale=lambda m: 1 + ratio(m) * ratio(m),
        absolute=False,
        bound=lambda z, m: np.sqrt(2) * z[:, :2].mean(0) @ np.abs(weights(m)),
        steady=steady,
    )
    return from_samples(operator, Q, fixed, sample, probes, rtol, seed, figure)

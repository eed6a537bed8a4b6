"""Leading eigenpairs: right, and at what price, beside ARPACK, plain `torch.func` products, and
subspace iteration.

    jacobian-lab benchmark eigenpairs [--dtype float32]

For J, its symmetric and its skew part at several digits and noise levels, against the dense
spectrum in float64. "Found" are the products until the pairs converge; what comes on top is the
certificate: the noise, the search for what was missed, and the residuals recomputed, none of which
ARPACK does. ARPACK runs with its defaults; its tolerance is relative to each Ritz value, ours to
the largest. A pass is one call of the operator, whatever the number of vectors in it.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

import mnist
from jacobian_lab import (
    Denoiser,
    InputError,
    JacobianOperator,
    eigenpairs,
    skew_part,
    symmetric_part,
)
from jacobian_lab.krylov.conversion import provenance
from jacobian_lab.krylov.operators import Apply, Operator
from mnist.evaluate import noisy_digit
from studies.benchmarks.eigensolvers_report import (
    ARPACK,
    ARPACK_PLAIN,
    PEERS,
    SUBSPACE,
    VARIABLES,
    ours,
    table,
)
from studies.frame.study import Arrays, Options, Pieces, Study

Array: TypeAlias = NDArray[Any]
PARTS = {"J": lambda J: J, "symmetric": symmetric_part, "skew": skew_part}


@dataclass(frozen=True)
class EigenpairsBenchmark(Options):
    """Check and time leading eigenpairs. Example: jacobian-lab benchmark eigenpairs --digits 1
    --times 500.
    """

    k: int = 10
    """Leading eigenpairs."""
    digits: int = 3
    """Held-out digits, from the first on."""
    times: tuple[int, ...] = (900, 700, 500, 300)
    """Noise levels, 0 (clean) to 999 (noise)."""
    dtype: Literal["float64", "float32"] = "float64"
    """Precision of the network; the truth is in float64."""
    rtol: float = 1e-9
    """Residual asked of everyone; float32 cannot reach it and stops at its noise."""
    blocks: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Vectors of one pass of ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        times = self.times or (-1,)
        if (
            not 1 <= self.k <= 100
            or self.digits < 1
            or not 0 <= min(times) <= max(times) < 1000
            or not 0 < self.rtol < 1
            or not 1 <= min(self.blocks, default=0) <= max(self.blocks) <= 100
        ):
            raise InputError(
                "expected k and blocks in 1 ... 100, digits >= 1, times from 0 to 999, and rtol in"
                f" (0, 1): got {self}"
            )


@dataclass
class Tally:
    """What one method found over all points of one operator."""

    products: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Tallies: TypeAlias = dict[tuple[str, str], Tally]


def compare_solvers(config: EigenpairsBenchmark, _pieces: Pieces) -> Arrays:
    """Return what each method found: products, passes, seconds, errors ... and what ours states,
    (parts, methods, points).
    """
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.func.jvp's own
    dtype = getattr(torch, config.dtype)
    denoiser, exact = mnist.load_denoiser(dtype=dtype), mnist.load_denoiser(dtype=torch.float64)
    images = mnist.digits("held-out")[0]
    methods = [*map(ours, config.blocks), *PEERS]
    tallies: Tallies = {(part, name): Tally() for part in PARTS for name in methods}
    points = [(i, t) for i in range(config.digits) for t in config.times]
    for i, t in tqdm(points, desc="eigenpairs", unit="Jacobian"):
        x_t = noisy_digit(denoiser, images[i].to(dtype), t, 0, i)
        dense = JacobianOperator(exact, x_t.double(), t).dense()
        J, plain = JacobianOperator(denoiser, x_t, t), plain_operator(denoiser, x_t, t)
        J @ np.ones(len(dense))  # warm
        for part, of in PARTS.items():
            truth = _Truth(dense, part)
            for block in config.blocks:
                _ours(config, part, of(J), truth, tallies[part, ours(block)], block)
            _arpack(config, part, of(J), truth, tallies[part, ARPACK])
            _arpack(config, part, of(plain), truth, tallies[part, ARPACK_PLAIN])
            _subspace(config, of(J), truth, tallies[part, SUBSPACE])
    return {
        key: np.array([[getattr(tallies[part, name], key) for name in methods] for part in PARTS])
        for key in VARIABLES
        if key not in ("operator", "method")
    } | {"operator": np.array(list(PARTS)), "method": np.array(methods)}


class InPasses:
    """An operator that counts its products, and in how many passes they were taken."""

    def __init__(self, A: Operator) -> None:
        self.products = self.passes = 0
        known = provenance(A)._asdict()
        self.operator = Operator(
            A.shape, A.dtype, self._counted(A.matmat), self._counted(A.rmatmat), **known
        )

    def _counted(self, product: Apply) -> Apply:
        def apply(V: Array) -> Array:
            self.products, self.passes = self.products + V.shape[1], self.passes + 1
            return product(V)

        return apply


class _Truth:
    """The dense spectrum of one part."""

    def __init__(self, dense: Array, part: str) -> None:
        self.matrix = {
            "J": dense,
            "symmetric": (dense + dense.T) / 2,
            "skew": (dense - dense.T) / 2,
        }[part]
        self.values: Array = (
            np.linalg.eigvals(self.matrix)
            if part == "J"
            else (
                np.linalg.eigvalsh(self.matrix)
                if part == "symmetric"
                else 1j * np.linalg.eigvalsh(-1j * self.matrix)
            )
        )
        self.values = self.values[np.argsort(-abs(self.values))]
        self.size = float(abs(self.values[0]))

    def distances(self, values: Array) -> Array:
        """Return how far each value is from an eigenvalue that no other value has taken, most
        wanted first.
        """
        free, found = list(self.values[: len(values) + 2]), []
        for value in values:
            best = int(np.abs(np.array(free) - value).argmin())
            found.append(abs(free.pop(best) - value))
        return np.array(found)

    def record(
        self, tally: Tally, values: Array, vectors: Array, counted: InPasses, seconds: float
    ) -> Array:
        """Note error and independent residual, by the dense matrix in float64, and the price."""
        errors = self.distances(values)
        residuals = np.linalg.norm(self.matrix @ vectors - vectors * values, axis=0)
        tally.errors.append(float(errors.max()) / self.size)
        tally.residuals.append(float(residuals.max()) / self.size)
        tally.products.append(counted.products)
        tally.passes.append(counted.passes)
        tally.seconds.append(seconds)
        return residuals


def _ours(
    config: EigenpairsBenchmark, part: str, A: Operator, truth: _Truth, tally: Tally, block: int
) -> None:
    counted = InPasses(A)
    started = time.perf_counter()
    result = eigenpairs(
        counted.operator,
        config.k,
        symmetric=part == "symmetric",
        rtol=config.rtol,
        block=block,
    )
    seconds = time.perf_counter() - started
    residuals = truth.record(tally, result.values, result.vectors, counted, seconds)
    tally.found.append(result.products - result.certificate)
    # LAPACK's truth is rounded, too
    below = (truth.distances(result.values) <= result.errors + 1e-14 * truth.size).all()
    agree = (np.abs(residuals - result.residuals) <= result.noise).all()
    tally.notes.append(
        ("errors as stated" if below else "AN ERROR ABOVE THE STATED ONE")
        + (", residuals as recomputed with the dense J" if agree else ", RESIDUALS DISAGREE")
        + ("" if result.converged else ", not converged")
    )
    tally.noise.append(result.noise / truth.size)


def _arpack(
    config: EigenpairsBenchmark, part: str, A: Operator, truth: _Truth, tally: Tally
) -> None:
    counted = InPasses(A)
    tolerance = max(config.rtol, float(np.finfo(config.dtype).eps) * np.sqrt(A.shape[0]))
    solve = scipy.sparse.linalg.eigsh if part == "symmetric" else scipy.sparse.linalg.eigs
    started = time.perf_counter()
    values, vectors = solve(counted.operator, config.k, tol=tolerance)
    _peer(truth, tally, values, vectors, counted, time.perf_counter() - started)


def _peer(
    truth: _Truth, tally: Tally, values: Array, vectors: Array, counted: InPasses, seconds: float
) -> None:
    """Note what a peer found, who states nothing."""
    truth.record(tally, values, vectors, counted, seconds)
    tally.found.append(counted.products)
    tally.noise.append(np.nan)
    tally.notes.append("")


def _subspace(config: EigenpairsBenchmark, A: Operator, truth: _Truth, tally: Tally) -> None:
    """Orthogonal iteration with k vectors, as published for the principal components of a
    posterior.
    """
    V = np.linalg.qr(np.random.default_rng(0).standard_normal((A.shape[0], config.k)))[0]
    started, counted = time.perf_counter(), InPasses(A)
    while not counted.passes or counted.products + config.k <= 60:
        AV = counted.operator @ V
        values, inner = np.linalg.eig(V.T @ AV)
        vectors = V @ inner
        V = np.linalg.qr(AV)[0]
    seconds = time.perf_counter() - started
    _peer(truth, tally, values, vectors / np.linalg.norm(vectors, axis=0), counted, seconds)


def plain_operator(denoiser: Denoiser, x_t: torch.Tensor, t: int) -> Operator:
    """Return J as one would write it: `torch.func.jvp` and `torch.func.vjp`, anew for each
    product.
    """
    n, dtype = x_t.numel(), np.float64 if x_t.dtype == torch.float64 else np.float32

    def columns(product: Any) -> Any:
        def apply(V: Array) -> Array:
            with sdpa_kernel(SDPBackend.MATH):
                return np.stack(
                    [
                        product(torch.from_numpy(v).to(x_t).reshape(x_t.shape))
                        .detach()
                        .numpy()
                        .reshape(-1)
                        for v in V.T
                    ],
                    axis=1,
                )

        return apply

    def function(x: torch.Tensor) -> torch.Tensor:
        return denoiser(x, t)

    return Operator(
        (n, n),
        dtype,
        columns(lambda v: torch.func.jvp(function, (x_t,), (v,))[1]),
        columns(lambda u: torch.func.vjp(function, x_t)[1](u)[0]),
    )


EIGENPAIRS = Study(
    "benchmark-eigenpairs",
    EigenpairsBenchmark,
    compare_solvers,
    table,
    None,
    models=lambda _: {"mnist": "denoiser"},
    measures_anew=True,
    variables=VARIABLES,
)

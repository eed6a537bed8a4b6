r"""The check of products at one point.

J v      against central differences of the network's output F, along directions given
J^T u    against J v, by the adjoint identity `<u, J v> = <J^T u, v>`
"""

from __future__ import annotations

import warnings
from functools import partial

import torch
from torch import Tensor

from jacobian_lab.derivative.agreement import Comparison, Verdict
from jacobian_lab.derivative.engines import Engine, Engines
from jacobian_lab.derivative.fallbacks import DoubleBackward
from jacobian_lab.derivative.guards import check_apart, is_repeated
from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.derivative.probes import beside
from jacobian_lab.derivative.randomness import deterministic
from jacobian_lab.errors import DerivativeWarning, InputError

CHECKED = 2
"""Samples of a batch at which products are compared with differences, the first and the last: each
costs three evaluations of F, and all samples take the same path through the code. All are compared
where numbers are read out of x, which may matter at some only, or where the run was not recorded.
"""
ADJOINT = 1000.0
"""In units of eps: how far `<u, J v>` and `<J^T u, v>` may lie apart, relative to |u| |J v| + |J^T
u| |v|. Both are sums over all operations of a network, and round in another order.
"""
NOTHING = 0.1
"""Of |F| / |x|: products of F' that are much smaller consist of rounding."""
STATEFUL = 1e3
"""In units of eps: how far the products of two recordings may lie apart. Both do the same
operations, so that only kernels whose order of summation varies make a difference.
"""
COARSE = 0.1
"""The most of both in half precision, in which a thousand eps are more than all."""


class Verification:
    """The check of products with F'(x).

    Parameters
    ----------
    engines : Engines
        Of F at x, after its run.
    scale : float
        Root mean square that x has by its schedule.

    Attributes
    ----------
    checked : tuple of Tensor, or None
        Directions, and products `J v` along them that passed: what `J^T u` is held against.
    """

    def __init__(self, engines: Engines, scale: float) -> None:
        self.engines, self.scale = engines, scale
        self.function, self.x = engines.function, engines.x
        self.value, self.eps = engines.value, engines.eps
        self.checked: tuple[Tensor, Tensor] | None = None

    def compare_at(self, v: Tensor, onto: Tensor | None = None, alone: bool = False) -> Comparison:
        """Return the differences along v; raise if F does not give the same value again, or its
        samples see each other.

        Points are taken one at a time if `alone`, of one sample or where numbers are read out: a
        mean over x + h v and x - h v in one batch would be that of x.
        """
        alone = alone and (len(self.x) == 1 or self.engines.reads)
        points, value = (
            self.pairs(a[None] if len(self.x) == 1 else a.expand(v.shape))
            for a in (self.x, self.value)
        )
        with deterministic(partial(self.function, self.x)):
            comparison = Comparison(
                self.function,
                points,
                self.pairs(v),
                self.eps,
                self.scale,
                None if onto is None else self.pairs(onto),
                self.engines.points(),
                not alone,
            )
        if len(self.x) > 1:
            with torch.no_grad():
                check_apart(self.function, self.x, self.value, self.function(self.x[-1:]), self.eps)
        if not is_repeated(comparison.value, value, self.eps):
            # the last of x comes first
            check_apart(self.function, self.x, self.value, comparison.value[:1], self.eps)
            comparison = comparison.apart()
        if not alone:  # else it is found out before several vectors are taken
            self.engines.together = comparison.together
        return comparison

    def verdict(self, comparison: Comparison, products: Tensor) -> Verdict:
        """Compare products with differences, and again with points taken one at a time if they
        disagree.
        """
        verdict = comparison.verdict(self.pairs(products))
        if (verdict.agrees and verdict.resolved) or not comparison.together or len(self.x) > 1:
            return verdict
        alone = comparison.apart().verdict(self.pairs(products))
        self.engines.together = not alone.agrees or verdict.agrees
        return alone

    def check_stateless(self, v: Tensor, products: Tensor) -> None:
        """Raise if another recording has other products: the network behaved otherwise when it was
        first called.
        """
        with torch.no_grad():
            again = Linearisation(self.function, self.x, self.engines.known).jvp(v)
        gap = float(
            (again - products).norm() / products.norm().clamp(min=torch.finfo(v.dtype).tiny)
        )
        if not gap <= min(STATEFUL * self.eps, COARSE):
            raise InputError(
                f"the network's derivative is another one at its next call, by {gap:.1e} of J v,"
                " though its output is the same: it keeps what it computed for an earlier x_t (a"
                " cache keyed on the time?)"
            )

    def adjoint(self, engine: Engine, u: Tensor, found: Tensor, path: str, error: float) -> Verdict:
        """Return whether `<w, J v> = <J^T w, v>`: over the directions v that J v was checked along,
        or with differences.

        w lies along u (or J v), along F, where the error lies of a number that is read out of the
        output, and along noise: in one mixture for a recording, and one after the other where there
        is none.

        Parameters
        ----------
        engine : Engine
            Of `J^T u`.
        u, found : Tensor, shape (K, B, *shape)
            A direction, and the engine's `J^T u`.
        path : str
            Of `J v`, empty where it was not asked for.
        error : float
            Of `J v`, relative.
        """
        # Two departures from the textbook's test, one random pair (v, w):
        # 1. an error of rank one is nearly orthogonal to a random w, so w leans towards F and J v;
        # 2. the limit is relative to |w| |J v| + |J^T w| |v|, not to the inner products, which may
        #    cancel to nothing where J is right.
        v, y = (None, u) if self.checked is None else self.checked
        noise = torch.randn(
            y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64, device="cpu"
        ).to(y)
        parts = [_unit(y), _unit(self.value.expand(y.shape)), _unit(noise)]
        if v is None:  # along J^T w, where an error shows most
            w = parts[0] + parts[1] + parts[2]
            z, apart = self._transposed(engine, u, found, w)
            if not apart <= min(STATEFUL * self.eps, COARSE):
                return Verdict(False, apart)
            seen = isinstance(engine, Linearisation) and not engine.reads
            d = z if seen else beside(z, self.x)
            g, along, size = (self.pairs(a).double().flatten(1) for a in (z, d, w))
            along = (g * along).sum(1)
            along = along / size.norm(dim=1).clamp(min=torch.finfo(size.dtype).tiny)
            return self.compare_at(d, onto=w, alone=not seen).verdict(along.unsqueeze(1))
        w = parts[0] + parts[1] + parts[2] if path == "linearised" else torch.cat(parts)
        z = self.engines.apply(engine, w, transposed=True)
        v, y, w, z = (a.double().flatten(2).transpose(0, 1) for a in (v, y, w, z))
        slope = self.value.double().norm() / self.x.double().norm().clamp(min=self.scale)
        v_size, y_size, w_size, z_size = (a.norm(dim=2, keepdim=True) for a in (v, y, w, z))
        own = w_size * y_size.mT
        size = own + z_size * v_size.mT + NOTHING * slope * w_size * v_size.mT
        limit = min(ADJOINT * self.eps, COARSE) * size
        limit = limit + (3 * error * own if path.endswith("difference") else 0)
        gap = (w @ y.mT - z @ v.mT).abs()
        return Verdict(
            bool((gap <= limit).all()),
            float((gap / size.clamp(min=torch.finfo(size.dtype).tiny)).max()),
        )

    def pairs(self, vectors: Tensor) -> Tensor:
        """Return the vectors, (K, B, ...), of the samples that are checked: (m, ...)."""
        return vectors[:, self._rows()].flatten(0, 1)

    def _rows(self) -> Tensor:
        count, known = len(self.x), not (self.engines.reads or self.engines.failure)
        few = min(CHECKED, count) if known else count
        return torch.linspace(count - 1, 0, few, device=self.x.device).round().long()

    def _transposed(
        self, engine: Engine, u: Tensor, found: Tensor, w: Tensor
    ) -> tuple[Tensor, float]:
        """Return `J^T w` of the samples that are checked, those of others may be zero, and how far
        their `J^T u` lies from what was found.

        Another backward pass of the whole batch would double the price of `J^T u`: they have a
        graph of their own, which must give what the batch's gave.
        """
        rows = self._rows()
        if isinstance(engine, Linearisation) or len(rows) == len(self.x):
            return self.engines.apply(engine, w, transposed=True), 0.0
        few = DoubleBackward(self.function, self.x[rows])
        own, theirs = torch.stack([few.vjp(one) for one in u[:, rows]]), found[:, rows]
        slope = self.value.norm() / self.x.norm().clamp(min=self.scale)
        size = torch.maximum(own.norm(), NOTHING * slope * u[:, rows].norm())
        apart = float((own - theirs).norm() / size.clamp(min=torch.finfo(size.dtype).tiny))
        z = torch.zeros_like(w)
        z[:, rows] = torch.stack([few.vjp(one) for one in w[:, rows]])
        return z, apart


def warn_of(verdict: Verdict, engine: Engine) -> None:
    """Warn of a derivative, by this engine, that is zero, or that differences do not resolve."""
    if verdict.flat:
        names = engine.cut if isinstance(engine, Linearisation) else ()
        cut = f" (through {', '.join(names)})" if names else ""
        warnings.warn(
            f"the derivative is zero though the output is not constant{cut}: the network is"
            " piecewise constant (quantised, thresholded), and J tells nothing of finite"
            " steps",
            DerivativeWarning,
            stacklevel=3,
        )
    elif not verdict.resolved:
        warnings.warn(
            "differences of the network's output do not resolve J v, and leave"
            f" {verdict.error:.1e} of it open: rounding or noise inside the network",
            DerivativeWarning,
            stacklevel=3,
        )


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors, (K, B, *shape), at length 1 each; zeros stay."""
    size = vectors.flatten(2).norm(dim=2).reshape(*vectors.shape[:2], *(1,) * (vectors.ndim - 2))
    return vectors / size.clamp(min=torch.finfo(size.dtype).tiny)

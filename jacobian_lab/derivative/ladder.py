r"""The one ladder of derivatives of a network at one point, with the one check that every rung has
to pass.

    linearised           the recording of one run as linear maps
    double backward      PyTorch's reverse mode, transposed
    forward mode         PyTorch's forward mode
    central difference   (F(x + h v) - F(x - h v)) / (2 h), with a warning

Derivatives are of the network's own output F; those of the posterior mean follow from `D = c_x x +
c_out F`. `J v` is compared with differences of F, at the point and along directions given; `J^T u`
with `J v`, or with differences, by the adjoint identity `<u, J v> = <J^T u, v>`, on every path.

`JacobianOperator` (one sample, many vectors) and `BatchJacobian` (many samples, a vector for each),
and so the sampler and the audit, all stand on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from jacobian_lab.derivative.agreement import Comparison, Verdict, foreign, probe
from jacobian_lab.derivative.fallbacks import Differences, DoubleBackward, ForwardMode, Function
from jacobian_lab.derivative.guards import (
    Weights,
    check_apart,
    check_evaluation_mode,
    check_finite,
    deterministic,
    is_repeated,
    modules_called,
    observed,
)
from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import DerivativeWarning, InputError

CHECKED = 2
"""Samples of a batch at which products are compared with differences."""
ADJOINT = 1000.0
"""In units of eps: how far `<u, J v>` and `<J^T u, v>` may lie apart, relative to |u| |J v| + |J^T
u| |v|.
"""
NOTHING = 0.1
"""Of |F| / |x|: products of F' that are much smaller consist of rounding."""
Engine = Linearisation | DoubleBackward


@dataclass(frozen=True)
class Choice:
    """What the check chose at one point: enough to take the same paths at another, without the
    first one's recording.
    """

    t: Time
    path: str
    reason: str
    transposed: str
    """Path of `J^T u`; as `path`, empty where it was not asked for."""
    error: float
    eps: float
    together: bool
    step: float | None
    weights: Weights


class Ladder:
    """Products of `F'(x)`, F a denoiser's network at one time, by the first path that passes the
    check.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor, shape (B, C, H, W)
        Finite, detached. All methods are called inside
        `jacobian_lab.derivative.guards.differentiable`.
    t : int, float or Tensor
    method : {"exact", "forward", "central"}
        "exact" takes the ladder; the others are differences, as asked.
    step : float, optional
        Of the differences; see `jacobian_lab.derivative.fallbacks.Differences`.
    graph : bool
        Run the network with PyTorch's graph instead of recording it: `J^T u` is then a backward
        pass, in a third of the memory. The recording is made where that does not pass the check, or
        for `J v`.
    like : Choice, optional
        Of a ladder of the same network at another point: if the time is the same, its paths are
        taken without another check.

    Attributes
    ----------
    value : Tensor, shape (B, C, H, W)
        F(x, t), detached.
    eps : float
        Of the coarsest precision in which F computes what depends on x.
    modules : list of Module
        What F is made of, also where a closure hides it.
    path, reason : str
        Of `J v`, once it was chosen.
    error : float
        Relative distance of products of F' to differences at the check, and of `J^T` to `J`: how
        far they are confirmed.
    disagreement : float
        Of derivatives that were rejected, relative to theirs; 0 where none was.
    together : bool
        Whether F takes several samples at once, and does not mix them, as far as it was asked.
    scale : float
        Root mean square that x has by its schedule, for data of size 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Time,
        method: str = "exact",
        step: float | None = None,
        graph: bool = False,
        like: Choice | None = None,
    ) -> None:
        self.function: Function = partial(denoiser.output, t=t)
        self.x, self.t, self.method, self._step = x, t, method, step
        self.path = self.reason = ""
        self.error, self.disagreement, self.together, self._separate = 0.0, 0.0, True, False
        self.scale = float(sum(c.square().max() for c in denoiser.schedule(t)) ** 0.5)
        self._known = [*denoiser.parameters(), *denoiser.buffers()]
        self._linear: Linearisation | None = None
        self._failure = ""  # what is in the way of a recording
        self._graph: DoubleBackward | None = None
        self._forward: Engine | None = None
        self._reverse: Engine | None = None
        self._checked: tuple[Tensor, Tensor] | None = None  # directions and products of the check
        like = like if like is not None and like.t == t else None
        with modules_called() as called:
            self.value, self.eps = self._run(graph, like)
        self.modules = list(
            {id(m): m for m in [*called, *denoiser.modules()] if m is not denoiser}.values()
        )
        check_evaluation_mode(denoiser, called)
        check_finite(
            self.value,
            "the network's output F(x_t, t)",
            f" at t = {t}, though x_t is finite: check the weights, "
            "the precision, and that t is on the network's own scale",
        )
        self._weights = Weights(self.modules) if like is None else like.weights
        if like is not None:
            self._follow(like)

    @property
    def linear(self) -> Linearisation | None:
        """The recording, made when it is first asked for; None where there is none."""
        if self._linear is None and not self._failure:
            try:
                self._linear = Linearisation(self.function, self.x, self._known)
            # an error of the network itself comes again without recording
            except Exception as fault:
                self._failure = _first_line(fault)
        return self._linear

    @property
    def step(self) -> float | None:
        """Step of the differences, if it is they that are taken."""
        return self._forward.step if isinstance(self._forward, Differences) else None

    def jvp(self, v: Tensor) -> Tensor:
        """Return `F' v` for K vectors of each sample, (K, B, C, H, W)."""
        return self.choose(v) if self._forward is None else self._apply(self._forward, v)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `F'^T u` for K vectors of each sample, (K, B, C, H, W).

        Raises
        ------
        InputError
            If there is no derivative that is the transpose of `J v`.
        """
        return (
            self._choose_reverse(u)
            if self._reverse is None
            else self._apply(self._reverse, u, transposed=True)
        )

    def choose(self, v: Tensor) -> Tensor:
        """Take the first path whose products along v, (K, B, C, H, W), pass the check; return these
        products.

        Where the network reads numbers out of what depends on x, the check goes along structured
        directions too.
        """
        exact = self.method == "exact"
        more = (
            probe(self.x)
            if exact and len(self.x) > 1 and self.linear is not None and self.linear.reads
            else v[:0]
        )
        directions = torch.cat([v, more])
        comparison = self._compare_at(directions)
        products = (
            self._climb(directions, comparison) if exact else self._as_asked(directions, comparison)
        )
        self._checked = directions, products
        return products[: len(v)]

    def choice(self) -> Choice:
        """Return what was chosen, for another point."""
        transposed = (
            ""
            if self._reverse is None
            else "linearised"
            if self._reverse is self._linear
            else "double backward"
        )
        return Choice(
            self.t,
            self.path,
            self.reason,
            transposed,
            self.error,
            self.eps,
            self.together,
            self.step,
            self._weights,
        )

    def check_weights(self) -> None:
        """Raise if the network's weights changed: call it before products at a point that is
        kept.
        """
        self._weights.check()

    def forget(self) -> None:
        """Free the graphs that the fallbacks keep."""
        for engine in (self._forward, self._reverse):
            if isinstance(engine, DoubleBackward):
                engine.forget()

    def bytes_per_vector(self) -> int:
        """Return the memory that one more vector needs in a product."""
        engine = self.linear if self.path == "linearised" else None
        return (engine or DoubleBackward(self.function, self.x[:1])).bytes_per_vector()

    def _run(self, graph: bool, like: Choice | None) -> tuple[Tensor, float]:
        """Return F(x), and the coarsest eps inside."""
        if graph and self.method == "exact":
            self._graph = DoubleBackward(self.function, self.x)
            if like is not None:
                return self._graph.primal(len(self.x)).detach(), like.eps
            value, eps, _ = observed(lambda x: self._graph.primal(len(x)), self.x)  # type: ignore[union-attr]
            return value.detach(), eps
        if self.method == "exact" and self.linear is not None:
            return self.linear.value, self.linear.coarsest
        with torch.no_grad():
            value, eps, _ = observed(self.function, self.x)
        return value.detach(), eps

    def _follow(self, like: Choice) -> None:
        """Take the paths of a ladder at another point of the same time, where they exist here."""
        forward = self._engine(like.path, like.step) if like.path else None
        reverse = self._engine(like.transposed) if like.transposed else None
        if (forward is None) == (not like.path) and (reverse is None) == (not like.transposed):
            self._forward, self._reverse = forward, reverse
            self.path, self.reason, self.error, self.together = (
                like.path,
                like.reason,
                like.error,
                like.together,
            )

    def _engine(self, path: str, step: float | None = None) -> Engine | None:
        match path:
            case "linearised":
                return self.linear
            case "double backward":
                return self._graph or DoubleBackward(self.function, self.x)
            case "forward mode":
                return ForwardMode(self.function, self.x)
        kind: Literal["forward", "central"] = (
            "forward" if path == "forward difference" else "central"
        )
        return Differences(self.function, self.x, kind, step, self.value, self.eps)

    def _compare_at(self, v: Tensor, onto: Tensor | None = None) -> Comparison:
        """Return the differences along v; raise if F does not give the same value again, or its
        samples see each other.
        """
        points, value = (
            self._pairs(a[None] if len(self.x) == 1 else a.expand(v.shape))
            for a in (self.x, self.value)
        )
        with deterministic():
            comparison = Comparison(
                self.function,
                points,
                self._pairs(v),
                self.eps,
                self.scale,
                None if onto is None else self._pairs(onto),
            )
        if len(self.x) > 1:
            with torch.no_grad():
                check_apart(self.function, self.x, self.value, self.function(self.x[-1:]), self.eps)
        if not is_repeated(comparison.value, value, self.eps):
            # the last of x comes first
            check_apart(self.function, self.x, self.value, comparison.value[:1], self.eps)
            comparison = comparison.apart()
        self.together = comparison.together
        return comparison

    def _as_asked(self, v: Tensor, comparison: Comparison) -> Tensor:
        """Return differences along v of the kind that was asked for, and note how far off they
        are.
        """
        path = f"{self.method} difference"
        products = self._accept(path, self._engine(path, self._step), "as asked", v)
        self.error = max(comparison.verdict(self._pairs(products)).error, comparison.best()[1])
        return products

    def _climb(self, v: Tensor, comparison: Comparison) -> Tensor:
        """Return the products along v of the first engine that agrees with the differences."""
        reason = (
            "" if self.linear is not None else f"the network cannot be recorded: {self._failure}"
        )
        for path in ("linearised", "double backward", "forward mode"):
            engine = self._engine(path)
            if engine is None:
                continue
            try:
                products = self._apply(engine, v)
                verdict = self._verdict(comparison, products)
                problem = (
                    f"disagrees with differences of the network's output by {verdict.error:.1e}"
                )
            # PyTorch raises whatever it likes where a derivative is missing
            except Exception as fault:
                verdict, problem = Verdict(False, torch.inf), _first_line(fault)
            if verdict.agrees and (verdict.resolved or path == "linearised"):
                self._forward, self.path, self.error = engine, path, verdict.error
                self.reason = _why(engine) if isinstance(engine, Linearisation) else reason
                self._warn(verdict)
                return products
            if verdict.agrees:
                problem = "cannot be told right or wrong by differences of the network's output"
            if path == "linearised" and verdict.error < torch.inf:
                self._check_stateless(v, products)
            self.disagreement = max(
                self.disagreement, verdict.error if verdict.error < torch.inf else 0.0
            )
            reason = (
                f"the recording {problem}"
                if path == "linearised"
                else f"{reason}; no {path}: {problem}"
            )
        step, self.error = comparison.best()
        warnings.warn(
            f"J v by central differences, which agree from step to step to {self.error:.1e}:"
            f" {reason}",
            DerivativeWarning,
            stacklevel=2,
        )
        return self._accept(
            "central difference", self._engine("central difference", self._step or step), reason, v
        )

    def _verdict(self, comparison: Comparison, products: Tensor) -> Verdict:
        """Compare products with differences, and again with points taken one at a time if they
        disagree.
        """
        verdict = comparison.verdict(self._pairs(products))
        if (verdict.agrees and verdict.resolved) or not comparison.together or len(self.x) > 1:
            return verdict
        alone = comparison.apart().verdict(self._pairs(products))
        self.together = not alone.agrees or verdict.agrees
        return alone

    def _warn(self, verdict: Verdict) -> None:
        if verdict.flat:
            cut = (
                f" (through {', '.join(self.linear.cut)})"
                if self.linear is not None and self.linear.cut
                else ""
            )
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

    def _check_stateless(self, v: Tensor, products: Tensor) -> None:
        """Raise if another recording has other products: the network behaved otherwise when it was
        first called.
        """
        with torch.no_grad():
            again = Linearisation(self.function, self.x, self._known).jvp(v)
        gap = float(
            (again - products).norm() / products.norm().clamp(min=torch.finfo(v.dtype).tiny)
        )
        if not gap <= 1e3 * self.eps:
            raise InputError(
                f"the network's derivative is another one at its next call, by {gap:.1e} of J v,"
                " though its output is the same: it keeps what it computed for an earlier x_t (a"
                " cache keyed on the time?)"
            )

    def _accept(self, path: str, engine: Engine | None, reason: str, v: Tensor) -> Tensor:
        assert engine is not None
        self._forward, self.path, self.reason = engine, path, reason
        return self._apply(engine, v)

    def _choose_reverse(self, u: Tensor) -> Tensor:
        """Return `F'^T u` of the first engine whose products are the transpose of `J v`."""
        problems = []
        order = (
            ("linearised", "double backward")
            if self._graph is None
            else ("double backward", "linearised")
        )
        for path in order:
            name = "the recording" if path == "linearised" else "PyTorch's autograd"
            engine = (
                None if path == "linearised" and self.path not in ("", path) else self._engine(path)
            )
            if engine is None:
                continue
            try:
                found = self._apply(engine, u, transposed=True)
                verdict = self._adjoint(engine, u)
            except Exception as fault:  # as in _climb
                problems.append(f"{name} fails: {_first_line(fault)}")
                continue
            if verdict.agrees:
                self._reverse, self.error = engine, max(self.error, verdict.error)
                return found
            problems.append(
                f"{name} sees another function than the one that is computed (a detach, a no_grad,"
                f" a number read out): <u, J v> and <J^T u, v> differ by {verdict.error:.1e}"
            )
        raise InputError(
            f"J^T u needs a derivative, and {'; '.join(problems)}; J v by"
            f" {self.path or 'differences'}{self.reason and ': '}{self.reason}"
        )

    def _adjoint(self, engine: Engine, u: Tensor) -> Verdict:
        """Return whether `<w, J v> = <J^T w, v>`: over the directions v that J v was checked along,
        or with differences.

        w lies along u (or J v), along F, where the error lies of a number that is read out of the
        output, and along noise: in one mixture for a recording, and one after the other where there
        is none.
        """
        v, y = (None, u) if self._checked is None else self._checked
        noise = torch.randn(
            y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        ).to(y)
        parts = [_unit(y), _unit(self.value.expand(y.shape)), _unit(noise)]
        if v is None:  # along J^T w, where an error shows most
            w = parts[0] + parts[1] + parts[2]
            z = self._apply(engine, w, transposed=True)
            g, size = (self._pairs(a).double().flatten(1) for a in (z, w))
            along = g.square().sum(1) / size.norm(dim=1).clamp(min=torch.finfo(size.dtype).tiny)
            return self._compare_at(z, onto=w).verdict(along.unsqueeze(1))
        w = parts[0] + parts[1] + parts[2] if self.path == "linearised" else torch.cat(parts)
        z = self._apply(engine, w, transposed=True)
        v, y, w, z = (a.double().flatten(2).transpose(0, 1) for a in (v, y, w, z))
        slope = self.value.double().norm() / self.x.double().norm().clamp(min=self.scale)
        v_size, y_size, w_size, z_size = (a.norm(dim=2, keepdim=True) for a in (v, y, w, z))
        own = w_size * y_size.mT
        size = own + z_size * v_size.mT + NOTHING * slope * w_size * v_size.mT
        limit = ADJOINT * self.eps * size + (
            3 * self.error * own if self.path.endswith("difference") else 0
        )
        gap = (w @ y.mT - z @ v.mT).abs()
        return Verdict(
            bool((gap <= limit).all()),
            float((gap / size.clamp(min=torch.finfo(size.dtype).tiny)).max()),
        )

    def _apply(self, engine: Engine, vectors: Tensor, transposed: bool = False) -> Tensor:
        """Return products with K vectors for each sample; the fallbacks take one sample and K
        vectors, or a vector for each.
        """
        product: Callable[[Tensor], Tensor] = engine.vjp if transposed else engine.jvp
        if isinstance(engine, Linearisation):
            with torch.no_grad():
                return product(vectors)
        if len(self.x) > 1:
            return torch.stack([product(one) for one in vectors])
        count = len(vectors) if len(vectors) > 1 and self._takes_many() else 1
        return torch.cat(
            [product(some) for some in torch.split(vectors.squeeze(1), count)]
        ).unsqueeze(1)

    def _takes_many(self) -> bool:
        """Return whether F takes several samples at once and does not mix them: what the fallbacks
        need for several vectors.
        """
        if self.together and not self._separate:
            with torch.no_grad():
                beside = self.function(torch.cat([foreign(self.x), self.x]))[1:]
            self._separate = self.together = is_repeated(beside, self.value, self.eps)
        return self.together

    def _pairs(self, vectors: Tensor) -> Tensor:
        """Return the vectors, (K, B, ...), of the samples that are checked: (m, ...)."""
        rows = torch.linspace(
            len(self.x) - 1, 0, min(CHECKED, len(self.x)), device=vectors.device
        ).long()
        return vectors[:, rows].flatten(0, 1)


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors, (K, B, C, H, W), at length 1 each; zeros stay."""
    size = vectors.flatten(2).norm(dim=2).reshape(*vectors.shape[:2], *(1,) * (vectors.ndim - 2))
    return vectors / size.clamp(min=torch.finfo(size.dtype).tiny)


def _why(linear: Linearisation) -> str:
    borrowed = f", or PyTorch's derivative: {', '.join(linear.borrowed)}" if linear.borrowed else ""
    return f"every operation has a rule{borrowed}"


def _first_line(fault: Exception) -> str:
    return str(fault).split("\n")[0] or type(fault).__name__

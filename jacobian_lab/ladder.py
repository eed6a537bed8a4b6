r"""The one ladder of derivatives of a network at one point, with the one check that every rung has to pass.

    linearised           the recording of one run as linear maps
    double backward      PyTorch's reverse mode, transposed
    forward mode         PyTorch's forward mode
    central difference   (F(x + h v) - F(x - h v)) / (2 h), with a warning

Derivatives are of the network's own output F; those of the posterior mean follow from `D = c_x x + c_out F`. `J v` is compared
with differences of F, at the point and along directions given; `J^T u` with `J v` by `<u, J v> = <J^T u, v>`, on every path.

`JacobianOperator` (one sample, many vectors) and `BatchJacobian` (many samples, a vector for each), and so the sampler and
the audit, all stand on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from jacobian_lab.agreement import Comparison, Verdict
from jacobian_lab.denoiser import Denoiser
from jacobian_lab.errors import DerivativeWarning, InputError
from jacobian_lab.fallbacks import Differences, DoubleBackward, ForwardMode, Function
from jacobian_lab.guards import (
    CoarsestPrecision,
    Weights,
    check_apart,
    check_evaluation_mode,
    check_finite,
    is_repeated,
    modules_called,
)
from jacobian_lab.linear import UnsupportedError
from jacobian_lab.linearise import Linearisation
from jacobian_lab.schedule import Time

CHECKED = 2
"""Samples of a batch at which products are compared with differences."""
ADJOINT = 100.0
"""In units of eps: how far `<u, J v>` and `<J^T u, v>` may lie apart, relative to |u| |J v| + |J^T u| |v|."""
NOTHING = 0.1
"""Of |F| / |x|: products of F' that are much smaller consist of rounding."""
Engine = Linearisation | DoubleBackward


@dataclass(frozen=True)
class Choice:
    """What the check chose at one point: enough to take the same paths at another, without the first one's recording."""

    t: Time
    path: str
    reason: str
    error: float
    together: bool
    step: float | None
    transposed: str
    """Path of `J^T u`; empty where it was not asked for."""


class Ladder:
    """Products of `F'(x)`, F a denoiser's network at one time, by the first path that passes the check.

    Parameters
    ----------
    denoiser : Denoiser
    x : Tensor, shape (B, C, H, W)
        Finite, detached. Inside `jacobian_lab.guards.differentiable`.
    t : int, float or Tensor
    method : {"exact", "forward", "central"}
        "exact" takes the ladder; the others are differences, as asked.
    step : float, optional
        Of the differences; see `jacobian_lab.fallbacks.Differences`.
    like : Choice, optional
        Of a ladder of the same network at another point of the same time: its paths are taken, without another check.

    Attributes
    ----------
    value : Tensor, shape (B, C, H, W)
        F(x, t), detached.
    eps : float
        Of the coarsest precision in which F computes what depends on x.
    path, reason : str
        Of `J v`, once it was chosen.
    error : float
        Relative distance of products of F' to differences at the check, and of `J^T` to `J`: how far they are confirmed.
    scale : float
        Root mean square that x has by its schedule, for data of size 1.
    disagreement : float
        Of derivatives that were rejected, relative to theirs; 0 where none was.
    """

    def __init__(self, denoiser: Denoiser, x: Tensor, t: Time, method: str = "exact", step: float | None = None,
                 like: Choice | None = None) -> None:
        self.function: Function = partial(denoiser.output, t=t)
        self.x, self._t, self.method, self._step = x, t, method, step
        self.path = self.reason = ""
        self.error, self.disagreement, self.together = 0.0, 0.0, True
        self.linear: Linearisation | None = None
        self._forward: Engine | None = None
        self._reverse: Engine | None = None
        self._checked: tuple[Tensor, Tensor] | None = None  # directions and products of the check
        self.scale = float(sum(c.square().max() for c in denoiser.schedule(t)) ** 0.5)
        with modules_called() as called:
            self.value, self.eps, self._failure = self._run(denoiser)
        modules = {id(module): module for module in [*called, *(m for m in denoiser.modules() if m is not denoiser)]}
        self.modules = list(modules.values())
        check_evaluation_mode(self.modules)
        check_finite(self.value, "the network's output F(x_t, t)", f" at t = {t}, though x_t is finite: check the weights, "
                     "the precision, and that t is on the network's own scale")
        self._weights = Weights(self.modules)
        if like is not None:
            self._follow(like)

    @property
    def step(self) -> float | None:
        """Step of the differences, if it is they that are taken."""
        return self._forward.step if isinstance(self._forward, Differences) else None

    def jvp(self, v: Tensor) -> Tensor:
        """Return `F' v` for K vectors of each sample, (K, B, C, H, W)."""
        self._weights.check()
        if self._forward is None:
            return self.choose(v)
        with torch.no_grad():
            return self._apply(self._forward, v)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `F'^T u` for K vectors of each sample, (K, B, C, H, W).

        Raises
        ------
        InputError
            If there is no derivative that is the transpose of `J v`.
        """
        self._weights.check()
        if self._reverse is None:
            return self._choose_reverse(u)
        with torch.no_grad():
            return self._apply(self._reverse, u, transposed=True)

    def choose(self, v: Tensor) -> Tensor:
        """Take the first path whose products along v, (K, B, C, H, W), pass the check; return these products."""
        comparison = self._compare_at(v)
        if self.method != "exact":
            path = f"{self.method} difference"
            engine = self._engine(path, self._step)
            assert engine is not None
            products = self._apply(engine, v)
            self._accept(engine, path, "as asked", comparison.verdict(self._pairs(products)))
            self.error = max(self.error, comparison.best()[1])
        else:
            products = self._climb(v, comparison)
        self._checked = v, products
        return products

    def forget(self) -> None:
        """Free the graphs that the fallbacks keep."""
        for engine in (self._forward, self._reverse):
            if isinstance(engine, DoubleBackward):
                engine.forget()

    def bytes_per_vector(self) -> int:
        """Return the memory that one more vector needs in a product."""
        engine = self.linear or DoubleBackward(self.function, self.x[:1])
        return engine.bytes_per_vector()

    def choice(self) -> Choice:
        """Return what was chosen, for another point."""
        transposed = "" if self._reverse is None else "linearised" if self._reverse is self.linear else "double backward"
        return Choice(self._t, self.path, self.reason, self.error, self.together, self.step, transposed)

    def _follow(self, like: Choice) -> None:
        """Take the paths of a ladder at another point, where they exist here."""
        forward = self._engine(like.path, like.step) if like.path else None
        reverse = self._engine(like.transposed) if like.transposed else None
        if (like.path and forward is None) or (like.transposed and reverse is None):
            return
        self._forward, self._reverse = forward, reverse
        self.path, self.reason, self.error, self.together = like.path, like.reason, like.error, like.together

    def _engine(self, path: str, step: float | None = None) -> Engine | None:
        match path:
            case "linearised":
                return self.linear
            case "double backward":
                return DoubleBackward(self.function, self.x)
            case "forward mode":
                return ForwardMode(self.function, self.x)
        kind: Literal["forward", "central"] = "forward" if path == "forward difference" else "central"
        return Differences(self.function, self.x, kind, step, self.value, self.eps)

    def _run(self, denoiser: Denoiser) -> tuple[Tensor, float, str]:
        """Return F(x), the coarsest eps inside, and what is in the way of a recording, if there is none."""
        failure = ""
        if self.method == "exact":
            known = [*denoiser.parameters(), *denoiser.buffers()]
            try:
                self.linear = Linearisation(self.function, self.x, known)
                return self.linear.value, self.linear.coarsest, ""
            except Exception as error:  # noqa: BLE001 - an error of the network itself is raised below
                failure = str(error).split("\n")[0] or type(error).__name__
        with torch.no_grad(), CoarsestPrecision(self.x) as precision:
            return self.function(self.x).detach(), precision.eps, failure

    def _compare_at(self, v: Tensor) -> Comparison:
        """Return the differences along v; raise if F does not give the same value again, or its samples see each other."""
        pairs, value = self._pairs(self.x.expand(v.shape)), self._pairs(self.value.expand(v.shape))
        comparison = Comparison(self.function, pairs, self._pairs(v), self.eps, self.scale)
        if not is_repeated(comparison.value, value, self.eps):
            check_apart(self.function, self.x, self.value, comparison.value[:1], self.eps)
            comparison = comparison.apart()
        self.together = comparison.together
        return comparison

    def _climb(self, v: Tensor, comparison: Comparison) -> Tensor:
        """Return the products along v of the first engine that agrees with the differences."""
        reason = f"the network cannot be recorded: {self._failure}"
        for path in ("linearised", "double backward", "forward mode"):
            engine = self._engine(path)
            if engine is None:
                continue
            try:
                products = self._apply(engine, v)
                verdict = comparison.verdict(self._pairs(products))
                problem = f"disagrees with differences of the network's output by {verdict.error:.1e}"
            except Exception as error:  # noqa: BLE001 - PyTorch raises whatever it likes where a derivative is missing
                verdict, problem = Verdict(False, torch.inf), str(error).split("\n")[0] or type(error).__name__
            if verdict.agrees:
                self._accept(engine, path, self._why() if path == "linearised" else reason, verdict)
                return products
            if verdict.error < torch.inf:
                self.disagreement = max(self.disagreement, verdict.error)
            reason = f"the recording {problem}" if path == "linearised" else f"{reason}; no {path}: {problem}"
        step, error = comparison.best()
        engine = self._engine("central difference", self._step or step)
        assert engine is not None
        self._accept(engine, "central difference", reason, Verdict(True, error))
        warnings.warn(f"J v by central differences, which agree from step to step to {error:.1e}: {reason}",
                      DerivativeWarning, stacklevel=2)
        return self._apply(engine, v)

    def _accept(self, engine: Engine, path: str, reason: str, verdict: Verdict) -> None:
        self._forward, self.path, self.reason, self.error = engine, path, reason, verdict.error
        if verdict.flat:
            warnings.warn("the derivative is zero along a direction in which a step changes the output: the network is "
                          "piecewise constant (quantised, thresholded), and J tells nothing of finite steps",
                          DerivativeWarning, stacklevel=2)

    def _why(self) -> str:
        assert self.linear is not None
        borrowed = f", or PyTorch's derivative: {', '.join(self.linear.borrowed)}" if self.linear.borrowed else ""
        return f"every operation has a rule{borrowed}"

    def _choose_reverse(self, u: Tensor) -> Tensor:
        """Return `F'^T u` of the first engine whose products are the transpose of `J v`."""
        problems = []
        for name, path in (("recording", "linearised"), ("autograd", "double backward")):
            engine = self._engine(path)
            if engine is None or (name == "recording" and self.path not in ("", "linearised")):
                continue
            try:
                found = self._apply(engine, u, transposed=True)
                gap = self._adjoint_gap(engine, u, found)
            except Exception as error:  # noqa: BLE001 - as in _climb
                problems.append(f"{name} fails: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
                continue
            limit = ADJOINT * self.eps + (3 * self.error if self.path.endswith("difference") else 0)
            if gap <= limit:
                self._reverse, self.error = engine, max(self.error, gap)
                return found
            problems.append(f"{name} sees another function than the one that is computed (a detach, a no_grad, a number read "
                            f"out): <u, J v> and <J^T u, v> differ by {gap:.1e}")
        raise InputError(f"J^T u needs a derivative, and PyTorch's {'; '.join(problems)}; {self.reason}")

    def _adjoint_gap(self, engine: Engine, u: Tensor, found: Tensor) -> float:
        """Return how far `<u, J v> = <J^T u, v>` is off, over the directions that J v was checked along, or along J^T u."""
        if self._checked is not None and len(self.x) == 1:
            v, y = self._checked
            u, z = y, self._apply(engine, y, transposed=True)
        else:
            v = z = found
            y = self.jvp(v)
        inner = (u.double() * y.double()).flatten(2).sum(2) - (z.double() * v.double()).flatten(2).sum(2)
        u_size, y_size, z_size, v_size = (a.double().flatten(2).norm(dim=2) for a in (u, y, z, v))
        slope = self.value.double().norm() / self.x.double().norm().clamp(min=self.scale)
        size = u_size * y_size + z_size * v_size + NOTHING * slope * u_size * v_size
        return float((inner.abs() / size.clamp(min=torch.finfo(size.dtype).tiny)).max())

    def _apply(self, engine: Engine, vectors: Tensor, transposed: bool = False) -> Tensor:
        """Return products with K vectors for each sample; the fallbacks take one sample and K vectors, or a vector for each."""
        product: Callable[[Tensor], Tensor] = engine.vjp if transposed else engine.jvp
        if isinstance(engine, Linearisation):
            with torch.no_grad():
                return product(vectors)
        if len(self.x) > 1:
            return torch.stack([product(one) for one in vectors])
        count = len(vectors) if self.together else 1
        return torch.cat([product(some) for some in vectors.squeeze(1).split(count)]).unsqueeze(1)

    def _rows(self) -> Tensor:
        return torch.linspace(0, len(self.x) - 1, min(CHECKED, len(self.x))).long()

    def _pairs(self, vectors: Tensor) -> Tensor:
        """Return the vectors, (K, B, ...), of the samples that are checked: (m, ...)."""
        return vectors[:, self._rows().to(vectors.device)].flatten(0, 1)


def probes(x: Tensor) -> Tensor:
    """Return the directions of the check at one sample, (2, 1, C, H, W): random, and structured.

    A number that the network reads out (a norm, a mean, a maximum) is an error of rank one: random vectors see it as one over
    sqrt(n), structured ones, x itself, a constant, a slope, in full.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *x.shape, generator=generator, dtype=torch.float64).to(x.device)
    along = torch.linspace(-1, 1, x.shape[-1], dtype=torch.float64, device=x.device).expand(x.shape)
    parts = [x.double(), torch.ones_like(along), along, along.square()]
    structured = sum(part / part.norm().clamp(min=1e-300) * weight for part, weight in zip(parts, (1.0, 0.7, 0.5, 0.3), strict=True))
    unit = noise[1] / noise[1].norm() + structured
    return torch.stack([noise[0] / noise[0].norm(), unit / unit.norm()]).to(x.dtype) * x[0].numel() ** 0.5

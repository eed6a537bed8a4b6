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
from functools import partial

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.derivative.agreement import Comparison, Verdict
from jacobian_lab.derivative.any_function import AnyFunction
from jacobian_lab.derivative.engines import Choice, Engine, Engines, first_line
from jacobian_lab.derivative.fallbacks import Differences, DoubleBackward
from jacobian_lab.derivative.fingerprint import Weights
from jacobian_lab.derivative.guards import check_evaluation_mode, modules_called
from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.derivative.precision import promoted
from jacobian_lab.derivative.probes import probe
from jacobian_lab.derivative.settings import Float32, as_called
from jacobian_lab.derivative.verification import Verification, warn_of
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import DerivativeWarning, InputError


class Ladder:
    """Products of `F'(x)`, F a denoiser's network at one time, by the first path that passes the
    check.

    Parameters
    ----------
    denoiser : Denoiser or AnyFunction
    x : Tensor, shape (B, *shape)
        Finite, detached. All methods are called inside
        `jacobian_lab.derivative.settings.differentiable`.
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
        Of a ladder of the same network at another point: if the time is the same, and the network
        reads out no numbers, its paths are taken without another check.
    memory : int, optional
        Bytes that the vectors of one pass may take; see
        `jacobian_lab.derivative.engines.Engines`.

    Attributes
    ----------
    value : Tensor, shape (B, *shape)
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
    scale : float
        Root mean square that x has by its schedule, for data of size 1.
    """

    def __init__(
        self,
        denoiser: Denoiser | AnyFunction,
        x: Tensor,
        t: Time,
        method: str = "exact",
        step: float | None = None,
        graph: bool = False,
        like: Choice | None = None,
        memory: int | None = None,
    ) -> None:
        self.x, self.t, self.method, self._step = x, t, method, step
        self.path = self.reason = ""
        self.error = self.disagreement = 0.0
        self.scale = float(sum(c.square().max() for c in denoiser.schedule(t)) ** 0.5)
        self._forward: Engine | None = None
        self._reverse: Engine | None = None
        like = like if like is not None and like.t == t else None
        self.function = as_called(promoted(partial(denoiser.output, t=t)))
        known = [*denoiser.parameters(), *denoiser.buffers()]
        self._engines = Engines(self.function, x, known, memory)
        with modules_called() as called:
            self._engines.run(method == "exact", graph, None if like is None else like.eps)
        self.value, self.eps = self._engines.value, self._engines.eps
        self._check = Verification(self._engines, self.scale)
        self.modules = list(
            {id(m): m for m in [*called, *denoiser.modules()] if m is not denoiser}.values()
        )
        check_evaluation_mode(denoiser, called)
        remedy = (
            f" at t = {t}, though x_t is finite: check the weights, "
            "the precision, and that t is on the network's own scale"
        )
        _require.finite("the network's output F(x_t, t)", self.value, remedy)
        if like is None:
            self._kept = Weights(self.modules), Float32(x.device.type)
        else:
            self._kept = like.kept
            self._follow(like)

    @property
    def linear(self) -> Linearisation | None:
        """The recording, made when it is first asked for; None where there is none."""
        return self._engines.linear

    @property
    def together(self) -> bool:
        """Whether F takes several samples at once and does not mix them, as far as is known."""
        return self._engines.together

    @property
    def step(self) -> float | None:
        """Step of the differences, if it is they that are taken."""
        return self._forward.step if isinstance(self._forward, Differences) else None

    @property
    def hides(self) -> bool:
        """Whether F may hold a number that was read out of x; a recording tells."""
        return self.linear is None or bool(self.linear.reads)

    def jvp(self, v: Tensor) -> Tensor:
        """Return `F' v` for K vectors of each sample, (K, B, *shape)."""
        if self._forward is None:
            return self.choose(v)
        return self._engines.apply(self._forward, v)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `F'^T u` for K vectors of each sample, (K, B, *shape).

        Raises
        ------
        InputError
            If there is no derivative that is the transpose of `J v`.
        """
        if self._reverse is None:
            return self._choose_reverse(u)
        return self._engines.apply(self._reverse, u, transposed=True)

    def choose(self, v: Tensor) -> Tensor:
        """Take the first path whose products along v, (K, B, *shape), pass the check; return these
        products.

        Where the network reads numbers out of what depends on x, the check goes along structured
        directions too.
        """
        exact, more = self.method == "exact", v[:0]
        asked, zero = self._telling(v, self.x)
        if exact and self.hides and not torch.equal(asked[:1], known := probe(self.x)):
            more = known
        directions = torch.cat([asked, more])  # a copy: v is the caller's
        comparison = self._check.compare_at(directions, alone=exact and self.hides)
        products = (self._climb if exact else self._as_asked)(directions, comparison)
        self._check.checked = directions, products
        return products[: len(v)].masked_fill(zero, 0)

    def _telling(self, vectors: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors, (K, B, *shape), with a probe in the place of each that is zero, which
        every path maps to zero, right or wrong; and where these are, (K, B, 1, ...). `like` is x or
        F(x), whichever the vectors have the shape of.
        """
        zero = (vectors == 0).flatten(2).all(2).reshape(*vectors.shape[:2], *[1] * (like.ndim - 1))
        return (torch.where(zero, probe(like), vectors) if zero.any() else vectors), zero

    def choice(self) -> Choice:
        """Return what was chosen, for another point."""
        names: dict[type, str] = {Linearisation: "linearised", DoubleBackward: "double backward"}
        paths = self.path, self.reason, names.get(type(self._reverse), "")
        known = self.together, self._engines.reads
        return Choice(self.t, *paths, self.error, self.eps, *known, self.step, self._kept)

    def check_weights(self) -> None:
        """Raise if the network's weights changed, or the precision of float32: call it before
        products at a point that is kept.
        """
        weights, float32 = self._kept
        weights.check()
        if self.eps > torch.finfo(torch.float64).eps:
            float32.check()

    def forget(self) -> None:
        """Free the graphs that the fallbacks keep."""
        for engine in (self._forward, self._reverse):
            if isinstance(engine, DoubleBackward):
                engine.forget()

    def chunk(self) -> int:
        """Return how many vectors `J v` takes in one pass, by the memory that they need."""
        return self._engines.chunk(self.path == "linearised")

    def _follow(self, like: Choice) -> None:
        """Take the paths of a ladder at another point of the same time, where they exist here."""
        self._engines.reads |= like.reads
        if self._engines.reads and (like.transposed or not like.path.endswith("difference")):
            return  # what was read out may be constant there and not here
        forward = self._engines.at(like.path, like.step) if like.path else None
        reverse = self._engines.at(like.transposed) if like.transposed else None
        if (forward is None) == (not like.path) and (reverse is None) == (not like.transposed):
            self._forward, self._reverse = forward, reverse
            self.path, self.reason, self.error = like.path, like.reason, like.error
            self._engines.together = like.together

    def _as_asked(self, v: Tensor, comparison: Comparison) -> Tensor:
        """Return differences along v of the kind asked for, and note how far off they are."""
        path = f"{self.method} difference"
        products = self._accept(path, self._engines.at(path, self._step), "as asked", v)
        self.error = max(
            comparison.verdict(self._check.pairs(products)).error, comparison.best()[1]
        )
        return products

    def _climb(self, v: Tensor, comparison: Comparison) -> Tensor:
        """Return the products along v of the first engine that agrees with the differences."""
        reason = ""
        if self.linear is None:
            reason = f"the network cannot be recorded: {self._engines.failure}"
        for path in ("linearised", "double backward", "forward mode"):
            engine = self._engines.at(path)
            if engine is None:
                continue
            products, verdict, problem = self._tried(engine, v, comparison)
            if verdict.agrees and (verdict.resolved or path == "linearised"):
                self._forward, self.path, self.error = engine, path, verdict.error
                self.reason = engine.reason if isinstance(engine, Linearisation) else reason
                warn_of(verdict, engine)
                return products
            if verdict.agrees:
                problem = "cannot be told right or wrong by differences of the network's output"
            if verdict.error < torch.inf:
                self.disagreement = max(self.disagreement, verdict.error)
                if path == "linearised":
                    self._check.check_stateless(v, products)
            recording = path == "linearised"
            reason = f"the recording {problem}" if recording else f"{reason}; no {path}: {problem}"
        return self._by_differences(v, comparison, reason)

    def _tried(
        self, engine: Engine, v: Tensor, comparison: Comparison
    ) -> tuple[Tensor, Verdict, str]:
        """Return an engine's products along v, what the check says, and what would be wrong."""
        try:
            products = self._engines.apply(engine, v)
            verdict = self._check.verdict(comparison, products)
        # PyTorch raises whatever it likes where a derivative is missing
        except Exception as fault:
            return v, Verdict(False, torch.inf), first_line(fault)
        problem = f"disagrees with differences of the network's output by {verdict.error:.1e}"
        return products, verdict, problem

    def _by_differences(self, v: Tensor, comparison: Comparison, reason: str) -> Tensor:
        """Return central differences along v at the step that resolves most, and warn."""
        step, self.error = comparison.best()
        warnings.warn(
            f"J v by central differences, which agree from step to step to {self.error:.1e}:"
            f" {reason}",
            DerivativeWarning,
            stacklevel=3,
        )
        path = "central difference"
        return self._accept(path, self._engines.at(path, self._step or step), reason, v)

    def _accept(self, path: str, engine: Engine | None, reason: str, v: Tensor) -> Tensor:
        assert engine is not None
        self._forward, self.path, self.reason = engine, path, reason
        return self._engines.apply(engine, v)

    def _choose_reverse(self, u: Tensor) -> Tensor:
        """Return `F'^T u` of the first engine whose products are the transpose of `J v`."""
        (asked, zero), problems = self._telling(u, self.value), []
        paths = ("linearised", "double backward")
        for path in paths if self._engines.graph is None else reversed(paths):
            name = "the recording" if path == "linearised" else "PyTorch's autograd"
            rejected = path == "linearised" and self.path not in ("", path)
            engine = None if rejected else self._engines.at(path)
            if engine is None:
                continue
            try:
                found = self._engines.apply(engine, asked, transposed=True)
                verdict = self._check.adjoint(engine, asked, found, self.path, self.error)
            except Exception as fault:  # as in _tried
                problems.append(f"{name} fails: {first_line(fault)}")
                continue
            if verdict.agrees:
                self._reverse, self.error = engine, max(self.error, verdict.error)
                warn_of(verdict, engine)
                return found.masked_fill(zero, 0)
            problems.append(
                f"{name} sees another function than the one that is computed (a detach, a no_grad,"
                f" a number read out): <u, J v> and <J^T u, v> differ by {verdict.error:.1e}"
            )
        raise InputError(
            f"J^T u needs a derivative, and {'; '.join(problems)}; J v by"
            f" {self.path or 'differences'}{self.reason and ': '}{self.reason}"
        )

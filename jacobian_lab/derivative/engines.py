"""The ways to products with the derivative of a network at one point, and how each is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from jacobian_lab.derivative.agreement import TOGETHER
from jacobian_lab.derivative.fallbacks import Differences, DoubleBackward, ForwardMode, Function
from jacobian_lab.derivative.fingerprint import Weights
from jacobian_lab.derivative.guards import check_run, is_repeated
from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.derivative.precision import observed
from jacobian_lab.derivative.probes import foreign
from jacobian_lab.derivative.settings import Float32
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import InputError

Engine: TypeAlias = Linearisation | DoubleBackward
MEMORY = {"cpu": 2**26}
"""Bytes for the vectors of one pass, by device. On the CPU, 64 MB was fastest."""
MEMORY_ELSEWHERE = 2**30
"""The same on other devices: 1 GB."""
GRAPHS = 2**29
"""The same for PyTorch's derivatives, on all devices: 512 MB, since they keep a graph for each
vector, many times the vector itself.
"""


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
    reads: bool
    """Whether the network reads numbers out of x, which a path may take for constants."""
    step: float | None
    kept: tuple[Weights, Float32]
    """What must not have changed since."""


class Engines:
    """The recording of F at x, and what there is in its place.

    Parameters
    ----------
    function : callable
        F, from (B, *shape) to the same shape.
    x : Tensor, shape (B, *shape)
    known : list of Tensor
        Weights and buffers; see `jacobian_lab.derivative.linearisation.Linearisation`.
    memory : int, optional
        Bytes that the vectors of one pass may take, also where products are checked; by default
        `MEMORY` for a recording and `GRAPHS` for PyTorch's derivatives.

    Attributes
    ----------
    value : Tensor, shape (B, *shape)
        F(x), detached, once `run` was called.
    eps : float
        Of the coarsest precision in which F computes what depends on x, likewise.
    graph : DoubleBackward or None
        Of the run, if it kept PyTorch's graph.
    failure : str
        What is in the way of a recording.
    together : bool
        Whether F takes several samples at once, and does not mix them, as far as it was asked.
    reads : bool
        Whether F reads numbers out of what depends on x, as far as that was seen.
    """

    value: Tensor
    eps: float

    def __init__(
        self, function: Function, x: Tensor, known: Iterable[Tensor], memory: int | None = None
    ) -> None:
        self.function, self.x, self.known, self._memory = function, x, known, memory
        self._chunks: dict[bool, int] = {}  # of the recording, of the others
        self.graph: DoubleBackward | None = None
        self.failure, self.together, self._separate = "", True, False
        self.reads = False
        self._linear: Linearisation | None = None
        self._has_run, self._known = False, 0.0  # distance of runs known to be of one network

    @property
    def linear(self) -> Linearisation | None:
        """The recording, made when it is first asked for; None where there is none."""
        if self._linear is None and not self.failure:
            try:
                memory = self._of_pass(recorded=True)
                found = Linearisation(self.function, self.x, self.known, memory)
            # an error of the network itself comes again without recording
            except Exception as fault:
                self.failure = first_line(fault)
                return None
            if self._has_run:
                self._check_run(found.value, found.value.new_zeros(len(self.x)))
            self._linear, self.reads = found, self.reads or bool(found.reads)
        return self._linear

    def run(self, exact: bool, graph: bool, eps: float | None) -> None:
        """Evaluate F at x, in the way that the first product needs.

        Parameters
        ----------
        exact : bool
            Record the run, if it can be recorded.
        graph : bool
            Keep PyTorch's graph instead.
        eps : float or None
            Coarsest precision inside, if it is known.
        """
        if exact and graph:
            self.graph = both = DoubleBackward(self.function, self.x)
            if eps is None:
                value, eps, _, self.reads = observed(lambda x: both.primal(len(x)), self.x)
            else:
                value = both.primal(len(self.x))
            both.told()  # of this run: its first product need not wait for a device
        elif exact and self.linear is not None:
            value, eps = self.linear.value, self.linear.coarsest
        else:
            with torch.no_grad():
                value, eps, _, self.reads = observed(self.function, self.x)
        self.value, self.eps, self._has_run = value.detach(), eps, True

    def at(self, path: str, step: float | None = None) -> Engine | None:
        """Return the engine of a path; None where there is no recording."""
        match path:
            case "linearised":
                return self.linear
            case "double backward":
                return self.graph or DoubleBackward(self.function, self.x)
            case "forward mode":
                return ForwardMode(self.function, self.x)
        kind: Literal["forward", "central"] = (
            "forward" if path == "forward difference" else "central"
        )
        return Differences(self.function, self.x, kind, step, self.value, self.eps)

    def apply(self, engine: Engine, vectors: Tensor, transposed: bool = False) -> Tensor:
        """Return products with K vectors of each sample.

        The fallbacks take one sample and K vectors, or several samples and a vector for each.

        Parameters
        ----------
        engine : Engine
        vectors : Tensor, shape (K, B, *shape)
        transposed : bool
            Whether the products are `F'^T u`.

        Returns
        -------
        Tensor, shape (K, B, *shape)
        """
        recorded = isinstance(engine, Linearisation)
        product: Callable[[Tensor], Tensor] = engine.vjp if transposed else engine.jvp
        if isinstance(engine, DoubleBackward):
            product = partial(self._watched, engine, product)
        if not recorded and len(self.x) > 1:
            return torch.stack([product(one) for one in vectors])
        count = 1 if len(vectors) == 1 else self.chunk(recorded)
        if count > 1 and not recorded and not self._takes_many():
            count = 1
        parts = torch.tensor_split(vectors, -(-len(vectors) // count))
        if recorded:
            with torch.no_grad():
                found = [product(some) for some in parts]
        else:
            found = [product(some.squeeze(1)).unsqueeze(1) for some in parts]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _watched(
        self, engine: DoubleBackward, product: Callable[[Tensor], Tensor], vectors: Tensor
    ) -> Tensor:
        """Return products; raise if the network that ran for them is not what F(x) is of."""
        found, seen = product(vectors), engine.told()
        if seen is not None:
            try:
                self._check_run(*seen)
            except InputError:
                engine.forget()  # else the next product would take the other network's graph
                raise
        return found

    def _check_run(self, seen: Tensor, blur: Tensor) -> None:
        if not self.x.is_meta:
            at = self.function, self.x, self.value, self.eps
            self._known = check_run(*at, seen, blur, self._known)

    def chunk(self, recorded: bool) -> int:
        """Return how many vectors fit in the memory of one pass, of the recording or of another
        engine.
        """
        if recorded not in self._chunks:
            engine = self.linear if recorded else DoubleBackward(self.function, self.x[:1])
            assert engine is not None
            each = max(1, engine.bytes_per_vector())
            self._chunks[recorded] = int(max(1, self._of_pass(recorded) // each))
        return self._chunks[recorded]

    def points(self) -> int:
        """Return how many points F takes in one pass of a check: as many as vectors fit in."""
        if self._linear is None and self._memory is None:
            return TOGETHER  # to know better would take a graph
        return min(TOGETHER, len(self.x) * self.chunk(self._linear is not None))

    def _of_pass(self, recorded: bool) -> int:
        own = MEMORY.get(self.x.device.type, MEMORY_ELSEWHERE) if recorded else GRAPHS
        return self._memory or own

    def _takes_many(self) -> bool:
        """Return whether F takes several samples at once and does not mix them: what the fallbacks
        need for several vectors.
        """
        if self.together and not self._separate:
            with torch.no_grad():
                beside = self.function(torch.cat([foreign(self.x), self.x]))[1:]
            self._separate = self.together = is_repeated(beside, self.value, self.eps)
        return self.together


def first_line(fault: Exception) -> str:
    """Return the first line of an error's message, or its name."""
    return str(fault).split("\n")[0] or type(fault).__name__

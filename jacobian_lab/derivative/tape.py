"""The tape of a recording: linear maps between numbered tangents, in the order of the run."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch

from jacobian_lab.derivative.autograd_rules import by_derivative
from jacobian_lab.derivative.linear_map import Call, TangentMap


@dataclass
class Step:
    """One linear map, between numbered tangents."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    linear: TangentMap
    last: tuple[int, ...] = ()
    """Tangents that nothing after this step needs."""
    narrows_ahead: bool = False
    """Whether `push` takes tangents into half precision."""
    narrows_back: bool = False
    """Whether `pull` does."""


@dataclass
class Recorded:
    """What one operation of the run left on the tape."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    found: Call | list[TangentMap]
    """A call is left to PyTorch's derivative, which is taken after the run."""


class Tape:
    """What a run recorded.

    Attributes
    ----------
    sizes : list of int
        Bytes of each tangent, by its number.
    dtypes : list of dtype
        Type of each tangent, by its number.
    calls : list of Recorded
        In the order of the run.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.dtypes: list[torch.dtype] = []
        self.calls: list[Recorded] = []

    def slot(self, size: int, dtype: torch.dtype) -> int:
        """Return the number of a new tangent of so many bytes."""
        self.sizes.append(size)
        self.dtypes.append(dtype)
        return len(self.sizes) - 1

    def append(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], found: Call | list[TangentMap]
    ) -> None:
        """Record an operation.

        Parameters
        ----------
        inputs, outputs : tuple of int
            Numbers of the tangents that it takes and makes.
        found : Call or list of TangentMap
            Its Jacobian as maps that are applied one after the other, or the operation itself where
            it has no rule.
        """
        self.calls.append(Recorded(inputs, outputs, found))

    def steps(self, memory: float = inf) -> tuple[list[Step], set[str]]:
        """Return the steps, and which operations borrow PyTorch's derivatives: those are taken now,
        outside the recording, within this memory.
        """
        steps: list[Step] = []
        borrowed = set()
        for call in self.calls:
            if isinstance(call.found, Call) and torch.Tag.pointwise not in call.found.func.tags:
                borrowed.add(call.found.name)
            maps = call.found
            if isinstance(maps, Call):
                maps = [by_derivative(maps, memory)]
            between = [
                (self.slot(self.sizes[call.outputs[0]], self.dtypes[call.outputs[0]]),)
                for _ in maps[1:]
            ]
            for before, linear, after in zip(
                [call.inputs, *between], maps, [*between, call.outputs], strict=True
            ):
                steps.append(Step(before, after, linear))
        return steps, borrowed

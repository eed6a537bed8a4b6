"""The tensors whose values rules keep: what a network may overwrite after a rule has seen it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from jacobian_lab.derivative.arguments import each
from jacobian_lab.derivative.linear_map import Call
from jacobian_lab.derivative.places import Place, overlap, place
from jacobian_lab.derivative.storage import Memory, Storage
from jacobian_lab.derivative.tape import Recorded


class Kept:
    """The tensors that the rules of a recording keep, and how these were then.

    Parameters
    ----------
    memory : Memory
        Where the recording notes what is written.
    copied : iterable of int
        Calls, by their place on the tape, whose rules are given copies, since the run before
        overwrote what they kept.
    """

    def __init__(self, memory: Memory, copied: Iterable[int]) -> None:
        self.memory, self.copied = memory, frozenset(copied)
        # call, tensor that it keeps, how that was then
        self._kept: list[tuple[int, Tensor, tuple[Storage, int, Place]]] = []

    def keep(self, i: int, call: Call, kept: list[Tensor]) -> Call:
        """Note what the rule of a call keeps, or have it keep copies.

        Parameters
        ----------
        i : int
            The call's place on the tape.
        call : Call
        kept : list of Tensor
            Those of its arguments and results that the rule keeps.

        Returns
        -------
        Call
            The call itself, or one with copies of all tensors.
        """
        states = [self._state(tensor) for tensor in kept]
        own = [pair for pair in zip(kept, states, strict=True) if not pair[1][0].made]
        # a buffer, which the next run overwrites
        copied = i in self.copied or any(storage.written for _, (storage, *_) in own)
        if not copied:
            self._kept += [(i, tensor, state) for tensor, state in zip(kept, states, strict=True)]
            # of numpy's memory, where writes leave no version
            copied = any(not (s.known or t.untyped_storage().resizable()) for t, (s, *_) in own)
        if not copied:
            return call
        return replace(call, args=each(Tensor.clone, call.args), out=each(Tensor.clone, call.out))

    def overwritten(self) -> set[int]:
        """Return the calls that keep values which were written to after them."""
        lost = set()
        for i, tensor, (storage, writes, there) in self._kept:
            written = any(overlap(there, p) for p in storage.written[writes:])
            if written or self.memory.of(tensor) is not storage or place(tensor) != there:
                lost.add(i)
        return lost

    def held(self, calls: list[Recorded]) -> list[tuple[Tensor, int]]:
        """Return the tensors of this run that rules hold, and their versions: a network may keep
        one and write to it later.
        """
        # autograd sees to the others
        rules = {i for i, call in enumerate(calls) if not isinstance(call.found, Call)}
        return [
            (tensor, tensor._version)
            for i, tensor, (storage, *_) in self._kept
            if i in rules and not storage.known and not tensor.is_inference()
        ]

    def _state(self, tensor: Tensor) -> tuple[Storage, int, Place]:
        storage = self.memory.of(tensor)
        return storage, len(storage.written), place(tensor)

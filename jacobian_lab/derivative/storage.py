"""Which tangent belongs to which place in memory: views of one storage share its numbers, so they
share their tangents.

A tangent is found by storage and place, not by tensor: whatever a name is (a view, `.data`, a
subclass of Tensor), it has the tangent of what lies there now. A write through one name changes the
tangent of the whole storage, from which the tangent of any other name is read when it is next
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from jacobian_lab.derivative.linear_map import Call, TangentMap, UnsupportedError, rule
from jacobian_lab.derivative.places import Flat, Place, covers, is_one_to_one, place, real_type


@dataclass(eq=False)
class Storage:
    """What is known of one storage during a recording."""

    alive: StorageWeakRef
    """Keeps the address from being given to another storage."""
    tangents: dict[Place, int] = field(default_factory=dict)
    """Numbers of the tangents of what lies there now; none where nothing depends on x."""
    written: list[Place] = field(default_factory=list)
    """Where operations wrote, in order."""
    made: bool = False
    """By an operation of this run."""
    known: bool = False
    """From before the run: a weight or a buffer."""
    noted: bool = False
    """Neither made nor known, and its values are noted."""
    unwritten: bool = False
    """Made, and not yet filled by an operation."""
    zeros: bool = False
    """Made as zeros, and not yet written to by an operation."""
    exposed: bool = False
    """Code that PyTorch does not see may write to it."""


Record = Callable[[tuple[int, ...], Place, TangentMap], int]


class Memory:
    """The storages that a recording meets.

    Parameters
    ----------
    record : callable
        From numbers of tangents, the place of a result and a linear map to the number of the
        result's tangent.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self._storages: dict[int, Storage] = {}

    def of(self, tensor: Tensor) -> Storage:
        """Return what is known of the tensor's storage."""
        untyped = tensor.untyped_storage()
        found = self._storages.get(untyped._cdata)
        if found is None:
            found = self._storages[untyped._cdata] = Storage(StorageWeakRef(untyped))  # type: ignore[no-untyped-call]
        return found

    def number(self, tensor: Tensor) -> int | None:
        """Return the number of the tensor's tangent; None if it does not depend on x."""
        if tensor.layout is not torch.strided:
            return None
        storage = self.of(tensor)
        if not storage.tangents:
            return None
        here = place(tensor)
        if here not in storage.tangents:
            source = next(
                (
                    p
                    for p in storage.tangents
                    if real_type(p) == real_type(here) and covers(p, here)
                ),
                None,
            )
            if source is None:
                raise UnsupportedError(
                    "memory that depends on x is read in another way than it was written, as"
                    f" {here.dtype} of shape {here.shape}"
                )
            storage.tangents[here] = self.record(
                (storage.tangents[source],), here, _read(source, here)
            )
        return storage.tangents[here]

    def has(self, tensor: Tensor) -> bool:
        """Whether the tangent of the tensor's own place is known."""
        return place(tensor) in self.of(tensor).tangents

    def write(self, tensor: Tensor, number: int | None) -> None:
        """Note that `tensor` was written to: with what has this tangent, or does not depend on x
        (None).
        """
        storage, here = self.of(tensor), place(tensor)
        storage.written.append(here)
        storage.unwritten = storage.zeros = False
        if number is None and not storage.tangents:
            return
        _check_writable(tensor, here, storage.tangents)
        entries = tensor.untyped_storage().nbytes() // tensor.element_size()
        if tensor.numel() == entries:
            storage.tangents = {} if number is None else {here: number}
            return
        whole = Place(here.dtype, (entries,), (1,), 0, False, False)
        if storage.tangents:
            places = [*storage.tangents, here]
            base = next(
                (p for p in storage.tangents if all(p == q or covers(p, q) for q in places)), None
            )
            if base is None:
                raise UnsupportedError(
                    "an operation in place writes beside what depends on x in the same memory"
                )
            before: tuple[int, ...] = (storage.tangents[base],)
        else:
            base, before = whole, ()
        after = () if number is None else (number,)
        found = self.record(
            (*before, *after), base, _overwrite(base, here, bool(before), bool(after))
        )
        storage.tangents = {base: found} if number is None else {base: found, here: number}


def _check_writable(tensor: Tensor, here: Place, tangents: Iterable[Place]) -> None:
    """Raise if a write changes entries in a way that their tangents cannot follow."""
    if here.conjugate or here.negative or any(real_type(p) != real_type(here) for p in tangents):
        raise UnsupportedError(
            f"an operation in place writes as {here.dtype} to memory that has another type"
        )
    if not tensor.is_contiguous() and not is_one_to_one(here):
        raise UnsupportedError(
            "an operation in place writes to a tensor of which several entries share their memory"
        )


def _read(source: Place, target: Place) -> TangentMap:
    """Return the map from the tangent of one place to that of another inside it."""
    flat, exact = Flat(source, target), is_one_to_one(target)

    def push(t: Tensor) -> Tensor:
        memory = flat.zeros(t)
        flat.put(memory, source, t)
        return flat.get(memory, target)

    def pull(u: Tensor) -> Tensor:
        memory = flat.zeros(u)
        (flat.put if exact else flat.add)(memory, target, u)
        return flat.get(memory, source)

    return TangentMap(push, pull)


@rule("as_strided_scatter")
def _scattered(call: Call) -> TangentMap:
    """Return the map that PyTorch gets wrong: its derivative keeps what is overwritten, and forgets
    the rest.
    """
    shape, stride, offset = call.args[2:]
    base = place(call.out)
    part = base._replace(
        shape=tuple(shape), stride=tuple(stride), offset=base.offset if offset is None else offset
    )
    return _overwrite(base, part, 0 in call.active, 1 in call.active)


def _overwrite(base: Place, part: Place, has_base: bool, has_part: bool) -> TangentMap:
    """Return the map from the tangents of a place, and of what is written to a part of it, to that
    of the place afterwards.
    """
    flat = Flat(base, part)

    def push(*ts: Tensor) -> Tensor:
        memory = flat.zeros(ts[0])
        if has_base:
            flat.put(memory, base, ts[0])
        if has_part:
            flat.put(memory, part, ts[-1])
        else:
            flat.view(memory, part).zero_()
        return flat.get(memory, base)

    def pull(u: Tensor) -> list[Tensor]:
        memory = flat.zeros(u)
        flat.put(memory, base, u)
        found = [flat.get(memory, part).clone()] if has_part else []
        if has_base:
            flat.view(memory, part).zero_()
            found.insert(0, flat.get(memory, base))
        return found

    return TangentMap(push, pull)

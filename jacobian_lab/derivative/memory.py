"""Which tangent belongs to which place in memory: views of one storage share its numbers, so they
share their tangents.

A tangent is found by storage and place, not by tensor: whatever a name is (a view, `.data`, a
subclass of Tensor), it has the tangent of what lies there now. A write through one name changes the
tangent of the whole storage, from which the tangent of any other name is read when it is next
needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from jacobian_lab.derivative.linear_map import Call, Linear, UnsupportedError, rule


class Place(NamedTuple):
    """Where the entries of a tensor lie in its storage."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    conjugate: bool
    negative: bool

    def in_reals(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Return shape, stride and offset, a complex number as two reals."""
        if not self.dtype.is_complex:
            return self.shape, self.stride, self.offset
        return (*self.shape, 2), (*(2 * s for s in self.stride), 1), 2 * self.offset


def place(tensor: Tensor) -> Place:
    """Return where the entries of `tensor` lie in its storage."""
    where = tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
    return Place(tensor.dtype, *where, tensor.is_conj(), tensor.is_neg())


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


Record = Callable[[tuple[int, ...], Place, Linear], int]


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
                (p for p in storage.tangents if _real(p) == _real(here) and _covers(p, here)), None
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
        storage = self.of(tensor)
        storage.written.append(place(tensor))
        storage.unwritten = storage.zeros = False
        if number is None and not storage.tangents:
            return
        here = place(tensor)
        if (
            here.conjugate
            or here.negative
            or any(_real(p) != _real(here) for p in storage.tangents)
        ):
            raise UnsupportedError(
                f"an operation in place writes as {here.dtype} to memory that has another type"
            )
        if not tensor.is_contiguous() and not _is_one_to_one(here):
            raise UnsupportedError(
                "an operation in place writes to a tensor of which several entries share their"
                " memory"
            )
        entries = tensor.untyped_storage().nbytes() // tensor.element_size()
        if tensor.numel() == entries:
            storage.tangents = {} if number is None else {here: number}
            return
        whole = Place(here.dtype, (entries,), (1,), 0, False, False)
        if storage.tangents:
            places = [*storage.tangents, here]
            base = next(
                (p for p in storage.tangents if all(p == q or _covers(p, q) for q in places)), None
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


class _Flat:
    """K tangents, each laid out as the storage is, in real numbers, from the first to the last
    entry of some places.
    """

    def __init__(self, *places: Place) -> None:
        spans = [
            (offset, offset + 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)))
            for shape, stride, offset in (p.in_reals() for p in places)
            if 0 not in shape
        ]
        # a complex number begins at an even one
        self.low = min((low for low, _ in spans), default=0) // 2 * 2
        self.size = max((high for _, high in spans), default=0) - self.low
        self.size += self.size % 2

    def zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros(len(like), self.size, dtype=like.dtype.to_real())

    def view(self, flat: Tensor, p: Place) -> Tensor:
        shape, stride, offset = p.in_reals()
        return flat.as_strided(
            (len(flat), *shape), (self.size, *stride), 0 if 0 in shape else offset - self.low
        )

    def get(self, flat: Tensor, p: Place) -> Tensor:
        found = self.view(flat, p)
        return _signed(torch.view_as_complex(found) if p.dtype.is_complex else found, p)

    def put(self, flat: Tensor, p: Place, t: Tensor) -> None:
        self.view(flat, p).copy_(_reals(_signed(t, p)))

    def add(self, flat: Tensor, p: Place, u: Tensor) -> None:
        """Add, also where several entries of the place are one of the storage: the transpose of
        `get`.
        """
        where = torch.arange(self.size, device=u.device)[None]
        flat.index_add_(
            1, self.view(where, p).reshape(-1), _reals(_signed(u, p)).reshape(len(u), -1)
        )


def _real(p: Place) -> torch.dtype:
    return p.dtype.to_real() if p.dtype.is_complex else p.dtype


def _signed(t: Tensor, p: Place) -> Tensor:
    """Conjugate and negate as the place does; that is its own transpose."""
    t = t.conj() if p.conjugate else t
    return -t if p.negative else t


def _reals(t: Tensor) -> Tensor:
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


@lru_cache(maxsize=256)
def _covers(base: Place, part: Place) -> bool:
    """Whether each entry of `part` is one of `base`, whose entries are all different."""
    flat = _Flat(base, part)
    mask = torch.zeros(1, flat.size, dtype=torch.bool)
    flat.view(mask, base).fill_(True)
    return int(mask.sum()) == flat.view(mask, base).numel() and bool(flat.view(mask, part).all())


@lru_cache(maxsize=256)
def overlap(p: Place, q: Place) -> bool:
    """Whether two places of one storage have an entry in common."""
    if _real(p) != _real(q):
        return True
    flat = _Flat(p, q)
    mask = torch.zeros(1, flat.size, dtype=torch.bool)
    flat.view(mask, p).fill_(True)
    return bool(flat.view(mask, q).any())


@lru_cache(maxsize=256)
def _is_one_to_one(p: Place) -> bool:
    return _covers(p, p)


def _read(source: Place, target: Place) -> Linear:
    """Return the map from the tangent of one place to that of another inside it."""
    flat, exact = _Flat(source, target), _is_one_to_one(target)

    def push(t: Tensor) -> Tensor:
        memory = flat.zeros(t)
        flat.put(memory, source, t)
        return flat.get(memory, target)

    def pull(u: Tensor) -> Tensor:
        memory = flat.zeros(u)
        (flat.put if exact else flat.add)(memory, target, u)
        return flat.get(memory, source)

    return Linear(push, pull)


@rule("as_strided_scatter")
def _scattered(call: Call) -> Linear:
    """Return the map that PyTorch gets wrong: its derivative keeps what is overwritten, and forgets
    the rest.
    """
    shape, stride, offset = call.args[2:]
    base = place(call.out)
    part = base._replace(
        shape=tuple(shape), stride=tuple(stride), offset=base.offset if offset is None else offset
    )
    return _overwrite(base, part, 0 in call.active, 1 in call.active)


def _overwrite(base: Place, part: Place, has_base: bool, has_part: bool) -> Linear:
    """Return the map from the tangents of a place, and of what is written to a part of it, to that
    of the place afterwards.
    """
    flat = _Flat(base, part)

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

    return Linear(push, pull)

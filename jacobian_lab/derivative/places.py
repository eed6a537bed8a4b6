"""Where the entries of a tensor lie in its storage, and reading and writing tangents there."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


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


class Flat:
    """The layout of K tangents as their storage is laid out: real numbers, from the first to the
    last entry of some places.
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
        """Return a layout of zeros for as many tangents as `like` has."""
        return like.new_zeros(len(like), self.size, dtype=like.dtype.to_real())

    def view(self, flat: Tensor, p: Place) -> Tensor:
        """Return the real numbers of a place, as a view of the layout."""
        shape, stride, offset = p.in_reals()
        return flat.as_strided(
            (len(flat), *shape), (self.size, *stride), 0 if 0 in shape else offset - self.low
        )

    def get(self, flat: Tensor, p: Place) -> Tensor:
        """Return the tangents of a place, in its type and shape."""
        found = self.view(flat, p)
        return _signed(torch.view_as_complex(found) if p.dtype.is_complex else found, p)

    def put(self, flat: Tensor, p: Place, t: Tensor) -> None:
        """Write the tangents of a place.

        Parameters
        ----------
        flat : Tensor, shape (K, size)
            The layout.
        p : Place
        t : Tensor, shape (K, *p.shape)
        """
        self.view(flat, p).copy_(_reals(_signed(t, p)))

    def add(self, flat: Tensor, p: Place, u: Tensor) -> None:
        """Add cotangents of a place: the transpose of `get`, also where several entries of the
        place are one of the storage.

        Parameters
        ----------
        flat : Tensor, shape (K, size)
            The layout.
        p : Place
        u : Tensor, shape (K, *p.shape)
        """
        where = torch.arange(self.size, device=u.device)[None]
        flat.index_add_(
            1, self.view(where, p).reshape(-1), _reals(_signed(u, p)).reshape(len(u), -1)
        )


def real_type(p: Place) -> torch.dtype:
    """Return the type of the real numbers that the entries of a place consist of."""
    return p.dtype.to_real() if p.dtype.is_complex else p.dtype


def _signed(t: Tensor, p: Place) -> Tensor:
    """Conjugate and negate as the place does; that is its own transpose."""
    t = t.conj() if p.conjugate else t
    return -t if p.negative else t


def _reals(t: Tensor) -> Tensor:
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


@lru_cache(maxsize=256)
def covers(base: Place, part: Place) -> bool:
    """Whether each entry of `part` is one of `base`, whose entries are all different."""
    flat = Flat(base, part)
    mask = torch.zeros(1, flat.size, dtype=torch.bool, device="cpu")
    flat.view(mask, base).fill_(True)
    return int(mask.sum()) == flat.view(mask, base).numel() and bool(flat.view(mask, part).all())


@lru_cache(maxsize=256)
def overlap(p: Place, q: Place) -> bool:
    """Whether two places of one storage have an entry in common."""
    if real_type(p) != real_type(q):
        return True
    flat = Flat(p, q)
    mask = torch.zeros(1, flat.size, dtype=torch.bool, device="cpu")
    flat.view(mask, p).fill_(True)
    return bool(flat.view(mask, q).any())


@lru_cache(maxsize=256)
def is_one_to_one(p: Place) -> bool:
    """Whether all entries of a place are different ones of the storage."""
    return covers(p, p)

r"""A linear map of tangents with its transpose: what one operation of a network is at a fixed
input.

    push(*tangents of the active arguments) -> tangent of each result              J v
    pull(*cotangents of the results)        -> cotangent of each active argument   J^T u

Tangents carry K vectors at once, in one dimension in front of the operation's own shape. They are
of the type of the values: complex where those are, and then "transpose" means that of the real and
imaginary parts, `Re <u, J v> = Re <J^T u, v>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from jacobian_lab.errors import InputError


class UnsupportedError(InputError):
    """The recording cannot represent what the network does; the message says what that is."""


@dataclass(frozen=True)
class Call:
    """One recorded operation."""

    func: Any
    args: list[Any]
    """All arguments in the order of the schema, defaults filled in."""
    out: Any
    """A tensor, or several."""
    active: tuple[int, ...]
    """Positions of the arguments that depend on x; in the list, where the first argument is a list
    of tensors.
    """

    @property
    def name(self) -> str:
        """The operation's name without overload, such as "convolution"."""
        return str(self.func.overloadpacket.__name__)

    @property
    def inputs(self) -> list[Tensor]:
        """The active arguments."""
        args = self.args[0] if isinstance(self.args[0], (list, tuple)) else self.args
        return [args[i] for i in self.active]


@dataclass(frozen=True)
class TangentMap:
    """A linear map of tangents with its transpose."""

    push: Callable[..., Any]
    pull: Callable[..., Any]
    diagonal: Tensor | complex | None = None
    """Set where the map is the product with it, in the shape of the argument: neighbours are
    merged.
    """


MANY = 16
"""Batch size from which float32 CPU products run in channels_last: oneDNN computes in that layout,
and fewer images do not repay the change.
"""
Rule: TypeAlias = Callable[[Call], TangentMap | list[TangentMap] | None]
"""A list of maps is applied one after the other; None leaves the operation to PyTorch's
derivative.
"""
RULES: dict[str, Rule] = {}
"""Rules by the name of the operation, filled by `rule` as their modules are imported."""
KEEPING = frozenset({"mul", "mm", "bmm", "addmm", "baddbmm"})
"""Rules that keep arguments that depend on x, which must not change afterwards; all keep the
constant ones.
"""
KEEPING_RESULT = frozenset({"_softmax", "_safe_softmax"})
"""Rules that keep the operation's result, which must not change afterwards either."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule for operations of these names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def diagonal_map(d: Tensor | complex) -> TangentMap:
    """Return the product with a number, or with a tensor that broadcasts to the argument's shape
    without enlarging it.
    """

    def scale(t: Tensor) -> Tensor:
        # a product of two layouts takes three times as long
        if isinstance(d, Tensor) and d.ndim == 4 and t.stride(2) == 1:
            return t * d.contiguous(memory_format=torch.channels_last)
        return t * d

    return TangentMap(scale, lambda u: u * conjugate(d) if is_complex(d) else scale(u), d)


def is_complex(d: Tensor | complex) -> bool:
    """Whether a number or the numbers of a tensor are complex."""
    return d.is_complex() if isinstance(d, Tensor) else isinstance(d, complex)


def conjugate(d: Any) -> Any:
    """Return the conjugate: what the transpose of a product with `d` multiplies by, for the inner
    product Re <u, v>.
    """
    return (d.conj() if isinstance(d, Tensor) else d.conjugate()) if is_complex(d) else d


def cast(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert tangents; complex to real is the real part, which is the transpose of real to
    complex.

    They stay as they are where the values are kept in one byte each, in which nothing is computed.
    """
    return (
        t
        if dtype.itemsize == 1
        else (t.real if t.is_complex() and not dtype.is_complex else t).to(dtype)
    )


IDENTITY = TangentMap(lambda t: t, lambda u: u, 1.0)
"""The map of operations that change nothing: dropped when neighbours are merged."""


def broadcast(t: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast `t` to `shape`, both behind the K vectors."""
    return t.reshape(len(t), *(1,) * (len(shape) + 1 - t.ndim), *t.shape[1:]).expand(-1, *shape)


def unbroadcast(u: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the transpose of `broadcast`: sum `u` over what `shape` was broadcast along."""
    extra = u.ndim - 1 - len(shape)
    over = [
        *range(1, 1 + extra),
        *(1 + extra + i for i, n in enumerate(shape) if n != u.shape[1 + extra + i]),
    ]
    return (u.sum(over, keepdim=True) if over else u).reshape(len(u), *shape)


def images(t: Tensor, shape: Sequence[int], layout: torch.memory_format) -> Tensor:
    """Merge the K vectors with the batch: K B images.

    Parameters
    ----------
    t : Tensor, shape (K, B, ...)
    shape : sequence of int
        (B, ...).
    layout : torch.memory_format
        Layout of the operation itself, which few images keep; see `MANY`.

    Returns
    -------
    Tensor, shape (K B, ...)
    """
    merged = t.reshape(-1, *shape[1:])
    merged = merged.contiguous(
        memory_format=torch.channels_last if _is_better_channels_last(merged) else layout
    )
    # a stride that means nothing, from which kernels guess the layout
    if layout is torch.channels_last and merged.shape[0] == 1:
        return merged.as_strided(merged.shape, (merged.numel(), *merged.stride()[1:]))
    return merged


def layout_of(x: Tensor) -> torch.memory_format:
    """Return the memory layout that kernels take for x."""
    last = (
        x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    )
    return torch.channels_last if last else torch.contiguous_format


def _is_better_channels_last(x: Tensor) -> bool:
    """Whether x is for oneDNN, which computes in this layout and sorts any other; fewer images do
    not repay the change.
    """
    return (
        x.ndim == 4
        and x.shape[0] >= MANY
        and x.device.type == "cpu"
        and x.dtype is torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def filled(tangents: Sequence[Tensor | None], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the tangents with zeros, of these shapes, for those that are None."""
    some = next(t for t in tangents if t is not None)
    return [
        some.new_zeros(()).expand(len(some), *shape) if t is None else t
        for t, shape in zip(tangents, shapes, strict=True)
    ]


def weighted(call: Call, factors: list[Any]) -> TangentMap:
    """Return `sum_i factor_i * tangent_i` with broadcasting: the form of every operation on each
    entry alone.
    """
    shapes, after, dtype = [x.shape for x in call.inputs], call.out.shape, call.out.dtype
    dtypes = [x.dtype for x in call.inputs]
    factors = [
        (
            f.to(call.out.device, dtype if f.is_complex() else dtype.to_real())
            if isinstance(f, Tensor)
            else f
        )
        for f in factors
    ]
    if len(factors) == 1 and shapes[0] == after and dtypes[0] == dtype:
        return diagonal_map(factors[0])

    def scaled(t: Tensor, factor: Any) -> Tensor:
        return t if isinstance(factor, int) and factor == 1 else t * factor

    def push(*ts: Tensor) -> Tensor:
        terms = [
            scaled(broadcast(cast(t, dtype), after), factor)
            for t, factor in zip(ts, factors, strict=True)
        ]
        return sum(terms[1:], terms[0])

    def pull(u: Tensor) -> list[Tensor]:
        return [
            unbroadcast(cast(scaled(u, conjugate(factor)), before), shape)
            for factor, shape, before in zip(factors, shapes, dtypes, strict=True)
        ]

    return TangentMap(push, pull)

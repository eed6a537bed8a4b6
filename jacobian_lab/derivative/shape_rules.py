"""The Jacobian of operations that move entries and compute nothing: the tangents move likewise, and
back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jacobian_lab.derivative.linear_map import (
    IDENTITY,
    Call,
    TangentMap,
    broadcast,
    cast,
    filled,
    rule,
    unbroadcast,
    weighted,
)

aten: Any = torch.ops.aten


@rule("detach", "alias", "lift_fresh", "clone", "positive", "resolve_conj", "resolve_neg")
def _same(_: Call) -> TangentMap:
    return IDENTITY


@rule("_to_copy")
def _cast(call: Call) -> TangentMap:
    before, after = call.args[0], call.out
    if (before.dtype, before.device) == (after.dtype, after.device):
        return IDENTITY
    there, back = (after.device, after.dtype), (before.device, before.dtype)
    return TangentMap(
        lambda t: cast(t.to(there[0]), there[1]), lambda u: cast(u.to(back[0]), back[1])
    )


@rule("copy", "fill")
def _copied(call: Call) -> TangentMap:
    """Return the map from what is copied: nothing is left of the first argument, which it only has
    the shape and type of.
    """
    return weighted(call, [1])


@rule("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze")
def _reshape(call: Call) -> TangentMap:
    before, after = call.args[0].shape, call.out.shape
    return TangentMap(lambda t: t.reshape(len(t), *after), lambda u: u.reshape(len(u), *before))


@rule("permute", "transpose", "t")
def _permute(call: Call) -> TangentMap:
    order = list(range(call.args[0].ndim))
    match call.name:
        case "permute":
            order = [order[i] for i in call.args[1]]
        case "transpose":
            i, j = call.args[1:]
            order[i], order[j] = order[j], order[i]
        case "t":
            order.reverse()
    there = [0, *(i + 1 for i in order)]
    back = [there.index(i) for i in range(len(there))]
    return TangentMap(lambda t: t.permute(there), lambda u: u.permute(back))


@rule("expand")
def _expand(call: Call) -> TangentMap:
    before, after = call.args[0].shape, call.out.shape
    return TangentMap(lambda t: broadcast(t, after), lambda u: unbroadcast(u, before))


@rule("roll")
def _roll(call: Call) -> TangentMap | None:
    _, shifts, dims = call.args
    if not dims:
        return None  # of all entries in a row
    over, back = [d % call.out.ndim + 1 for d in dims], [-s for s in shifts]
    return TangentMap(lambda t: t.roll(shifts, over), lambda u: u.roll(back, over))


@rule("flip")
def _flip(call: Call) -> TangentMap:
    over = [d % max(1, call.out.ndim) + 1 for d in call.args[1]] if call.out.ndim else []
    return TangentMap(lambda t: t.flip(over), lambda u: u.flip(over))


@rule("repeat")
def _repeat(call: Call) -> TangentMap:
    before, times = call.args[0].shape, call.args[1]
    shape = (*(1,) * (len(times) - len(before)), *before)
    pairs = [n for pair in zip(times, shape, strict=True) for n in pair]
    over = list(range(1, 2 * len(shape), 2))

    def pull(u: Tensor) -> Tensor:
        return u.reshape(len(u), *pairs).sum(over).reshape(len(u), *before) if over else u

    return TangentMap(lambda t: t.reshape(len(t), *shape).repeat(1, *times), pull)


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def _split(call: Call) -> TangentMap:
    dim = call.args[2] % call.args[0].ndim
    shapes = [piece.shape for piece in call.out]
    sizes = [shape[dim] for shape in shapes]
    return TangentMap(
        lambda t: torch.split(t, sizes, dim + 1), lambda *us: torch.cat(filled(us, shapes), dim + 1)
    )


@rule("unbind")
def _unbind(call: Call) -> TangentMap:
    dim = call.args[1] % call.args[0].ndim + 1
    shapes = [piece.shape for piece in call.out]
    return TangentMap(lambda t: t.unbind(dim), lambda *us: torch.stack(filled(us, shapes), dim))


@rule("cat")
def _cat(call: Call) -> TangentMap | None:
    parts, active, dim = call.args[0], call.active, call.args[1] % call.out.ndim
    if any(part.ndim != call.out.ndim for part in parts):
        return None  # an empty tensor of another rank is allowed
    shapes = [part.shape for part in parts]
    sizes = [shape[dim] for shape in shapes]

    def push(*ts: Tensor) -> Tensor:
        tangents: list[Tensor | None] = [None] * len(shapes)
        for i, t in zip(active, ts, strict=True):
            tangents[i] = t
        return torch.cat(filled(tangents, shapes), dim + 1)

    def pull(u: Tensor) -> list[Tensor]:
        pieces = torch.split(u, sizes, dim + 1)
        return [pieces[i] for i in active]

    return TangentMap(push, pull)


@rule("stack")
def _stack(call: Call) -> TangentMap:
    parts, active, dim = call.args[0], call.active, call.args[1] % call.out.ndim + 1
    shapes = [part.shape for part in parts]

    def push(*ts: Tensor) -> Tensor:
        tangents: list[Tensor | None] = [None] * len(shapes)
        for i, t in zip(active, ts, strict=True):
            tangents[i] = t
        return torch.stack(filled(tangents, shapes), dim)

    return TangentMap(push, lambda u: [u.select(dim, i) for i in active])


@rule("slice")
def _slice(call: Call) -> TangentMap:
    before, dim, start, end, step = call.args
    shape, dim = before.shape, dim % before.ndim + 1
    start, end, _ = slice(start, end).indices(shape[dim - 1])
    return TangentMap(
        lambda t: aten.slice(t, dim, start, end, step),
        lambda u: aten.slice_backward(u, (len(u), *shape), dim, start, end, step),
    )


@rule("select")
def _select(call: Call) -> TangentMap:
    before, dim, index = call.args
    shape, dim, index = before.shape, dim % before.ndim + 1, index % before.shape[dim]
    return TangentMap(
        lambda t: t.select(dim, index),
        lambda u: aten.select_backward(u, (len(u), *shape), dim, index),
    )


@rule("constant_pad_nd")
def _pad(call: Call) -> TangentMap:
    there = list(call.args[1])
    back = [-n for n in there]
    return TangentMap(
        lambda t: aten.constant_pad_nd(t, there), lambda u: aten.constant_pad_nd(u, back)
    )

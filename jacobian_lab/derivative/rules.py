r"""The Jacobian of the operations that networks are made of, as linear algebra that computes
nothing twice.

    convolution, matrix product    the same kernel, without the bias
    activation, product, quotient  a diagonal

A rule runs below autograd, once, while the network runs, and keeps what depends on the fixed input
only. Normalisations are in `jacobian_lab.derivative.normalisation`, complex numbers in
`jacobian_lab.derivative.complex_rules`, attention in `jacobian_lab.derivative.attention`; what has
no rule is left to `jacobian_lab.derivative.autograd_rules`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.derivative.linear_map import (
    IDENTITY,
    Call,
    Linear,
    cast,
    conjugate,
    filled,
    gathered,
    images,
    layout_of,
    rule,
    spread,
    weighted,
)

aten: Any = torch.ops.aten


# ------------------------------------------------------------------------------------ shapes


@rule("detach", "alias", "lift_fresh", "clone", "positive", "resolve_conj", "resolve_neg")
def _same(_: Call) -> Linear:
    return IDENTITY


@rule("_to_copy")
def _cast(call: Call) -> Linear:
    before, after = call.args[0], call.out
    if (before.dtype, before.device) == (after.dtype, after.device):
        return IDENTITY
    there, back = (after.device, after.dtype), (before.device, before.dtype)
    return Linear(lambda t: cast(t.to(there[0]), there[1]), lambda u: cast(u.to(back[0]), back[1]))


@rule("copy", "fill")
def _copied(call: Call) -> Linear:
    """Return the map from what is copied: nothing is left of the first argument, which it only has
    the shape and type of.
    """
    return weighted(call, [1])


@rule("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze")
def _reshape(call: Call) -> Linear:
    before, after = call.args[0].shape, call.out.shape
    return Linear(lambda t: t.reshape(len(t), *after), lambda u: u.reshape(len(u), *before))


@rule("permute", "transpose", "t")
def _permute(call: Call) -> Linear:
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
    return Linear(lambda t: t.permute(there), lambda u: u.permute(back))


@rule("expand")
def _expand(call: Call) -> Linear:
    before, after = call.args[0].shape, call.out.shape
    return Linear(lambda t: spread(t, after), lambda u: gathered(u, before))


@rule("roll")
def _roll(call: Call) -> Linear | None:
    _, shifts, dims = call.args
    if not dims:
        return None  # of all entries in a row
    over, back = [d % call.out.ndim + 1 for d in dims], [-s for s in shifts]
    return Linear(lambda t: t.roll(shifts, over), lambda u: u.roll(back, over))


@rule("flip")
def _flip(call: Call) -> Linear:
    over = [d % max(1, call.out.ndim) + 1 for d in call.args[1]] if call.out.ndim else []
    return Linear(lambda t: t.flip(over), lambda u: u.flip(over))


@rule("repeat")
def _repeat(call: Call) -> Linear:
    before, times = call.args[0].shape, call.args[1]
    shape = (*(1,) * (len(times) - len(before)), *before)
    pairs = [n for pair in zip(times, shape, strict=True) for n in pair]
    over = list(range(1, 2 * len(shape), 2))

    def pull(u: Tensor) -> Tensor:
        return u.reshape(len(u), *pairs).sum(over).reshape(len(u), *before) if over else u

    return Linear(lambda t: t.reshape(len(t), *shape).repeat(1, *times), pull)


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def _split(call: Call) -> Linear:
    dim = call.args[2] % call.args[0].ndim
    shapes = [piece.shape for piece in call.out]
    sizes = [shape[dim] for shape in shapes]
    return Linear(
        lambda t: torch.split(t, sizes, dim + 1), lambda *us: torch.cat(filled(us, shapes), dim + 1)
    )


@rule("unbind")
def _unbind(call: Call) -> Linear:
    dim = call.args[1] % call.args[0].ndim + 1
    shapes = [piece.shape for piece in call.out]
    return Linear(lambda t: t.unbind(dim), lambda *us: torch.stack(filled(us, shapes), dim))


@rule("cat")
def _cat(call: Call) -> Linear | None:
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

    return Linear(push, pull)


@rule("stack")
def _stack(call: Call) -> Linear:
    parts, active, dim = call.args[0], call.active, call.args[1] % call.out.ndim + 1
    shapes = [part.shape for part in parts]

    def push(*ts: Tensor) -> Tensor:
        tangents: list[Tensor | None] = [None] * len(shapes)
        for i, t in zip(active, ts, strict=True):
            tangents[i] = t
        return torch.stack(filled(tangents, shapes), dim)

    return Linear(push, lambda u: [u.select(dim, i) for i in active])


@rule("slice")
def _slice(call: Call) -> Linear:
    before, dim, start, end, step = call.args
    shape, dim = before.shape, dim % before.ndim + 1
    start, end, _ = slice(start, end).indices(shape[dim - 1])
    return Linear(
        lambda t: aten.slice(t, dim, start, end, step),
        lambda u: aten.slice_backward(u, (len(u), *shape), dim, start, end, step),
    )


@rule("select")
def _select(call: Call) -> Linear:
    before, dim, index = call.args
    shape, dim, index = before.shape, dim % before.ndim + 1, index % before.shape[dim]
    return Linear(
        lambda t: t.select(dim, index),
        lambda u: aten.select_backward(u, (len(u), *shape), dim, index),
    )


@rule("constant_pad_nd")
def _pad(call: Call) -> Linear:
    there = list(call.args[1])
    back = [-n for n in there]
    return Linear(lambda t: aten.constant_pad_nd(t, there), lambda u: aten.constant_pad_nd(u, back))


@rule(
    "pixel_shuffle",
    "pixel_unshuffle",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "_upsample_nearest_exact2d",
    "upsample_bilinear2d",
    "avg_pool2d",
    "_adaptive_avg_pool2d",
    "reflection_pad2d",
    "replication_pad2d",
    "channel_shuffle",
)
def _on_images(call: Call) -> Linear:
    """Apply the operation itself: it is linear, and the K vectors are so many more images."""
    func, rest = call.func, call.args[1:]
    before, after, last = call.args[0].shape, call.out.shape, 2 if call.name.endswith("1d") else 3
    inverse = {"pixel_shuffle": aten.pixel_unshuffle, "pixel_unshuffle": aten.pixel_shuffle}.get(
        call.name
    )

    def push(t: Tensor) -> Tensor:
        return func(t.reshape(-1, *before[-last:]), *rest).reshape(-1, *after)

    def pull(u: Tensor) -> Tensor:
        if inverse is not None:
            return inverse(u.reshape(-1, *after[-last:]), *rest).reshape(-1, *before)
        if call.name == "upsample_nearest2d":
            size = (len(u) * before[0], *before[1:])
            return aten.upsample_nearest2d_backward(
                u.reshape(-1, *after[1:]), rest[0], size, *rest[1:]
            ).reshape(-1, *before)
        with torch.enable_grad():
            t = u.new_zeros(len(u), *before).requires_grad_()
            return torch.autograd.grad(push(t), t, u)[0]

    return Linear(push, pull)


# ------------------------------------------------------------------------- sums and products


@rule("sum", "mean")
def _reduce(call: Call) -> Linear:
    before, after = call.args[0].shape, call.out.shape
    dims = call.args[1] if len(call.args) == 4 else None
    over = [
        i % max(1, len(before)) + 1
        for i in ([dims] if isinstance(dims, int) else dims or range(len(before)))
    ]
    kept = [1 if i + 1 in over else n for i, n in enumerate(before)]
    scale = prod(after) / max(1, prod(before)) if call.name == "mean" else 1.0
    return Linear(
        lambda t: (t.sum(over) * scale if over and before else t).reshape(len(t), *after),
        lambda u: (u * scale).reshape(len(u), *kept).expand(-1, *before),
    )


@rule("logcumsumexp")
def _log_of_sums(call: Call) -> Linear:
    """Return the triangular matrices `exp(x_j - y_i)`: PyTorch's derivative is NaN at a cotangent
    of zero.
    """
    x, dim = call.args[0], call.args[1] % max(1, call.out.ndim) + 1
    if x.ndim == 0:
        return IDENTITY
    x, y = x.movedim(dim - 1, -1)[..., None, :], call.out.movedim(dim - 1, -1)[..., :, None]
    weights = (x - y).tril().exp().masked_fill(y.isneginf(), 0).tril()

    def times(t: Tensor, matrices: Tensor) -> Tensor:
        return (matrices @ t.movedim(dim, -1)[..., None])[..., 0].movedim(-1, dim)

    return Linear(lambda t: times(t, weights), lambda u: times(u, weights.mH))


@rule("add", "sub", "rsub")
def _add(call: Call) -> Linear:
    alpha = call.args[2]
    factors = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[call.name]
    return weighted(call, [factors[i] for i in call.active])


@rule("neg")
def _negative(call: Call) -> Linear:
    return weighted(call, [-1])


@rule("mul")
def _multiply(call: Call) -> Linear:
    return weighted(call, [call.args[1 - i] for i in call.active])


@rule("div")
def _divide(call: Call) -> Linear | None:
    if len(call.args) == 3:  # with rounding
        return None
    # 1 / integers is in float32
    divisor = call.args[1].to(call.out) if isinstance(call.args[1], Tensor) else call.args[1]
    return weighted(call, [(1 / divisor, -call.out / divisor)[i] for i in call.active])


@rule("mm", "bmm", "addmm", "baddbmm")
def _matrix_product(call: Call) -> Linear:
    added, after = len(call.args) > 2, call.out.shape
    beta, alpha = call.args[3:] if added else (1, 1)
    a, b = call.args[1:3] if added else call.args
    bias = call.args[0].shape if added and 0 in call.active else None
    right = (
        b * alpha if added in call.active and alpha != 1 else b if added in call.active else None
    )
    left = (
        a * alpha
        if added + 1 in call.active and alpha != 1
        else a
        if added + 1 in call.active
        else None
    )

    def push(*ts: Tensor) -> Tensor:
        rest = iter(ts)
        terms = [] if bias is None else [spread(next(rest), after) * beta]
        terms += [] if right is None else [_times(next(rest), right)]
        terms += [] if left is None else [_times(next(rest).mT, left.mT).mT]
        return sum(terms[1:], terms[0])

    def pull(u: Tensor) -> list[Tensor]:
        found = [] if bias is None else [gathered(u * conjugate(beta), bias)]
        found += [] if right is None else [_times(u, right.mH)]
        return found + ([] if left is None else [_times(u.mT, conjugate(left)).mT])

    return Linear(push, pull)


def _times(t: Tensor, factor: Tensor) -> Tensor:
    """Return `t @ factor` for K vectors, (K, ..., m, k) @ (..., k, n): one product with each
    factor, not K.
    """
    if factor.ndim == 2 or len(t) == 1:
        return t @ factor
    count, batch, rows, _ = t.shape
    return (
        (t.transpose(0, 1).reshape(batch, count * rows, -1) @ factor)
        .reshape(batch, count, rows, -1)
        .transpose(0, 1)
    )


@rule("convolution", "_convolution")
def _convolution(call: Call) -> Linear | None:
    if call.active != (0,):
        return None
    x, weight, _, *geometry = call.args[:9]
    before, after, layout = x.shape, call.out.shape, layout_of(call.out)

    def push(t: Tensor) -> Tensor:
        return aten.convolution(images(t, before, layout), weight, None, *geometry).reshape(
            -1, *after
        )

    def pull(u: Tensor) -> Tensor:
        u = images(u, after, layout)
        # never read
        like = torch.empty(
            (len(u), *before[1:]), dtype=u.dtype, device=u.device, memory_format=layout_of(u)
        )
        return aten.convolution_backward(u, like, weight, None, *geometry, [True, False, False])[
            0
        ].reshape(-1, *before)

    return Linear(push, pull)

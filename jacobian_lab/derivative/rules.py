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
    TangentMap,
    broadcast,
    conjugate,
    diagonal_map,
    images,
    layout_of,
    rule,
    unbroadcast,
    weighted,
)

aten: Any = torch.ops.aten


@rule("sum", "mean")
def _reduce(call: Call) -> TangentMap:
    before, after = call.args[0].shape, call.out.shape
    dims = call.args[1] if len(call.args) == 4 else None
    over = [
        i % max(1, len(before)) + 1
        for i in ([dims] if isinstance(dims, int) else dims or range(len(before)))
    ]
    kept = [1 if i + 1 in over else n for i, n in enumerate(before)]
    scale = prod(after) / max(1, prod(before)) if call.name == "mean" else 1.0
    return TangentMap(
        lambda t: (t.sum(over) * scale if over and before else t).reshape(len(t), *after),
        lambda u: (u * scale).reshape(len(u), *kept).expand(-1, *before),
    )


@rule("logcumsumexp")
def _log_of_sums(call: Call) -> TangentMap:
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

    return TangentMap(lambda t: times(t, weights), lambda u: times(u, weights.mH))


@rule("add", "sub", "rsub")
def _add(call: Call) -> TangentMap:
    alpha = call.args[2]
    factors = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[call.name]
    return weighted(call, [factors[i] for i in call.active])


@rule("neg")
def _negative(call: Call) -> TangentMap:
    return weighted(call, [-1])


@rule("mul")
def _multiply(call: Call) -> TangentMap:
    return weighted(call, [call.args[1 - i] for i in call.active])


@rule("div")
def _divide(call: Call) -> TangentMap | None:
    if len(call.args) == 3:  # with rounding
        return None
    # 1 / integers is in float32
    divisor = call.args[1].to(call.out) if isinstance(call.args[1], Tensor) else call.args[1]
    return weighted(call, [(1 / divisor, -call.out / divisor)[i] for i in call.active])


@rule("mm", "bmm", "addmm", "baddbmm")
def _matrix_product(call: Call) -> TangentMap:
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
        terms = [] if bias is None else [broadcast(next(rest), after) * beta]
        terms += [] if right is None else [_times(next(rest), right)]
        terms += [] if left is None else [_times(next(rest).mT, left.mT).mT]
        return sum(terms[1:], terms[0])

    def pull(u: Tensor) -> list[Tensor]:
        found = [] if bias is None else [unbroadcast(u * conjugate(beta), bias)]
        found += [] if right is None else [_times(u, right.mH)]
        return found + ([] if left is None else [_times(u.mT, conjugate(left)).mT])

    return TangentMap(push, pull)


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


@rule("silu", "mish", "gelu", "sigmoid", "tanh")
def _activation(call: Call) -> TangentMap | None:
    """Return the diagonal at once, and keep neither argument nor result."""
    if call.out.is_complex():
        return None
    of = call.out if call.name in ("sigmoid", "tanh") else call.args[0]
    how = {"approximate": call.args[1]} if call.name == "gelu" else {}
    return diagonal_map(getattr(aten, f"{call.name}_backward")(torch.ones_like(of), of, **how))


@rule("glu")
def _gated(call: Call) -> list[TangentMap]:
    a, b = call.args[0].chunk(2, call.args[1])
    dim, gate = call.args[1] % a.ndim + 1, b.sigmoid()
    return [
        diagonal_map(torch.cat([gate, a * gate * (1 - gate)], dim - 1)),
        TangentMap(lambda t: sum(t.chunk(2, dim)), lambda u: torch.cat([u, u], dim)),
    ]


@rule("convolution", "_convolution")
def _convolution(call: Call) -> TangentMap | None:
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

    return TangentMap(push, pull)


@rule(
    "pixel_shuffle",
    "pixel_unshuffle",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact2d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "channel_shuffle",
)
def _on_images(call: Call) -> TangentMap:
    """Apply the operation itself: it is linear, and the K vectors are so many more images."""
    func, rest = call.func, call.args[1:]
    before, after = call.args[0].shape, call.out.shape
    last = 1 + int(next((n for n in "13" if f"{n}d" in call.name), "2"))
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

    return TangentMap(push, pull)

r"""The Jacobian of normalisations and of the softmax: projections, with a diagonal on either side.

    group and layer norm   J = diag(gamma / deviation) (I - 1 1^T / m - x_hat x_hat^T / m),
                           for each group of m entries
    batch norm             J = diag(gamma / deviation) with learnt statistics; else as group norm
    softmax                J = diag(p) - p p^T

The projections are symmetric, and PyTorch's backward kernels apply them in one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.derivative.linear_map import (
    Call,
    TangentMap,
    diagonal_map,
    images,
    layout_of,
    rule,
)

aten: Any = torch.ops.aten
WITH_STATISTICS = frozenset(
    {
        "native_group_norm",
        "native_layer_norm",
        "native_batch_norm",
        "cudnn_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "_native_batch_norm_legit_no_training",
        "miopen_batch_norm",
    }
)
"""Operations that return the mean and the deviation beside their result."""


@rule("native_group_norm")
def _group_norm(call: Call) -> list[TangentMap] | None:
    if call.active != (0,):
        return None
    x, gamma, _, batch, channels, pixels, groups, _ = call.args
    _, mean, rstd = call.out
    shape, layout = x.shape, layout_of(x)
    per_group = (batch, groups, *(1,) * (x.ndim - 1))
    x_hat = (
        x.reshape(batch, groups, channels // groups, *shape[2:]) - mean.reshape(per_group)
    ) * rstd.reshape(per_group)
    x_hat = x_hat.to(x.dtype).reshape(shape)
    scale = rstd.repeat_interleave(channels // groups, dim=1).reshape(
        batch, channels, *(1,) * (x.ndim - 2)
    )

    zeros, ones = torch.zeros_like(rstd), torch.ones_like(rstd)

    def project(t: Tensor) -> Tensor:
        count, t = len(t), images(t, shape, layout)
        own = [x_hat.contiguous(memory_format=layout_of(t)), zeros, ones]
        if count > 1:
            many, *statistics = (a.expand(count, *a.shape) for a in own)
            own = [images(many, shape, layout), *(a.flatten(0, 1) for a in statistics)]
        return aten.native_group_norm_backward(
            t, *own, None, len(t), channels, pixels, groups, [True, False, False]
        )[0].reshape(-1, *shape)

    return _normalised(
        project, call, scale, None if gamma is None else gamma.reshape(1, -1, *(1,) * (x.ndim - 2))
    )


@rule("native_layer_norm")
def _layer_norm(call: Call) -> list[TangentMap] | None:
    if call.active != (0,):
        return None
    x, shape, gamma, *_ = call.args
    _, mean, rstd = call.out
    x_hat = ((x - mean) * rstd).to(x.dtype)
    # of another precision there only beside a gamma of that
    like = rstd.to(x.dtype) if x.device.type == "cpu" else rstd

    def project(t: Tensor) -> Tensor:
        many = (len(t), *rstd.shape)
        return aten.native_layer_norm_backward(
            t.contiguous(),
            x_hat.expand(t.shape).contiguous(),
            shape,
            like.new_zeros(many),
            like.new_ones(many),
            None,
            None,
            [True, False, False],
        )[0]

    return _normalised(project, call, rstd, gamma)


def _normalised(
    project: Callable[[Tensor], Tensor], call: Call, scale: Tensor, gamma: Tensor | None
) -> list[TangentMap]:
    """Return gamma / deviation times the projection, which is symmetric: PyTorch's backward kernel
    on x_hat applies it.
    """
    factor = (scale if gamma is None else scale * gamma).to(call.out[0].dtype)
    return [TangentMap(project, project), diagonal_map(factor)]


def _of_the_batch(call: Call) -> list[TangentMap]:
    """Return the Jacobian with statistics of the batch: an instance normalisation, where that is
    one of B C channels.
    """
    x, gamma, (_, mean, rstd, *_) = call.args[0], call.args[1], call.out
    per_channel, over = (1, -1, *(1,) * (x.ndim - 2)), [1, *range(3, x.ndim + 1)]
    scale = rstd.reshape(per_channel)
    x_hat = ((x - mean.reshape(per_channel)) * scale).to(x.dtype)

    def project(t: Tensor) -> Tensor:
        return t - t.mean(over, keepdim=True) - x_hat * (x_hat * t).mean(over, keepdim=True)

    return _normalised(project, call, scale, None if gamma is None else gamma.reshape(per_channel))


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def _batch_norm(call: Call) -> TangentMap | list[TangentMap] | None:
    if call.active != (0,):
        return None
    names = [argument.name for argument in call.func._schema.arguments]
    given = dict(zip(names, call.args, strict=True))
    if given.get("training"):
        return _of_the_batch(call)
    x, gamma, eps = call.args[0], call.args[1], call.args[-1]
    factor = torch.rsqrt(given["running_var"] + eps) * (1 if gamma is None else gamma)
    return diagonal_map(factor.to(x.dtype).reshape(1, -1, *(1,) * (x.ndim - 2)))


@rule("var", "std", "linalg_vector_norm")
def _spread(call: Call) -> list[TangentMap] | None:
    """Return the product with `2 (x - mean) / N`, or `x / |x|`, and the sum over what is
    normalised.
    """
    x, y = call.args[0], call.out
    size = call.name == "linalg_vector_norm"
    dims, keep = (call.args[2], call.args[3]) if size else (call.args[1], call.args[3])
    if (call.args[1] if size else call.func._schema.overload_name) not in (2, "correction"):
        return None
    if x.is_complex() or x.dtype != y.dtype or x.ndim == 0:
        return None
    over = [i % x.ndim for i in ([dims] if isinstance(dims, int) else dims or range(x.ndim))]
    kept = [1 if i in over else n for i, n in enumerate(x.shape)]
    d = x if size else x - x.mean(over, keepdim=True)
    if not size:
        correction = 1 if call.args[2] is None else call.args[2]
        d = d / (x.numel() / max(1, y.numel()) - correction)
    d = d * 2 if call.name == "var" else d / y.reshape(kept).masked_fill(y.reshape(kept) == 0, 1)
    reduced = TangentMap(
        lambda t: t.sum([i + 1 for i in over], keepdim=keep),
        lambda u: u.reshape(len(u), *kept).expand(-1, *x.shape),
    )
    return [diagonal_map(d), reduced]


@rule("_softmax", "_safe_softmax")
def _softmax(call: Call) -> TangentMap:
    p, before, dim = call.out, call.args[0].dtype, call.args[1] % max(1, call.out.ndim) + 1

    def apply(t: Tensor) -> Tensor:
        return aten._softmax_backward_data(t.to(p.dtype), p.expand(t.shape), dim, p.dtype)

    return TangentMap(apply, lambda u: apply(u).to(before))

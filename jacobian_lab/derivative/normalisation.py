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

    def project(t: Tensor) -> Tensor:
        count, t = len(t), images(t, shape, layout)
        repeated = images(
            x_hat.contiguous(memory_format=layout_of(t)).expand(count, *shape), shape, layout
        )
        return aten.native_group_norm_backward(
            t,
            repeated,
            rstd.new_zeros(len(t), groups),
            rstd.new_ones(len(t), groups),
            None,
            len(t),
            channels,
            pixels,
            groups,
            [True, False, False],
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
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def _batch_norm(call: Call) -> TangentMap | list[TangentMap] | None:
    x, gamma, _, _, variance, *_, eps = call.args
    if call.active != (0,):
        return None
    if len(call.args) == 8 and call.args[5]:
        return _of_the_batch(call)
    factor = torch.rsqrt(variance + eps) * (1 if gamma is None else gamma)
    return diagonal_map(factor.to(x.dtype).reshape(1, -1, *(1,) * (x.ndim - 2)))


@rule("_softmax", "_safe_softmax")
def _softmax(call: Call) -> TangentMap:
    p, before, dim = call.out, call.args[0].dtype, call.args[1] % max(1, call.out.ndim) + 1

    def apply(t: Tensor) -> Tensor:
        return aten._softmax_backward_data(t.to(p.dtype), p.expand(t.shape), dim, p.dtype)

    return TangentMap(apply, lambda u: apply(u).to(before))

"""The Jacobian of an operation without a rule of its own, by PyTorch's derivative of that one operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jacobian_lab.linear import Call, Linear, UnsupportedError, filled, weighted


def by_derivative(call: Call) -> Linear:
    """Return the Jacobian of an operation without a rule of its own, by autograd on that operation alone."""
    with torch.enable_grad():
        return _pointwise(call) if torch.Tag.pointwise in call.func.tags else _by_autograd(call)


def _pointwise(call: Call) -> Linear:
    args, after = list(call.args), call.out.shape
    leaves = [x.detach().expand(after).requires_grad_() for x in call.inputs]
    for i, leaf in zip(call.active, leaves, strict=True):
        args[i] = leaf
    out = _run(call, args)
    return weighted(call, list(torch.autograd.grad(out, leaves, torch.ones_like(out), materialize_grads=True)))


def _by_autograd(call: Call) -> Linear:
    """Keep the graph of the operation and of its vector-Jacobian product, which is linear in u: transposed, it is J."""
    args = list(call.args)
    listed = isinstance(args[0], (list, tuple))
    parts = list(args[0]) if listed else args
    leaves = [x.detach().requires_grad_() for x in call.inputs]
    for i, leaf in zip(call.active, leaves, strict=True):
        parts[i] = leaf
    out = _run(call, [parts, *args[1:]] if listed else args)
    outs = list(out) if isinstance(out, (list, tuple)) else [out]
    where = [k for k, y in enumerate(outs) if y.requires_grad]
    ys = [outs[k] for k in where]
    zeros = [torch.zeros_like(y, requires_grad=True) for y in ys]
    pulled = torch.autograd.grad(ys, leaves, zeros, create_graph=True, materialize_grads=True)
    through = [k for k, g in enumerate(pulled) if g.requires_grad]
    if not through:
        raise UnsupportedError(f"{call.func}, whose derivative PyTorch takes to be zero")

    def push(*ts: Tensor) -> Any:  # noqa: ANN401 - one tensor or several
        pushed: list[Tensor | None] = [None] * len(outs)
        tangents = [ts[k].contiguous() for k in through]
        found = torch.autograd.grad([pulled[k] for k in through], zeros, tangents, retain_graph=True,
                                    is_grads_batched=True, materialize_grads=True)
        for k, t in zip(where, found, strict=True):
            pushed[k] = t
        return pushed if isinstance(out, (list, tuple)) else pushed[0]

    def pull(*vs: Tensor | None) -> Any:  # noqa: ANN401
        # contiguous: PyTorch's batched derivative of batch norm is wrong in channels last
        us = [u.contiguous() for u in filled([vs[k] for k in where], [y.shape for y in ys])]
        return torch.autograd.grad(ys, leaves, us, retain_graph=True, is_grads_batched=True, materialize_grads=True)

    return Linear(push, pull)


def _run(call: Call, args: list[Any]) -> Any:  # noqa: ANN401 - what the operation returns
    schema = call.func._schema.arguments
    positional = [a for a, s in zip(args, schema, strict=True) if not s.kwarg_only]
    return call.func(*positional, **{s.name: a for a, s in zip(args, schema, strict=True) if s.kwarg_only})

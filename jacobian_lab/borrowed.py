"""The Jacobian of an operation without a rule of its own, by PyTorch's derivative of that one operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.linear import Call, Linear, UnsupportedError, cast, conjugate, gathered, spread, weighted


def by_derivative(call: Call) -> Linear:
    """Return the Jacobian of an operation without a rule of its own, by autograd on that operation alone.

    Raises
    ------
    UnsupportedError
        If PyTorch has no derivative, or one that does not hold for this operation.
    """
    random = torch.Tag.nondeterministic_seeded in call.func.tags and not call.name.startswith("_scaled_dot_product")
    if random:
        raise UnsupportedError(f"{call.func} is random: J would be that of another draw")
    try:
        if torch.Tag.pointwise in call.func.tags and isinstance(call.out, Tensor):
            with torch.enable_grad():
                complicated = any(x.is_complex() for x in [*call.inputs, call.out])
                return _pointwise_complex(call) if complicated else _pointwise(call)
        try:
            return _by_autograd(call, batched=True)
        except (RuntimeError, IndexError):  # what vmap cannot do
            return _by_autograd(call, batched=False)
    except (RuntimeError, IndexError) as error:
        raise UnsupportedError(f"{call.func} has no derivative in PyTorch: {str(error).splitlines()[0]}") from error


def _pointwise(call: Call) -> Linear:
    args, after = list(call.args), call.out.shape
    leaves = [x.detach().expand(after).requires_grad_() for x in call.inputs]
    for i, leaf in zip(call.active, leaves, strict=True):
        args[i] = leaf
    out = _run(call, args)
    return weighted(call, list(torch.autograd.grad(out, leaves, torch.ones_like(out), materialize_grads=True)))


def _pointwise_complex(call: Call) -> Linear:
    """Return the map of each entry's real and imaginary part: a and b such that J^T u = Re(u) a + Im(u) b."""
    args, after, out_complex = list(call.args), call.out.shape, call.out.is_complex()
    leaves = [x.detach().expand(after).requires_grad_() for x in call.inputs]
    for i, leaf in zip(call.active, leaves, strict=True):
        args[i] = leaf
    out = _run(call, args)
    units = [torch.ones_like(out), *([torch.full_like(out, 1j)] if out_complex else [])]
    parts = [torch.autograd.grad(out, leaves, unit, retain_graph=True, materialize_grads=True) for unit in units]
    inputs = [(x.shape, x.dtype) for x in call.inputs]

    def push(*ts: Tensor) -> Tensor:
        found = [torch.stack([cast(conjugate(a) * spread(t, after), out.dtype.to_real())
                              for t, a in zip(ts, part, strict=True)]).sum(0) for part in parts]
        return torch.complex(found[0], found[1]) if out_complex else found[0]

    def pull(u: Tensor) -> list[Tensor]:
        us = (u.real, u.imag) if out_complex else (u,)
        return [gathered(cast(torch.stack([v * part[k] for v, part in zip(us, parts, strict=True)]).sum(0), dtype), shape)
                for k, (shape, dtype) in enumerate(inputs)]

    return Linear(push, pull)


def _check(call: Call, linear: Linear) -> None:
    """Raise RuntimeError if vectors together get something else than one by one, or J^T is not the transpose of J."""
    generator = torch.Generator().manual_seed(0)

    def like(x: Tensor) -> Tensor:
        return torch.randn(2, *x.shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)

    several = isinstance(call.out, (list, tuple))
    outs = [y for y in (call.out if several else [call.out]) if isinstance(y, Tensor)]
    vs = [like(x) for x in call.inputs]
    us = [like(y) if y.is_floating_point() or y.is_complex() else None for y in outs]
    pushed, pulled = linear.push(*vs), linear.pull(*us)
    pushed = list(pushed) if several else [pushed]
    eps = max(1e-9, *(1000 * torch.finfo(x.dtype).eps for x in [*call.inputs, *(u for u in us if u is not None)]))
    alone = [linear.pull(*[u if u is None else u[i:i + 1] for u in us]) for i in range(2)]
    for k, g in enumerate(pulled):
        if not (torch.cat([one[k] for one in alone]) - g).norm() <= eps * g.norm():
            raise RuntimeError("vectors together get something else than one by one")
    pairs = [*((u, y, 1) for u, y in zip(us, pushed, strict=True) if u is not None), *((g, v, -1) for g, v in zip(pulled, vs, strict=True))]
    gap = sum(sign * float((a.conj() * b).real.double().sum()) for a, b, sign in pairs)
    if call.func.namespace not in ("aten", "prims"):
        _compare(call, vs, pushed)
    gap /= sum(float(a.norm().double() * b.norm().double()) for a, b, _ in pairs) or 1
    if not abs(gap) <= eps:
        raise RuntimeError(f"its J and J^T disagree by {abs(gap):.1e}")


def _compare(call: Call, vs: list[Tensor], pushed: list[Tensor]) -> None:
    """Raise RuntimeError if J v of an operation that is not PyTorch's own is not a central difference."""
    def at(step: float) -> list[Tensor]:
        args = list(call.args)
        for i, x, v in zip(call.active, call.inputs, vs, strict=True):
            args[i] = x + step * v[0]
        out = _run(call, args)
        return list(out) if isinstance(out, (list, tuple)) else [out]

    h = max(torch.finfo(x.dtype).eps for x in call.inputs) ** (1 / 3) * max(float(x.square().mean().sqrt()) for x in call.inputs)
    with torch.no_grad():
        for ahead, behind, Jv in zip(at(h), at(-h), pushed, strict=True):
            noise = 10 * torch.finfo(Jv.dtype).eps * float(ahead.norm()) / h
            if not float(((ahead - behind) / (2 * h) - Jv[0]).norm()) <= 0.05 * float(Jv[0].norm()) + noise:
                raise RuntimeError("its derivative disagrees with a central difference")


@torch.enable_grad()
def _by_autograd(call: Call, batched: bool) -> Linear:
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
    if not through or (call.func.namespace not in ("aten", "prims") and len(through) < len(leaves)):
        raise UnsupportedError(f"{call.func}, whose derivative PyTorch takes to be zero")

    def gradients(ys: list[Tensor], xs: list[Tensor], us: list[Tensor]) -> Sequence[Tensor]:
        if batched:
            found = torch.autograd.grad(ys, xs, us, retain_graph=True, is_grads_batched=True, materialize_grads=True)
            return [g if g.ndim > x.ndim else g.expand(len(us[0]), *g.shape) for g, x in zip(found, xs, strict=True)]  # zeros
        one_by_one = [torch.autograd.grad(ys, xs, some, retain_graph=True, materialize_grads=True) for some in zip(*us, strict=True)]
        return [torch.stack(found) for found in zip(*one_by_one, strict=True)]

    def push(*ts: Tensor) -> Any:  # noqa: ANN401 - one tensor or several
        pushed = [ts[0].new_zeros(()).expand(len(ts[0]), *y.shape) for y in outs]  # for what does not change with x, as far as
        tangents = [ts[k].contiguous() for k in through]                           # PyTorch knows: a permutation, indices
        for k, t in zip(where, gradients([pulled[k] for k in through], zeros, tangents), strict=True):
            pushed[k] = t
        return pushed if isinstance(out, (list, tuple)) else pushed[0]

    def pull(*vs: Tensor | None) -> Any:  # noqa: ANN401
        # contiguous: PyTorch's batched derivative of batch norm is wrong in channels last
        some = next(v for v in vs if v is not None)
        zero = some.new_zeros(())
        us = [(zero.to(outs[k].dtype).expand(len(some), *outs[k].shape) if (v := vs[k]) is None else v).contiguous() for k in where]
        return gradients(ys, leaves, us)

    linear = Linear(push, pull)
    _check(call, linear)
    return linear


def _run(call: Call, args: list[Any]) -> Any:  # noqa: ANN401 - what the operation returns
    schema = call.func._schema.arguments
    positional = [a for a, s in zip(args, schema, strict=True) if not s.kwarg_only]
    return call.func(*positional, **{s.name: a for a, s in zip(args, schema, strict=True) if s.kwarg_only})

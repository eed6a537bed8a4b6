"""The Jacobian of an operation without a rule of its own, by PyTorch's derivative of that one
operation, checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from jacobian_lab.derivative.arguments import apply, each, tensors
from jacobian_lab.derivative.linear_map import (
    Call,
    TangentMap,
    UnsupportedError,
    broadcast,
    cast,
    conjugate,
    unbroadcast,
    weighted,
)

OWN = frozenset({"aten", "prims"})
"""Namespaces of PyTorch's own operations; derivatives of others, which their authors wrote, are
compared with differences.
"""
TOLERANCE = 1000.0
"""Distance of J^T to the transpose of J, and of vectors together to one by one, in units of the
coarsest eps of the operation; at least `LEAST`. A wrong formula is farther off than any rounding.
"""
LEAST = 1e-9
"""Lower bound of that distance: in float64, factorisations of matrices may lose more digits."""
INSIDE = 4
"""Memory that a vector takes inside a derivative, in sizes of arguments and results: theirs, and as
much for the gradients on the way.
"""
DIFFERENCE = 0.05
"""Relative distance of J v to a central difference at a step that nobody tuned: a derivative of
another function is farther off.
"""


def by_derivative(call: Call, memory: float = inf) -> TangentMap:
    """Return the Jacobian of an operation without a rule of its own, by autograd on that operation
    alone.

    Parameters
    ----------
    call : Call
    memory : float
        Bytes that the vectors of one pass may take: where two of them take more, also at the
        check, they are taken one by one.

    Raises
    ------
    UnsupportedError
        If PyTorch has no derivative, or one that does not hold for this operation.
    """
    if torch.Tag.nondeterministic_seeded in call.func.tags and not call.name.startswith(
        "_scaled_dot_product"
    ):
        raise UnsupportedError(f"{call.func} is random: J would be that of another draw")
    if "fake_quantize" in call.name:
        raise UnsupportedError(
            f"{call.func} rounds, and PyTorch's derivative of it is that of another function"
        )
    # autograd refuses those
    call = replace(call, args=each(lambda a: a.clone() if a.is_inference() else a, call.args))
    try:
        return _derived(call, call.func, memory)
    except (RuntimeError, IndexError) as error:
        # such as silu_backward, which PyTorch differentiates in pieces only
        with suppress(RuntimeError, IndexError, KeyError):
            return _derived(call, decomposition_table[call.func], memory)
        raise UnsupportedError(
            f"{call.func} has no derivative in PyTorch: {str(error).splitlines()[0]}"
        ) from error


def _derived(call: Call, run: Callable[..., Any], memory: float) -> TangentMap:
    """Return the derivative of `run`, which does what the operation does."""
    if torch.Tag.pointwise in call.func.tags and isinstance(call.out, Tensor):
        return (
            _pointwise_complex(call, run)
            if any(x.is_complex() for x in [*call.inputs, call.out])
            else _pointwise(call, run)
        )
    size = sum(tensor.nbytes for tensor in (*call.inputs, *tensors(call.out)))
    if 2 * INSIDE * size > memory:
        return _by_autograd(call, run, batched=False)
    try:
        return _by_autograd(call, run, batched=True)
    except (RuntimeError, IndexError):  # what vmap cannot do
        return _by_autograd(call, run, batched=False)


@torch.enable_grad()
def _pointwise(call: Call, run: Callable[..., Any]) -> TangentMap:
    leaves = [x.detach().expand(call.out.shape).requires_grad_() for x in call.inputs]
    out = _run(call, run, leaves)
    return weighted(
        call, list(torch.autograd.grad(out, leaves, torch.ones_like(out), materialize_grads=True))
    )


@torch.enable_grad()
def _pointwise_complex(call: Call, run: Callable[..., Any]) -> TangentMap:
    """Return the map of each entry's real and imaginary part: a and b such that J^T u = Re(u) a +
    Im(u) b.
    """
    after, out_complex = call.out.shape, call.out.is_complex()
    leaves = [x.detach().expand(after).requires_grad_() for x in call.inputs]
    out = _run(call, run, leaves)
    units = [torch.ones_like(out), *([torch.full_like(out, 1j)] if out_complex else [])]
    parts = [
        torch.autograd.grad(out, leaves, unit, retain_graph=True, materialize_grads=True)
        for unit in units
    ]
    inputs = [(x.shape, x.dtype) for x in call.inputs]

    def push(*ts: Tensor) -> Tensor:
        found = [
            torch.stack(
                [
                    cast(conjugate(a) * broadcast(t, after), out.dtype.to_real())
                    for t, a in zip(ts, part, strict=True)
                ]
            ).sum(0)
            for part in parts
        ]
        return torch.complex(found[0], found[1]) if out_complex else found[0]

    def pull(u: Tensor) -> list[Tensor]:
        us = (u.real, u.imag) if out_complex else (u,)
        return [
            unbroadcast(
                cast(
                    torch.stack([v * part[k] for v, part in zip(us, parts, strict=True)]).sum(0),
                    dtype,
                ),
                shape,
            )
            for k, (shape, dtype) in enumerate(inputs)
        ]

    return TangentMap(push, pull)


@torch.enable_grad()
def _by_autograd(call: Call, run: Callable[..., Any], batched: bool) -> TangentMap:
    """Keep the graph of the operation and of its vector-Jacobian product, which is linear in u:
    transposed, it is J.
    """
    leaves = [x.detach().requires_grad_() for x in call.inputs]
    outs = tensors(_run(call, run, leaves))
    where = [k for k, y in enumerate(outs) if y.requires_grad]
    ys = [outs[k] for k in where]
    zeros = [torch.zeros_like(y, requires_grad=True) for y in ys]
    pulled = torch.autograd.grad(ys, leaves, zeros, create_graph=True, materialize_grads=True)
    through = [k for k, g in enumerate(pulled) if g.requires_grad]
    if not through or (call.func.namespace not in OWN and len(through) < len(leaves)):
        raise UnsupportedError(f"{call.func}, whose derivative PyTorch takes to be zero")

    def push(*ts: Tensor) -> Any:
        # zero where PyTorch knows of no change with x: a permutation, indices
        pushed = [ts[0].new_zeros(()).to(y.dtype).expand(len(ts[0]), *y.shape) for y in outs]
        tangents = [ts[k].contiguous() for k in through]
        found = _gradients([pulled[k] for k in through], zeros, tangents, batched)
        for k, t in zip(where, found, strict=True):
            pushed[k] = t
        return pushed if isinstance(call.out, (list, tuple)) else pushed[0]

    def pull(*vs: Tensor | None) -> Any:
        zero = next(v for v in vs if v is not None).new_zeros(())
        count = next(len(v) for v in vs if v is not None)
        us = [
            zero.to(outs[k].dtype).expand(count, *outs[k].shape) if (v := vs[k]) is None else v
            for k in where
        ]
        # contiguous: PyTorch's batched derivative of batch norm is wrong in channels last
        return _gradients(ys, leaves, [u.contiguous() for u in us], batched)

    linear = TangentMap(push, pull)
    _check(call, linear)
    return linear


def _gradients(
    ys: Sequence[Tensor], xs: Sequence[Tensor], us: Sequence[Tensor], batched: bool
) -> Sequence[Tensor]:
    """Return `(dy / dx)^T u` for K vectors of each result: together by vmap, or one by one."""
    if batched:
        found = torch.autograd.grad(
            ys, xs, us, retain_graph=True, is_grads_batched=True, materialize_grads=True
        )
        # zeros come without the dimension of the vectors
        return [
            g if g.ndim > x.ndim else g.expand(len(us[0]), *g.shape)
            for g, x in zip(found, xs, strict=True)
        ]
    rows = [
        torch.autograd.grad(ys, xs, some, retain_graph=True, materialize_grads=True)
        for some in zip(*us, strict=True)
    ]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _check(call: Call, linear: TangentMap) -> None:
    """Raise RuntimeError if vectors together get something else than one by one, or J^T is not the
    transpose of J.
    """
    generator = torch.Generator().manual_seed(0)

    def like(x: Tensor) -> Tensor:
        return torch.randn(2, *x.shape, generator=generator, dtype=torch.float64, device="cpu").to(
            x.device, x.dtype
        )

    vs = [like(x) for x in call.inputs]
    us = [like(y) if y.is_floating_point() or y.is_complex() else None for y in tensors(call.out)]
    pushed, pulled = linear.push(*vs), linear.pull(*us)
    pushed = list(pushed) if isinstance(call.out, (list, tuple)) else [pushed]
    eps = max(
        LEAST,
        *(
            TOLERANCE * torch.finfo(x.dtype).eps
            for x in [*call.inputs, *(u for u in us if u is not None)]
        ),
    )
    alone = [linear.pull(*[u if u is None else u[i : i + 1] for u in us]) for i in range(2)]
    for k, g in enumerate(pulled):
        if not (torch.cat([one[k] for one in alone]) - g).norm() <= eps * g.norm():
            raise RuntimeError("vectors together get something else than one by one")
    pairs = [(u, y, 1) for u, y in zip(us, pushed, strict=True) if u is not None]
    pairs += [(g, v, -1) for g, v in zip(pulled, vs, strict=True)]
    gap = sum(sign * float((a.conj() * b).real.double().sum()) for a, b, sign in pairs)
    gap /= sum(float(a.norm().double() * b.norm().double()) for a, b, _ in pairs) or 1
    if not abs(gap) <= eps:
        raise RuntimeError(f"its J and J^T disagree by {abs(gap):.1e}")
    if call.func.namespace not in OWN:
        _compare(call, vs, pushed)


@torch.no_grad()
def _compare(call: Call, vs: list[Tensor], pushed: list[Tensor]) -> None:
    """Raise RuntimeError if J v of an operation is not a central difference."""
    size = max(float(x.square().mean().sqrt()) for x in call.inputs)
    h = max(torch.finfo(x.dtype).eps for x in call.inputs) ** (1 / 3) * size
    ahead, behind = (
        tensors(
            _run(call, call.func, [x + step * v[0] for x, v in zip(call.inputs, vs, strict=True)])
        )
        for step in (h, -h)
    )
    for after, before, Jv in zip(ahead, behind, pushed, strict=True):
        noise = 10 * torch.finfo(Jv.dtype).eps * float(after.norm()) / h
        if (
            not float(((after - before) / (2 * h) - Jv[0]).norm())
            <= DIFFERENCE * float(Jv[0].norm()) + noise
        ):
            raise RuntimeError("its derivative disagrees with a central difference")


def _run(recorded: Call, run: Callable[..., Any], inputs: list[Tensor]) -> Any:
    """Run the operation with these in place of the active arguments."""
    args = list(recorded.args)
    listed = isinstance(args[0], (list, tuple))
    parts = list(args[0]) if listed else args
    for i, x in zip(recorded.active, inputs, strict=True):
        parts[i] = x
    return apply(recorded.func, [parts, *args[1:]] if listed else args, run)

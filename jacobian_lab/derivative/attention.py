"""The Jacobian of scaled dot-product attention at a fixed input, at the price of the attention
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jacobian_lab.derivative.linear_map import Call

BYTES = {"cpu": 2**22}
"""Bytes of attention matrices held at once, by device. On the CPU, 4 MB: they should stay in cache
between the two products that need them.
"""
BYTES_ELSEWHERE = 2**28
"""The same on other devices: 256 MB, a small part of a GPU's memory."""


def attention_call(given: dict[str, Any], out: Tensor, active: tuple[int, ...]) -> Call:
    """Return an attention as one operation with a mask and a scale, whatever was left out.

    Parameters
    ----------
    given : dict
        Arguments of `torch.nn.functional.scaled_dot_product_attention`, by name.
    out : Tensor, shape (..., n, e)
        Its result.
    active : tuple of int
        Which of query, key and value depend on x.
    """
    q, k, v = given["query"], given["key"], given["value"]
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    scale = given.get("scale") or q.shape[-1] ** -0.5
    operands = [q.detach(), k.detach(), v.detach()]
    return Call(F.scaled_dot_product_attention, [*operands, mask, scale], out.detach(), active)


class Attention:
    """The Jacobian of `O = P V`, `P = softmax(s Q K^T + mask)`, with one pass over each n x m
    matrix of a head and vector.

        push    S = s (dQ K^T + Q dK^T),  W = P * S:   dO = W V - (W 1) * O + P dV
        pull    S = P * (U V^T - (U * O) 1):           dQ = s S K,  dK = s S^T Q,  dV = P^T U

    P is shared by the K vectors, and only as many of the other matrices exist at a time as the
    cache holds.

    Parameters
    ----------
    call : Call
        With the arguments Q (..., n, d), K (..., m, d), V (..., m, e), mask (bool, additive, or
        None), and s.
    """

    def __init__(self, call: Call) -> None:
        q, k, v, mask, scale = call.args
        scores = q @ k.mT * scale
        if mask is not None:
            scores = (
                scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
            )
        self.active, self.shapes, self.after = (
            call.active,
            [x.shape for x in call.inputs],
            call.out.shape,
        )
        # nothing to attend to: no output
        P = scores.softmax(-1).masked_fill(scores.isneginf().all(-1, keepdim=True), 0)
        self.P, self.O = P.flatten(0, -3), call.out.flatten(0, -3)  # (heads, n, m), (heads, n, e)
        self.q, self.k, self.v = (x.flatten(0, -3) for x in (q * scale, k * scale, v))
        self.v1 = torch.cat([self.v, torch.ones_like(self.v[..., :1])], -1)
        self.limit = max(
            1,
            BYTES.get(call.out.device.type, BYTES_ELSEWHERE)
            // (self.P[0].numel() * self.P.element_size()),
        )

    def push(self, *tangents: Tensor) -> Tensor:
        """Return `dO`."""
        count = len(tangents[0])
        dq, dk, dv = (self._of(tangents, i) for i in range(3))
        out = self.P.new_zeros(len(self.P), count, *self.O.shape[1:])
        if dv is not None:
            out += (
                (self.P @ dv.transpose(1, 2).flatten(2)).unflatten(2, (count, -1)).transpose(1, 2)
            )
        for h, c in self._chunks(count) if dq is not None or dk is not None else ():
            some = out[h, c].shape[1]
            pairs = [] if dq is None else [(dq[h, c], self.k[h, None].expand(-1, some, -1, -1))]
            pairs += [] if dk is None else [(self.q[h, None].expand(-1, some, -1, -1), dk[h, c])]
            left, right = (
                x[0] if len(x) == 1 else torch.cat(x, -1) for x in zip(*pairs, strict=True)
            )
            W1 = (left @ right.mT).mul_(self.P[h, None]) @ self.v1[h, None]
            out[h, c] += W1[..., :-1].addcmul_(W1[..., -1:], self.O[h, None], value=-1)
        return out.transpose(0, 1).reshape(count, *self.after)

    def pull(self, u: Tensor) -> list[Tensor]:
        """Return those of dQ, dK, dV that are asked for."""
        count, u = len(u), self._per_head(u)
        found = {
            i: u.new_empty(len(self.P), count, *shape[-2:])
            for i, shape in zip(self.active, self.shapes, strict=True)
        }
        if 2 in found:
            dv = self.P.mT @ u.transpose(1, 2).flatten(2)
            found[2] = dv.unflatten(2, (count, -1)).transpose(1, 2)
        left = torch.cat([u, -(u * self.O[:, None]).sum(-1, keepdim=True)], -1)
        for h, c in self._chunks(count) if found.keys() & {0, 1} else ():
            S = (left[h, c] @ self.v1[h, None].mT).mul_(self.P[h, None])
            if 0 in found:
                found[0][h, c] = S @ self.k[h, None]
            if 1 in found:
                found[1][h, c] = S.mT @ self.q[h, None]
        return [
            found[i].transpose(0, 1).reshape(count, *shape)
            for i, shape in zip(self.active, self.shapes, strict=True)
        ]

    def _of(self, tangents: Sequence[Tensor], argument: int) -> Tensor | None:
        return (
            self._per_head(tangents[self.active.index(argument)])
            if argument in self.active
            else None
        )

    def _per_head(self, t: Tensor) -> Tensor:
        return t.reshape(len(t), len(self.P), *t.shape[-2:]).transpose(0, 1)  # (heads, K, n, d)

    def _chunks(self, count: int) -> Iterator[tuple[slice, slice]]:
        vectors = min(count, self.limit)
        heads = max(1, self.limit // vectors)
        for i in range(0, len(self.P), heads):
            for j in range(0, count, vectors):
                yield slice(i, i + heads), slice(j, j + vectors)

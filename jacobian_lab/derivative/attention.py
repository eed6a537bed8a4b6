r"""The Jacobian of scaled dot-product attention at a fixed input, in memory that is linear in the
number of tokens.

    O = P V,  P = softmax(s Q K^T + mask)

    J v      S = s (dQ K^T + Q dK^T),  W = P * S:   dO = W V - (W 1) * O + P dV
    J^T u    S = P * (U V^T - (U * O) 1):           dQ = s S K,  dK = s S^T Q,  dV = P^T U

P, W and S have n m entries for each head, and exist in blocks of rows. A row of P is the softmax of
a row of scores, so that any block of it can be computed anew: a product then costs one matrix
product of five more, and the exponentials, for all K vectors together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jacobian_lab.derivative.linear_map import Call, TangentMap, rule

BYTES = {"cpu": 2**22}
"""Bytes of a block of W or S, by device; that of P takes at most as much. On the CPU, 4 MB: they
should stay in cache between the two products that need them.
"""
BYTES_ELSEWHERE = 2**28
"""The same on other devices: 256 MB, a small part of a GPU's memory."""
KEPT = 4
"""P is kept where it has at most so many times the entries of Q, K, V and O: n = m <= 16 d. What a
recording holds is then linear in the number of tokens, whatever the number of layers. Beyond it a
product takes a third longer: on the CPU that of 3.2 attentions instead of 2.4.
"""
NARROW = 24
"""Up to so many columns, the CPU's matrix product is faster by its transpose: thirteen times for 4,
twice for 16.
"""
FUSED = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
"""PyTorch's kernels of attention, which traced and compiled code calls by their names. Beside the
result they return what their backward pass needs.
"""


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
    scale = given.get("scale")
    scale = q.shape[-1] ** -0.5 if scale is None else scale  # which may be 0
    operands = [q.detach(), k.detach(), v.detach()]
    arguments = [*operands, given.get("attn_mask"), bool(given.get("is_causal")), scale]
    return Call(F.scaled_dot_product_attention, arguments, out.detach(), active)


class Attention:
    """The Jacobian of one attention, with one pass over each block of rows of a head and vector.

    Parameters
    ----------
    call : Call
        With the arguments Q (..., n, d), K (..., m, d), V (..., m, e), mask (bool, additive, or
        None), whether each token sees only those before it, and s. Heads may be shared.
    """

    def __init__(self, call: Call) -> None:
        q, k, v, mask, self.causal, self.scale = call.args
        self.active, self.after = call.active, call.out.shape
        self.shapes = [x.shape for x in call.inputs]
        lead = self.after[:-2]
        self.of_head = [_of_head(x.shape[:-2], lead, q.device) for x in (q, k, v)]
        self.q, self.k, self.v, self.O = (x.reshape(-1, *x.shape[-2:]) for x in (q, k, v, call.out))
        self.q, self.k, self.v = (
            x if which is None else x[which]
            for x, which in zip((self.q, self.k, self.v), self.of_head, strict=True)
        )
        self.mask = None if mask is None else _once(mask.detach())
        if self.mask is not None:
            self.mask_of = _of_head(self.mask.shape[:-2], lead, q.device)
            self.mask = self.mask.reshape(-1, *self.mask.shape[-2:])
        m = k.shape[-2]
        bound = BYTES.get(q.device.type, BYTES_ELSEWHERE)
        self.limit = max(1, bound // max(1, m * q.element_size()))  # rows of W at once
        self.rows = max(1, min(q.shape[-2], self.limit))
        few = len(self.q) * q.shape[-2] * m <= KEPT * sum(x.numel() for x in (q, k, v, call.out))
        self.P = self._weights(slice(None), slice(None)) if few else None

    def push(self, *tangents: Tensor) -> Tensor:
        """Return `dO`."""
        count = len(tangents[0])
        dq, dk, dv = (self._of(tangents, i) for i in range(3))
        out = self.O.new_zeros(len(self.O), count, *self.O.shape[1:])
        dv = None if dv is None else dv.transpose(1, 2).flatten(2)  # (heads, m, K e)
        for h, chunks in self._heads(count):
            factors, v1 = self._factors(dq, dk, h, count), self._v1(h)
            for r in self._rows():
                P, some = self._block(h, r), out[h, :, r]
                if dv is not None:
                    some += self._per_vector(_times(P, dv[h]), count)
                for c in chunks if factors else ():
                    W = (factors[0][:, c, r] @ factors[1][:, c].mT).mul_(P[:, None])
                    W1 = _times(W.flatten(1, 2), v1).reshape(*W.shape[:3], -1)
                    some[:, c] += W1[..., :-1].addcmul_(W1[..., -1:], self.O[h, None, r], value=-1)
        return out.transpose(0, 1).reshape(count, *self.after)

    def pull(self, u: Tensor) -> list[Tensor]:
        """Return those of dQ, dK, dV that are asked for."""
        count, u = len(u), self._per_head(u)
        found = {
            i: u.new_zeros(len(self.q), count, *shape[-2:])
            for i, shape in zip(self.active, self.shapes, strict=True)
        }
        left = torch.cat([u, -(u * self.O[:, None]).sum(-1, keepdim=True)], -1)
        u = u.transpose(1, 2).flatten(2)  # (heads, n, K e)
        for h, chunks in self._heads(count):
            v1 = self._v1(h)
            for r in self._rows():
                P = self._block(h, r)
                if 2 in found:
                    found[2][h] += self._per_vector(_times(P.mT, u[h, r]), count)
                for c in chunks if found.keys() & {0, 1} else ():
                    some = left[h, c, r]
                    S = (some.flatten(1, 2) @ v1.mT).reshape(*some.shape[:3], -1)
                    S.mul_(P[:, None])
                    if 0 in found:
                        dq = _times(S.flatten(1, 2), self.k[h])
                        found[0][h, c, r] = dq.reshape(*S.shape[:3], -1)
                    if 1 in found:
                        found[1][h, c] += _times(S.mT, self.q[h, None, r])
        for i in found.keys() & {0, 1}:
            found[i] *= self.scale
        return [
            self._added(found[i], i).transpose(0, 1).reshape(count, *shape)
            for i, shape in zip(self.active, self.shapes, strict=True)
        ]

    def _factors(
        self, dq: Tensor | None, dk: Tensor | None, h: slice, count: int
    ) -> tuple[Tensor, ...]:
        """Return the two factors of S of these heads, (heads, K, n, .) and (heads, K, m, .); none
        where S is zero.
        """
        q, k = (x[:, None].expand(-1, count, -1, -1) for x in (self.q[h] * self.scale, self.k[h]))
        pairs = [] if dq is None else [(dq[h] * self.scale, k)]
        pairs += [] if dk is None else [(q, dk[h])]
        return tuple(torch.cat(factors, -1) for factors in zip(*pairs, strict=True))

    def _block(self, h: slice, r: slice) -> Tensor:
        """Return these rows of P of these heads, kept or computed anew."""
        return self._weights(h, r) if self.P is None else self.P[h, r]

    def _weights(self, h: slice, r: slice) -> Tensor:
        scores = (self.q[h, r] * self.scale) @ self.k[h].mT
        if self.causal:
            columns = torch.arange(scores.shape[-1], device=scores.device)
            rows = torch.arange(self.q.shape[1], device=scores.device)[r, None]
            scores.masked_fill_(columns > rows, -torch.inf)
        if self.mask is None:
            return scores.softmax(-1)
        mask = self.mask[:, r] if self.mask.shape[1] > 1 else self.mask
        mask = mask[h] if self.mask_of is None else mask[self.mask_of[h]]
        if mask.dtype == torch.bool:
            scores.masked_fill_(~mask, -torch.inf)
        else:
            scores = scores + mask
        # nothing to attend to: no output
        return scores.softmax(-1).masked_fill_(scores.amax(-1, keepdim=True).isneginf(), 0)

    def _v1(self, h: slice) -> Tensor:
        """Return V of these heads and a column of ones: W V and W 1 by one product."""
        return torch.cat([self.v[h], torch.ones_like(self.v[h, :, :1])], -1)

    def _of(self, tangents: Sequence[Tensor], argument: int) -> Tensor | None:
        if argument not in self.active:
            return None
        t, which = self._per_head(tangents[self.active.index(argument)]), self.of_head[argument]
        return t if which is None else t[which]

    def _added(self, g: Tensor, argument: int) -> Tensor:
        """Return the cotangents of an argument's own heads, added up over those that share it."""
        which = self.of_head[argument]
        if which is None:
            return g
        own = self.shapes[self.active.index(argument)][:-2].numel()
        return g.new_zeros(own, *g.shape[1:]).index_add_(0, which, g)

    @staticmethod
    def _per_head(t: Tensor) -> Tensor:
        return t.reshape(len(t), -1, *t.shape[-2:]).transpose(0, 1)  # (heads, K, n, d)

    @staticmethod
    def _per_vector(t: Tensor, count: int) -> Tensor:
        return t.reshape(*t.shape[:2], count, -1).transpose(1, 2)  # (heads, K, n, d)

    def _heads(self, count: int) -> Iterator[tuple[slice, list[slice]]]:
        """Yield heads that are taken together, and the vectors that are."""
        vectors = max(1, min(count, self.limit // self.rows))
        heads = max(1, self.limit // (self.rows * vectors))
        chunks = [slice(j, j + vectors) for j in range(0, count, vectors)]
        for i in range(0, len(self.q), heads):
            yield slice(i, i + heads), chunks

    def _rows(self) -> Iterator[slice]:
        for i in range(0, self.q.shape[1], self.rows):
            yield slice(i, i + self.rows)


def _times(wide: Tensor, x: Tensor) -> Tensor:
    """Return `wide @ x`; as its transpose where x has few columns."""
    return (x.mT @ wide.mT).mT if x.shape[-1] <= NARROW else wide @ x


def _once(mask: Tensor) -> Tensor:
    """Return a mask without what it repeats along a dimension that it was expanded to."""
    mask = mask[(None,) * (2 - mask.ndim)]
    for i, step in enumerate(mask.stride()):
        mask = mask.narrow(i, 0, 1) if step == 0 and mask.shape[i] > 1 else mask
    return mask


def _of_head(own: torch.Size, lead: torch.Size, device: torch.device) -> Tensor | None:
    """Return which of an argument's own heads each head takes; None where it has all.

    Parameters
    ----------
    own, lead : torch.Size
        What is in front of the argument's last two dimensions, and of the result's: it is
        broadcast, or groups of heads that follow each other share one.
    device : torch.device
    """
    if own == lead:
        return None
    which = torch.arange(own.numel(), device=device).reshape(own)
    if own and own[-1] not in (1, lead[-1]):
        which = which.repeat_interleave(lead[-1] // own[-1], -1)
    return which.expand(lead).reshape(-1)


@rule(*FUSED)
def _fused(call: Call) -> TangentMap | None:
    names = [argument.name for argument in call.func._schema.arguments]
    given = dict(zip(names, call.args, strict=True))
    given["attn_mask"] = given.get("attn_mask", given.get("attn_bias"))
    if given["dropout_p"] or max(call.active) > 2:
        return None
    linear = Attention(attention_call(given, call.out[0], call.active))
    return TangentMap(linear.push, linear.pull)

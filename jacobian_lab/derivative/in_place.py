"""Operations in place, and those that write to an argument `out`: which operation without side
effects they stand for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.derivative.arguments import tensors

OVERWRITING = frozenset(
    {
        "copy_",
        "fill_",
        "zero_",
        "normal_",
        "uniform_",
        "random_",
        "bernoulli_",
        "exponential_",
        "log_normal_",
        "cauchy_",
        "geometric_",
    }
)
"""Nothing of what was there before is left."""
RESHAPING = frozenset({"set_", "resize_", "resize_as_", "_resize_output_"})
"""Give a tensor other memory: their functional forms do not say what becomes of it."""


def written(func: Any, given: list[Any]) -> list[Tensor]:
    """Return the tensors that the operation writes to."""
    schema = func._schema.arguments
    return [
        t for a, value in zip(schema, given, strict=True) if _is_written(a) for t in tensors(value)
    ]


@cache
def is_out(func: Any) -> bool:
    """Whether the operation writes to an argument of its own for that."""
    return any(a.kwarg_only and _is_written(a) for a in func._schema.arguments)


@cache
def functional(func: Any) -> Any:
    """Return the operation with the same arguments and no side effects; None if there is none."""
    module = getattr(torch.ops, func.namespace)
    packet = getattr(module, func.overloadpacket.__name__.removesuffix("_"), None)
    wanted = [str(a.type) for a in func._schema.arguments if not (a.kwarg_only and _is_written(a))]
    for overload in () if packet is None else packet.overloads():
        found = getattr(packet, overload)
        if (
            not found._schema.is_mutable
            and [str(a.type) for a in found._schema.arguments] == wanted
        ):
            return found
    return None


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write

"""The coarsest precision in which a network computes what depends on x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from jacobian_lab.derivative.hidden import READING


def observed(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, float, set[str], bool]:
    """Return `function(x)`, the coarsest eps inside, the operations in such a precision, and
    whether numbers that depend on x are read out.

    Networks that PyTorch does not let itself be watched in (some traced and some fused ones) are
    taken to compute as x.
    """
    precision = CoarsestPrecision(x)
    try:
        with precision:
            return function(x), precision.eps, precision.operations, precision.reads
    # if it is the network's own, it comes again
    except (RuntimeError, NotImplementedError, TypeError):
        return function(x), float(torch.finfo(x.dtype).eps), set(), False


class CoarsestPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes, of the operations on what depends on x, those whose results have fewer digits than x.

    Attributes
    ----------
    eps : float
        Of the coarsest precision seen, at least that of x.
    operations : set of str
        Such as "convolution in bfloat16".
    reads : bool
        Whether one of them hands a number to Python.
    """

    reads = False

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = self.eps = float(torch.finfo(x.dtype).eps)
        self.operations: set[str] = set()
        self._dependent: Any = WeakIdKeyDictionary({x: None})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(isinstance(a, Tensor) and a in self._dependent for a in tree_leaves((args, kwargs))):
            self.reads |= func.overloadpacket.__name__ in READING
            for tensor in tree_leaves(out):
                if isinstance(tensor, Tensor) and (
                    tensor.is_floating_point() or tensor.is_complex()
                ):
                    self._dependent[tensor] = None
                    eps = float(torch.finfo(tensor.dtype).eps)
                    self.eps = max(self.eps, eps)
                    if eps > self._own:
                        self.operations.add(
                            f"{func.overloadpacket.__name__} in"
                            f" {str(tensor.dtype).removeprefix('torch.')}"
                        )
        return out


def promoted(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function whose value is in no lower precision than its argument: vectors on both
    sides of J are then in that of x.
    """

    def value(x: Tensor) -> Tensor:
        raw = function(x)
        return raw.to(torch.promote_types(raw.dtype, x.dtype))

    return value

"""What a recording sees above autograd: calls of PyTorch's functions from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from jacobian_lab.derivative.hidden import LEAVING, LITERAL, Witness

Record: TypeAlias = Callable[[dict[str, Any], Callable[[], Tensor]], Tensor]


class PythonCalls(TorchFunctionMode):
    """Hands attention on as one operation, whichever kernel computes it, and sees tensors leave for
    numpy and pointers.

    Parameters
    ----------
    witness : Witness
        Told of tensors that leave, and of those that are made of Python's numbers.
    attention : callable
        From the arguments of an attention by name, and a function that computes it, to its result.
    """

    def __init__(self, witness: Witness, attention: Record) -> None:
        super().__init__()
        self.witness, self.attention = witness, attention

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            return self.attention(given, lambda: func(*args, **kwargs))
        if name in LEAVING and isinstance(args[0], Tensor) and args[0].layout is torch.strided:
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                self.witness.leaves(args[0], name)
        if name not in LITERAL:
            return func(*args, **kwargs)
        self.witness.literal = not any(
            hasattr(a, "__array_interface__") or hasattr(a, "__dlpack__") for a in args[:1]
        )
        try:
            return func(*args, **kwargs)
        finally:
            self.witness.literal = False

"""Whether a run uses numbers that PyTorch did not compute: they may depend on x, and a recording
takes them for constants.

Such a number enters as a tensor that no operation of the run made: from numpy or a compiled
extension, out of another thread, or written through a pointer. Its bytes are noted; where there are
any, the function runs once more at a slightly different x, and what was noted must be the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from jacobian_lab.derivative.arguments import tensors
from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.storage import Memory

LEAVING = frozenset(
    {"numpy", "__array__", "tolist", "data_ptr", "__dlpack__", "untyped_storage", "storage"}
)
"""Methods of a tensor by which its numbers leave PyTorch."""
EXPOSING = LEAVING - {"tolist"}
"""Those that hand out the memory itself, to which others may then write."""
ZEROS = frozenset({"zeros", "zeros_like", "new_zeros"})
"""Operations whose results are zero until something is written to them."""
MAKING = frozenset(
    {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
)
"""Operations whose results have no values until something is written to them."""
LIKE = frozenset(
    {
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_empty_strided",
    }
)
"""Operations that take only shape and type of their argument."""
ADDING = frozenset({"addmm", "baddbmm", "addbmm", "addmv", "addr"})
"""Operations `beta * a + ...`, which do not read a where beta is zero."""
READING = frozenset({"_local_scalar_dense", "equal", "allclose", "is_nonzero"})
"""Operations that return a number or a truth value to Python."""
LITERAL = frozenset({"tensor", "as_tensor", "asarray", "scalar_tensor"})
"""Functions that make a tensor of Python's numbers."""


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor has entries in a memory of its own."""
    own = type(tensor) in (Tensor, torch.nn.Parameter) or not is_traceable_wrapper_subclass(tensor)
    return own and tensor.layout is torch.strided and not tensor.is_nested


class Witness:
    """Notes the tensors that enter a run from outside PyTorch, and those that leave it.

    Attributes
    ----------
    noted : list of (shape, str)
        Shape and digest of each, in the order of appearance.
    suspect : bool
        Whether they have to be compared with those of another run.
    reads : set of str
        How numbers that depend on x were read out.
    """

    def __init__(self, memory: Memory, known: Iterable[Tensor]) -> None:
        self.memory = memory
        self.noted: list[tuple[tuple[int, ...], str]] = []
        self.reads: set[str] = set()
        self.suspect = self.literal = self._left = False
        self._shown: list[tuple[Tensor, int, str]] = []
        for tensor in known:
            if is_plain(tensor):
                memory.of(tensor).known = True

    def enters(self, func: Any, args: list[Any]) -> None:
        """Look at the arguments of an operation, all of them in the order of its schema."""
        name, schema = func.overloadpacket.__name__, func._schema
        if name in LIKE or (func.is_view and name != "lift_fresh"):
            return
        read = args
        if schema.is_mutable:
            read = [
                value
                for a, value in zip(schema.arguments, args, strict=True)
                if a.alias_info is None or not a.alias_info.is_write
            ]
        elif name in ADDING and args[[a.name for a in schema.arguments].index("beta")] == 0:
            read = args[1:]
        for tensor in tensors(*read):
            self.meets(tensor, fresh=name == "lift_fresh")

    def meets(self, tensor: Tensor, fresh: bool = False) -> None:
        """Note a tensor if nobody knows where its values come from."""
        if not is_plain(tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
            return
        storage = self.memory.of(tensor)
        hidden = (
            storage.exposed
            or storage.unwritten
            or (self._left if storage.known or storage.noted else not storage.made)
        )
        hidden = hidden or (storage.zeros and bool(tensor.any()))  # an extension has filled it
        if hidden and not storage.tangents:
            storage.noted = not storage.made
            self.noted.append((tuple(tensor.shape), _digest(tensor)))
            # of Python's own, unless it was read out of a tensor
            number = fresh and (self.literal or tensor.ndim == 0)
            self.suspect |= not number or bool(self.reads)

    def makes(self, func: Any, out: Any) -> None:
        """Note the results of an operation."""
        if not func.is_view and not func._schema.is_mutable:
            for tensor in tensors(out):
                if tensor.layout is torch.strided:
                    storage = self.memory.of(tensor)
                    storage.made = True
                    storage.unwritten, storage.zeros = (
                        func.overloadpacket.__name__ in names for names in (MAKING, ZEROS)
                    )

    def leaves(self, tensor: Tensor, way: str) -> None:
        """Note that code outside PyTorch gets to see a tensor."""
        storage = self.memory.of(tensor)
        storage.exposed |= way in EXPOSING
        if storage.tangents:
            self.reads.add(way)
            self._left = True
            if way in EXPOSING:
                self._shown.append((tensor, len(storage.written), _digest(tensor)))

    def check(self) -> None:
        """Raise if code outside PyTorch wrote to a tensor that depends on x."""
        for tensor, writes, digest in self._shown:
            if len(self.memory.of(tensor).written) == writes and _digest(tensor) != digest:
                raise UnsupportedError(
                    f"a tensor of shape {tuple(tensor.shape)} that depends on x is written to where"
                    " PyTorch cannot see it"
                )


def check_the_same(
    noted: list[tuple[tuple[int, ...], str]], again: list[tuple[tuple[int, ...], str]]
) -> None:
    """Raise if what entered one run is not what entered the other, at another x."""
    for (shape, digest), other in zip(noted, [*again, *[None] * len(noted)], strict=False):
        if other != (shape, digest):
            raise UnsupportedError(
                f"a tensor of shape {shape} appears that no recorded operation made, and its values"
                " change with x, or from run to run: part of the network is computed where PyTorch"
                " cannot see it"
            )
    if len(noted) != len(again):
        raise UnsupportedError(
            "the tensors that enter the network from outside PyTorch are others at another x"
        )


def nearby(x: Tensor) -> Tensor:
    """Return x with a small random change."""
    g = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
    ).to(x)
    size = x.square().mean().sqrt()
    return x + max(1e-3, 4 * torch.finfo(x.dtype).eps) * torch.where(size > 0, size, 1) * g


def _digest(tensor: Tensor) -> str:
    data = (
        tensor.detach()
        .resolve_conj()
        .resolve_neg()
        .reshape(-1)
        .contiguous()
        .cpu()
        .view(torch.uint8)
        .numpy()
    )
    return hashlib.blake2b(data.tobytes()).hexdigest()

"""Whether a network's weights and buffers are what they were: a recording holds for those alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from jacobian_lab.errors import InputError

WATCHED = 2**19
"""Number of weights up to which all of them are compared at each product: reading so many takes a
tenth of a millisecond on a CPU, which is little beside a product of such a network.
"""
SAMPLED = 16
"""Entries of each weight that are compared in larger networks. One would do: an optimiser's step, a
load or a cast changes every entry of a weight. The others allow for entries that stay the same by
chance, such as zeros.
"""


class Weights:
    """The weights and buffers of a network as they are now, to be compared with what they are
    later.

    Storage, version and a sample of the values are compared each time; all values only where the
    first two changed, so that a network that writes the same values again in each forward pass, to
    rounding (a clamp, a forced norm), has not changed.

    Parameters
    ----------
    modules : iterable of nn.Module
        Their own parameters and buffers are watched, not those of submodules, and which submodules
        they have.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = list(modules)
        self._children = [module._modules for module in modules]
        self._places = [
            (_store(module, name), name)
            for module in modules
            for named in (
                module.named_parameters(recurse=False),
                module.named_buffers(recurse=False),
            )
            for name, tensor in named
            if _is_plain(tensor)
        ]
        self._remember()

    @property
    def tensors(self) -> list[Tensor]:
        """All that is watched; nothing in place of what is gone."""
        found = (store.get(name) for store, name in self._places)
        return [torch.zeros(0, device="cpu") if tensor is None else tensor for tensor in found]

    def check(self) -> None:
        """Raise if a value changed: what is kept of a recording is half of the old network, half of
        the new.
        """
        if self._submodules != self._parts():
            raise InputError(
                "submodules of the network were replaced since this operator was made: make it anew"
            )
        tensors = self.tensors
        moved = self._identity(tensors) != self._identities
        if moved:
            self._views = self._views_of(tensors)
        sample = self._sample()
        if moved or not self._equal(sample, self._sampled):
            near = len(sample) == len(self._sampled) and all(map(_is_near, sample, self._sampled))
            if not moved or not near or not self._equal(self._sums(tensors), self._all):
                raise InputError(
                    "the network's weights changed since this operator was made: make it anew;"
                    " if the network itself writes to a buffer in each run, such as a counter, keep"
                    " that in a plain attribute"
                )
            self._remember()

    def _remember(self) -> None:
        tensors = self.tensors
        self._submodules = self._parts()
        self._identities = self._identity(tensors)
        self._views = self._views_of(tensors)
        self._sampled, self._all = self._sample(), self._sums(tensors)

    @staticmethod
    def _views_of(tensors: list[Tensor]) -> list[Tensor]:
        whole = sum(t.numel() for t in tensors) <= WATCHED
        return [
            t.detach().reshape(-1)[:: 1 if whole else max(1, t.numel() // SAMPLED)]
            for t in tensors
            if t.numel()
        ]

    def _parts(self) -> list[int]:
        return [id(module) for children in self._children for module in children.values()]

    @staticmethod
    def _identity(tensors: list[Tensor]) -> list[tuple[Any, ...]]:
        return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]

    def _sample(self) -> list[Tensor]:
        return [torch.cat(views) for views in _by_kind(self._views)]

    @staticmethod
    def _sums(tensors: list[Tensor]) -> list[Tensor]:
        """Return the norm of each, and the sum of integers: read once, in the precision of the
        weights.
        """
        tensors = [
            torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
            for t in (tensor.detach() for tensor in tensors)
        ]
        floating = [t for t in tensors if t.is_floating_point() and t.numel()]
        others = [t.double().sum() for t in tensors if not t.is_floating_point()]
        return [*(torch.stack(torch._foreach_norm(same)) for same in _by_kind(floating)), *others]

    @staticmethod
    def _equal(now: list[Tensor], before: list[Tensor]) -> bool:
        return len(now) == len(before) and all(
            a.shape == b.shape and a.dtype == b.dtype and (torch.equal(a, b) or _is_close(a, b))
            for a, b in zip(now, before, strict=True)
        )


def _store(module: nn.Module, name: str) -> Any:
    """Return where a module keeps a weight, to look it up without the module's own slow way;
    scripted ones have no other.
    """
    stores = (module._parameters, module._buffers)
    return next(
        (store for store in stores if isinstance(store, dict) and name in store),
        _Attributes(module),
    )


class _Attributes:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def get(self, name: str) -> Any:
        return getattr(self.module, name, None)


def _is_close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return False
    return torch.allclose(a, b, rtol=16 * torch.finfo(a.dtype).eps, atol=0, equal_nan=True)


def _is_near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or not a.is_floating_point():
        return a.shape == b.shape and torch.equal(a, b)
    size = float(b.nan_to_num().abs().max()) if b.numel() else 0.0
    close = 16 * torch.finfo(a.dtype).eps
    return torch.allclose(a, b, rtol=close, atol=close * size, equal_nan=True)


def _is_plain(tensor: Tensor) -> bool:
    """Return whether the values of a weight can be read as they are: not those of `meta`, sparse or
    quantised ones.
    """
    return (
        tensor.layout is torch.strided
        and not tensor.is_meta
        and not tensor.is_quantized
        and (not tensor.is_floating_point() or tensor.element_size() > 1)
    )


def _by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())

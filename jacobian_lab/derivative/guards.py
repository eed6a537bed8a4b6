"""What must hold of a network before its derivative means anything, and as long as the derivative
is used.

    differentiable()          derivatives are possible inside; the caller's settings come back
    modules_called()          the modules that run inside: whatever a closure hides
    Weights                   whether weights and buffers are what they were, by value
    CoarsestPrecision         in which precision a network computes
    check_evaluation_mode, check_finite, check_apart
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from jacobian_lab.errors import InputError

TRAINED = (
    nn.modules.batchnorm._NormBase,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
)
"""Kinds of module that behave otherwise in training."""
WATCHED = 2**19
"""Networks of up to so many weights are compared whole at each product; it takes a tenth of a
millisecond.
"""
SAMPLED = 16
"""Entries of each weight that are compared in larger ones: a change of all weights shows in any of
them.
"""
ROUNDING = 300.0
"""In units of eps: how far two evaluations at one point may lie apart, by other kernels for another
batch.
"""


@contextmanager
def differentiable() -> Iterator[None]:
    """Make derivatives possible inside: gradients on, attention by the math kernel, compiled
    networks run as they were written.

    The caller's settings come back afterwards; those that PyTorch keeps for the whole process, when
    the last thread is out.
    """
    with torch.inference_mode(False), torch.enable_grad(), _SETTINGS:
        yield


class _Settings:
    """Settings of the process, not of a thread: the first thread that needs them sets them, the
    last one sets them back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                with ExitStack() as settings:  # set back at once, if one of them cannot be set
                    settings.enter_context(sdpa_kernel(SDPBackend.MATH))
                    # something was compiled: whoever compiles has imported it
                    if "_dynamo" in vars(torch):
                        settings.enter_context(torch.compiler.set_stance("force_eager"))
                    self._before = settings.pop_all()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.close()


_SETTINGS = _Settings()


def random_state() -> tuple[Any, ...]:
    """Return the states of the generators that a network may draw from: PyTorch's, numpy's and
    Python's.
    """
    name, keys, position, *_ = np.random.get_state()  # noqa: NPY002 - the one that networks draw from
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    torchs = (hash(state.numpy().tobytes()) for state in (torch.get_rng_state(), *cuda))
    return (*torchs, name, hash(np.asarray(keys).tobytes()), position, hash(random.getstate()))


@contextmanager
def deterministic() -> Iterator[None]:
    """Raise if what runs inside draws random numbers from a generator of PyTorch, numpy or
    Python.
    """
    before = random_state()
    yield
    if random_state() != before:
        raise InputError(
            "the network draws random numbers as it runs: make it deterministic (evaluation mode,"
            " fixed noise), or it has no Jacobian"
        )


@contextmanager
def modules_called() -> Iterator[list[nn.Module]]:
    """Collect the modules that are called inside, each once; a network that is a function hides
    them from `named_modules`.
    """
    listed: list[nn.Module] = []
    seen: set[int] = set()
    thread = threading.get_ident()

    def note(module: nn.Module, _: Any) -> None:
        # the hook is the process's: others run networks, too
        if id(module) not in seen and threading.get_ident() == thread:
            seen.add(id(module))
            listed.append(module)

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield listed
    finally:
        handle.remove()


def in_training(network: nn.Module, called: Iterable[nn.Module]) -> list[str]:
    """Name the modules in training mode: of the network, and of those that were called, which may
    not be listed in it.

    A module that a network makes as it runs, or keeps where `eval()` does not reach it, and an
    exported graph, which has no such mode, count if they are of a kind that behaves otherwise in
    training.
    """
    exported = [module for module in network.modules() if isinstance(module, torch.fx.GraphModule)]
    graphs = {id(part) for module in exported for part in module.modules()}
    listed = {
        id(module): module
        for module in network.modules()
        if module is not network and id(module) not in graphs
    }
    found = [module for module in listed.values() if module.training]
    found += [
        module
        for module in called
        if id(module) not in listed
        and module.training
        and (isinstance(module, TRAINED) or "drop" in type(module).__name__.lower())
    ]
    return [type(module).__name__ for module in found]


def check_evaluation_mode(network: nn.Module, called: Iterable[nn.Module]) -> None:
    """Raise if a module is in training mode; see `in_training`."""
    training = in_training(network, called)
    if training:
        raise InputError(
            f"the network is in training mode ({training[0]}{' and more' if training[1:] else ''}):"
            " dropout and batch statistics would make J another operator at each call. Call"
            " denoiser.eval() first"
        )


def check_finite(x: Tensor, name: str, remedy: str = "") -> None:
    """Raise if a value is not finite."""
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise InputError(
            f"{name} has {bad} values of {x.numel()} that are not finite (NaN or infinite){remedy}"
        )


def is_repeated(again: Tensor, value: Tensor, eps: float) -> bool:
    """Return whether evaluations at the same points agree to rounding, sample by sample, by
    whatever kernels.

    `eps` is that of the coarsest precision inside.
    """
    apart, size = ((a.double().flatten(1).norm(dim=1)) for a in (again - value, value))
    return bool((apart <= max(ROUNDING * torch.finfo(value.dtype).eps, 4 * eps) * size).all())


def check_apart(
    function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, last: Tensor, eps: float
) -> None:
    """Raise unless the last sample of a batch gives `last` alone or elsewhere, `value` among the
    others, and that repeatedly.

    Parameters
    ----------
    function : callable
    x : Tensor, shape (B, ...)
    value : Tensor, shape (B, ...)
        What the function gave for the batch.
    last : Tensor, shape (1, ...)
        What it gave for the last sample, not behind the others.
    eps : float
        Of the coarsest precision inside.
    """
    if is_repeated(last, value[-1:], eps):
        return
    with torch.no_grad():
        others = [function(x), function(x)]  # a state of two values would pass at one call
    if not all(is_repeated(again, value, torch.finfo(value.dtype).eps) for again in others):
        gap = max(float((again - value).norm() / value.norm()) for again in others)
        raise InputError(
            "the network returns something else each time: two calls at one x_t and t differ by"
            f" {gap:.1e} of the output. It draws noise, keeps a state (a counter, a cache, running"
            " statistics), or computes something else where gradients are wanted: make it"
            " deterministic, or it has no Jacobian"
        )
    if (
        len(x) > 1
        and not _is_rounding(function, x[-1:], last, value[-1:])
        and not _is_by_kernel(function, x, value[-1:], last)
    ):
        raise InputError(
            "samples of a batch see each other: the last one's output is another alone than among"
            f" {len(x)} (batch statistics, attention over the batch). Take one sample at a time"
        )


def _is_rounding(
    function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, other: Tensor
) -> bool:
    """Return whether a change of x in its last digits moves its value as far as `other` is: far
    from the data it may.
    """
    noise = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).to(x)
    with torch.no_grad():
        moved = function(x * (1 + 8 * torch.finfo(x.dtype).eps * noise))
    return bool((other - value).norm() <= 30 * (moved - value).norm())


def _is_by_kernel(
    function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, other: Tensor
) -> bool:
    """Return whether the last sample's value is the same beside other samples, and alone nearly so:
    kernels round otherwise.

    Far from the data a function may cancel numbers much larger than its value, whatever a change of
    x does.
    """
    if not (other - value).norm() <= torch.finfo(value.dtype).eps ** (2 / 3) * value.norm():
        return False
    with torch.no_grad():
        beside_others = function(
            torch.cat([1.5 * x[:-1].flatten(1).flip(1).reshape(x[:-1].shape), x[-1:]])
        )[-1:]
    return is_repeated(beside_others, value, torch.finfo(value.dtype).eps)


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
        return [torch.zeros(0) if tensor is None else tensor for tensor in found]

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
        if moved or not self._equal(self._sample(), self._sampled):
            if not moved or not self._equal(self._sums(tensors), self._all):
                raise InputError(
                    "the network's weights changed since this operator was made: make it anew"
                )
            self._remember()

    def _remember(self) -> None:
        tensors = self.tensors
        self._submodules = self._parts()
        self._identities = self._identity(tensors)
        whole = sum(t.numel() for t in tensors) <= WATCHED
        self._views = [
            t.detach().reshape(-1)[:: 1 if whole else max(1, t.numel() // SAMPLED)]
            for t in tensors
            if t.numel()
        ]
        self._sampled, self._all = self._sample(), self._sums(tensors)

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
        tensors = [t.detach() for t in tensors]
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


def observed(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, float, set[str]]:
    """Return `function(x)`, the coarsest eps inside, and the operations in such a precision.

    Networks that PyTorch does not let itself be watched in (some traced and some fused ones) are
    taken to compute as x.
    """
    precision = CoarsestPrecision(x)
    try:
        with precision:
            return function(x), precision.eps, precision.operations
    # if it is the network's own, it comes again
    except (RuntimeError, NotImplementedError, TypeError):
        return function(x), float(torch.finfo(x.dtype).eps), set()


class CoarsestPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes, of the operations on what depends on x, those whose results have fewer digits than x.

    Attributes
    ----------
    eps : float
        Of the coarsest precision seen, at least that of x.
    operations : set of str
        Such as "convolution in bfloat16".
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = self.eps = float(torch.finfo(x.dtype).eps)
        self.operations: set[str] = set()
        self._dependent: Any = WeakIdKeyDictionary({x: None})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(isinstance(a, Tensor) and a in self._dependent for a in tree_leaves((args, kwargs))):
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

"""What must hold of a network before its derivative means anything.

check_evaluation_mode   no module in training mode, not even one that a closure hides
check_apart             the same output at each call, and alone as in a batch
check_base              the same output now as when a forward difference's other end was computed
check_run               the same output in the run behind a product as at first
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from jacobian_lab.errors import InputError

TRAINED = (
    nn.modules.batchnorm._NormBase,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
)
"""Kinds of module that behave otherwise in training: those of `torch.nn` whose forward pass reads
`self.training`.
"""
ROUNDING = 300.0
"""Distance of two evaluations at one point, in units of eps and relative to the output, that the
kernels of another batch size may cause: rounding grows with the depth of a network. A state or a
coupling between samples moves the output by far more.
"""


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


def is_repeated(again: Tensor, value: Tensor, eps: float) -> bool:
    """Return whether two evaluations at the same points agree to rounding, sample by sample.

    Parameters
    ----------
    again, value : Tensor, shape (B, ...)
        The two outputs, possibly of other kernels.
    eps : float
        Of the coarsest precision inside.
    """
    apart, size = ((a.double().flatten(1).norm(dim=1)) for a in (again - value, value))
    return bool((apart <= max(ROUNDING * torch.finfo(value.dtype).eps, 4 * eps) * size).all())


GAIN = 4.0
"""|J v| / |v| above which a forward difference is looked into. Few posterior covariances reach it;
in float32 a change of what the network keeps does by moving its output by 0.3 %.
"""


@torch.no_grad()
def check_base(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    value: Tensor,
    eps: float,
    v: Tensor,
    product: Tensor,
    gain: float = GAIN,
) -> float:
    """Raise if a forward difference is large because the network is not what it was at its other
    end: somebody changed a guidance scale, a prompt, or what else it keeps. One pass, where the
    difference is large; none elsewhere.

    Parameters
    ----------
    function : callable
    x, value : Tensor, shape (B, ...)
        A point, and what the function gave for it.
    eps : float
        Of the coarsest precision inside.
    v, product : Tensor, shape (K, ...)
        Vectors, and differences for J v.
    gain : float
        |J v| / |v| up to which differences are known to be right.

    Returns
    -------
    float
        The same, for the next ones.
    """
    size, length = (a.flatten(1).norm(dim=1) for a in (product, v))
    large = (size > gain * length) & size.isfinite()
    if not large.any():
        return gain
    there, found = (a[large] if len(a) == len(v) else a for a in (x, value))
    _check_now(function, there, found, eps)
    large &= length > 0  # of a zero vector it is rounding, and tells nothing of a gain
    return max(gain, 2 * float((size[large] / length[large]).max())) if large.any() else gain


@torch.no_grad()
def check_run(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    value: Tensor,
    eps: float,
    seen: Tensor,
    blur: Tensor,
    known: float = 0.0,
) -> float:
    """Raise if the run behind a product gave another output at x than was found at first, as in
    `check_base`. One pass, where the two lie apart by more than rounding and blur.

    Parameters
    ----------
    function, x, value, eps
        As in `check_base`.
    seen : Tensor, shape (K, ...)
        The output at x, as the run of K vectors tells.
    blur : Tensor, shape (K,)
        How far that may be off.
    known : float
        Distance, relative to the output, up to which the two are known to be of one network.

    Returns
    -------
    float
        The same, for the next runs.
    """
    gap, size = ((a.flatten(1).double().norm(dim=1)) for a in (seen - value, value.expand_as(seen)))
    if bool((gap <= torch.maximum(blur.double(), known * size)).all()):
        return known
    if is_repeated(seen, value.expand_as(seen), eps) or not bool(seen.isfinite().all()):
        return known
    _check_now(function, x, value, eps)
    return 2 * float((gap / size.clamp(min=torch.finfo(size.dtype).tiny)).max())


def _check_now(function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, eps: float) -> None:
    """Raise if the network's output at x is another one than before."""
    again = function(x)
    if (
        not is_repeated(again, value, eps)
        and value.isfinite().all()
        and not _is_rounding(function, x, again, value)
    ):
        gap = float((again - value).norm() / value.norm())
        raise InputError(
            "the network returns something else at x_t than when D(x_t) was computed, by"
            f" {gap:.1e} of its output: what it keeps was changed, such as a guidance scale or a"
            " prompt. Make the operator anew after such a change; in a sampler, sample with one"
            " network"
        )


def check_apart(
    function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, last: Tensor, eps: float
) -> None:
    """Raise unless the network gives the last sample of a batch the same output alone and among the
    others, at each call.

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
    """Return whether changing the last digits of x moves its value as far as `other` lies from it,
    as may happen far from the data.
    """
    return bool((other - value).norm() <= rounding_of_input(function, x, value))


def rounding_of_input(function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor) -> Tensor:
    """Return how far rounding may move the value: 30 times what a change of the last digits of x
    does.
    """
    noise = torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
    ).to(x)
    # 8 eps: more than the rounding of x itself, and still only its last digit or two
    with torch.no_grad():
        moved = function(x * (1 + 8 * torch.finfo(x.dtype).eps * noise))
    return 30 * (moved - value).norm()


def _is_by_kernel(
    function: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, other: Tensor
) -> bool:
    """Return whether the last sample's value does not depend on its neighbours, and changes alone
    by no more than another kernel's rounding.

    Far from the data a function may cancel numbers much larger than its value: the rounding of
    another kernel then exceeds `ROUNDING`, even where a change of x in its last digits does not.
    """
    if not (other - value).norm() <= torch.finfo(value.dtype).eps ** (2 / 3) * value.norm():
        return False
    with torch.no_grad():
        beside_others = function(
            torch.cat([1.5 * x[:-1].flatten(1).flip(1).reshape(x[:-1].shape), x[-1:]])
        )[-1:]
    return is_repeated(beside_others, value, torch.finfo(value.dtype).eps)

"""What public functions ask of their arguments: each helper returns the value, or raises an
`InputError` that names it.

    integer, real, flag, seed      one number: Python's, numpy's, or a tensor of no dimension
    one_of, instance, function     a choice, an object of ours, something to call
    array, tensor, finite          many numbers, of a shape
    device, precision              where, and in which floating-point type, a network computes
    library                        a module of an optional extra
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jacobian_lab.errors import InputError

if TYPE_CHECKING:  # linear algebra asks here, too, and knows no tensor
    from torch import Tensor

SEEDS = 2**63
"""Seeds are smaller: PyTorch's generators take no more."""


def integer(name: str, value: Any, low: int, high: int | None = None, top: str = "") -> int:
    """Return a whole number from `low` to `high`, which a message calls `top`, such as "n"."""
    number = None
    if not _is_bool(value) and not getattr(value, "ndim", 0):
        with suppress(TypeError, ValueError, RuntimeError):
            number = operator.index(value)
    if number is None:
        raise InputError(f"{name} must be a whole number: got {shown(value)}")
    if number < low or (high is not None and number > high):
        wanted = (
            f"be at least {low}"
            if high is None
            else f"lie from {low} to {top and f'{top} = '}{high}"
        )
        raise InputError(f"{name} must {wanted}: got {shown(number)}")
    return number


def real(name: str, value: Any, within: str = "(-inf, inf)") -> float:
    """Return a real number in an interval, such as "(0, 1]"; infinity is in it only where its
    bracket is square.
    """
    number = None
    if (
        not _is_bool(value)
        and not isinstance(value, str | bytes | complex)
        and not getattr(value, "ndim", 0)
    ):
        with suppress(TypeError, ValueError, RuntimeError, OverflowError):
            number = float(value)
    if number is None:
        raise InputError(f"{name} must be a number: got {shown(value)}")
    low, high = (float(end) for end in within[1:-1].split(","))
    above = number > low or (number == low and within[0] == "[")
    below = number < high or (number == high and within[-1] == "]")
    if not (above and below):
        wanted = {
            "(-inf, inf)": "be finite",
            "(0, inf)": "be positive",
            "[0, inf)": "be at least 0",
        }.get(within, f"lie in {within}")
        raise InputError(f"{name} must {wanted}: got {number:g}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False: got {shown(value)}")
    return bool(value)


def seed(value: Any, name: str = "seed") -> int:
    """Return a seed, from 0 to 2^63 - 1."""
    return integer(name, value, 0, SEEDS - 1)


def one_of(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless the value is one of some words."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"unknown {name} {shown(value)}: expected one of {', '.join(known)}")


def instance(name: str, value: Any, kind: type[Any], remedy: str = "") -> None:
    """Raise unless the value is an object of a class."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}: got {shown(value)}{remedy}")


def function(name: str, value: Any, signature: str) -> None:
    """Raise unless the value can be called."""
    if not callable(value):
        raise InputError(f"{name} must be a function {signature}: got {shown(value)}")


def sequence(name: str, value: Any) -> list[Any]:
    """Return the entries of a list, a tuple, a range, an array or a tensor: of what can be read
    twice, and is no text.
    """
    if (
        isinstance(value, str | bytes | dict)
        or not hasattr(value, "__len__")
        or getattr(value, "ndim", 1) != 1
    ):
        raise InputError(f"{name} must be a list: got {shown(value)}")
    return list(value.tolist() if _is_array(value) else value)


def array(name: str, value: Any, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Return finite real numbers as float64, of a shape if one is given."""
    try:
        given = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array of numbers: got {shown(value)}") from error
    if given.dtype.kind == "c":
        raise InputError(f"{name} is complex: take its real or its imaginary part")
    if given.dtype.kind not in "fiu":
        raise InputError(f"{name} must be an array of numbers: got {shown(value)}")
    if shape is not None and given.shape != shape:
        raise InputError(f"{name} has shape {given.shape}: expected {shape}")
    finite(name, given)
    return given.astype(np.float64, copy=False)


def finite(name: str, value: NDArray[Any] | Tensor, remedy: str = "") -> None:
    """Raise if a number of an array or a tensor is NaN or infinite; the remedy ends the message."""
    good = np.isfinite(value) if isinstance(value, np.ndarray) else value.isfinite()
    if not good.all():
        bad, count = int((~good).sum()), math.prod(value.shape)
        raise InputError(
            f"{name} has {bad} values of {count} that are not finite (NaN or infinite){remedy}"
        )


def tensor(name: str, value: Any, shape: Iterable[int] | None = None) -> Tensor:
    """Return a dense floating-point tensor, of a shape if one is given."""
    import torch

    if (
        not isinstance(value, torch.Tensor)
        or not value.is_floating_point()
        or value.layout is not torch.strided
    ):
        remedy = (
            "; as pixels in [-1, 1]. Write x / 127.5 - 1 for pixels from 0 to 255"
            if isinstance(value, torch.Tensor)
            else ""
        )
        raise InputError(f"{name} must be a floating-point tensor: got {shown(value)}{remedy}")
    if shape is not None and tuple(value.shape) != tuple(shape):
        raise InputError(f"{name} has shape {tuple(value.shape)}: expected {tuple(shape)}")
    return value


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return a shape, of positive whole numbers."""
    what = f"{name} must be positive integers: got {shown(value)}"
    try:
        found = tuple(integer(name, size, 1) for size in sequence(name, value))
    except InputError as error:
        raise InputError(what) from error
    if not found:
        raise InputError(what)
    return found


def device(value: Any) -> None:
    """Raise unless tensors can live, and have values, on the device."""
    import torch

    reason = ""
    try:
        place = torch.device(value)
        if place.type == "meta" or (place.type == "cpu" and place.index):
            reason = (
                "it holds no values"
                if place.type == "meta"
                else "the CPU is one device, without a number"
            )
        else:
            torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        reason = str(error).split("\n")[0].split(". ")[0].split(" device type at start")[0][:200]
    if reason:
        raise InputError(
            f"the device {shown(value)} cannot be used: {reason}. Take cpu, or a device that this"
            " PyTorch was built for"
        )


def precision(value: Any) -> None:
    """Raise unless the value is one of PyTorch's floating-point types."""
    import torch

    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise InputError(
            "dtype must be a floating-point type of PyTorch, such as torch.float32: got"
            f" {shown(value)}"
        )


def shown(value: Any) -> str:
    """Return what a message says of a value, in one short line."""
    if _is_array(value) and (value.ndim or _is_bool(value)):
        kind = "numpy array" if isinstance(value, np.ndarray) else "tensor"
        place = " without values (meta)" if getattr(value, "is_meta", False) else ""
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {kind} of {dtype}, shape {tuple(value.shape)}{place}"
    plain = isinstance(
        value, str | int | float | tuple | list | dict | type(None)
    ) and not isinstance(value, bool)
    text = " ".join((reprlib.repr(value) if plain else repr(value)).split())[:80]
    return text if plain else f"{text} ({type(value).__name__})"


def _is_array(value: Any) -> bool:
    """Return whether the value is a numpy array or a tensor, without an import of PyTorch."""
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "dtype"))


def _is_bool(value: Any) -> bool:
    dtype = str(getattr(value, "dtype", ""))
    return isinstance(value, bool | np.bool_) or dtype in ("torch.bool", "bool")


def options(config: Any, most: int = 10**6) -> None:
    """Raise if a number among the options of a command is not finite, or a count is beyond all
    use.
    """
    for name, given in vars(config).items():
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, float):
                real(f"--{name.replace('_', '-')}", value)
            elif isinstance(value, int) and name != "seed" and abs(value) > most:
                raise InputError(
                    f"--{name.replace('_', '-')} must be at most {most:,}: got {value}"
                )


def library(name: str, extra: str, users: str) -> Any:
    """Return a module of an optional extra, imported when it is needed: some take five seconds.

    Parameters
    ----------
    name : str
        The module, such as "diffusers".
    extra : str
        The extra that installs it, such as "sd"; empty where none does.
    users : str
        What needs it, such as "latent models".
    """
    try:
        return import_module(name)
    except ImportError as error:
        remedy = (
            f'pip install "jacobian-lab[{extra}]" (in a checkout: pip install -e ".[{extra}]")'
            if extra
            else f"pip install {name}"
        )
        raise InputError(
            f"{users} need {name}, which is not installed or does not load ({error}): {remedy}"
        ) from error


def diffusers() -> Any:
    """Return the module diffusers."""
    return library("diffusers", "sd", "latent models")


def transformers() -> Any:
    """Return the module transformers."""
    return library("transformers", "sd", "latent models")

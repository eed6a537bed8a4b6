"""The arguments of PyTorch's operations, which may be tensors, numbers, and lists of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor


def in_order(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """Return all arguments of a call in the order of the operation's schema.

    Parameters
    ----------
    func : OpOverload
    args, kwargs : tuple and dict
        As the operation was called.

    Returns
    -------
    list
        One for each argument of the schema, defaults filled in; None where there is no default.
    """
    rest = _defaults(func)[len(args) :]
    return [*args, *(kwargs.get(name, default) for name, default in rest)] if rest else list(args)


@cache
def _defaults(func: Any) -> list[tuple[str, Any]]:
    return [
        (a.name, a.default_value if a.has_default_value() else None) for a in func._schema.arguments
    ]


@cache
def has_lists_behind(func: Any) -> bool:
    """Whether tensors may stand in a list that is not the first argument, or behind one that is."""
    kinds = [str(a.type) for a in func._schema.arguments]
    listed = ["List" in kind and "Tensor" in kind for kind in kinds]
    return any(listed[1:]) or (any(listed[:1]) and any("Tensor" in kind for kind in kinds[1:]))


def apply(func: Any, given: list[Any], run: Callable[..., Any] | None = None) -> Any:
    """Call an operation with arguments in the order of its schema.

    Parameters
    ----------
    func : OpOverload
    given : list
        All arguments, as from `in_order`.
    run : callable, optional
        Called in place of the operation: a decomposition of it, with the same arguments.
    """
    schema = func._schema.arguments
    return (run or func)(
        *[a for a, s in zip(given, schema, strict=True) if not s.kwarg_only],
        **{s.name: a for a, s in zip(given, schema, strict=True) if s.kwarg_only},
    )


def tensors(*args: Any) -> list[Tensor]:
    """Return the tensors among arguments or results."""
    found: list[Tensor] = []
    for a in args:
        if isinstance(a, Tensor):
            found.append(a)
        elif isinstance(a, (list, tuple)) and a and not isinstance(a[0], (int, float)):
            found.extend(tensors(*a))
    return found


def each(function: Callable[[Tensor], Tensor], a: Any) -> Any:
    """Apply a function to each tensor among arguments or results."""
    return (
        function(a)
        if isinstance(a, Tensor)
        else [each(function, b) for b in a]
        if isinstance(a, (list, tuple))
        else a
    )

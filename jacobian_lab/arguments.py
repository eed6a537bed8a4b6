"""The arguments of PyTorch's operations, which may be tensors, numbers, and lists of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor


def in_order(func: Any, args: Any, kwargs: Any) -> list[Any]:  # noqa: ANN401 - an overload of an operation
    """Return all arguments in the order of the schema, defaults filled in."""
    rest = func._schema.arguments[len(args):]
    return [*args, *(kwargs.get(a.name, a.default_value if a.has_default_value() else None) for a in rest)]


def apply(func: Any, given: list[Any], run: Callable[..., Any] | None = None) -> Any:  # noqa: ANN401
    """Call the operation, or `run` in its place, with arguments in the order of the schema."""
    schema = func._schema.arguments
    return (run or func)(*[a for a, s in zip(given, schema, strict=True) if not s.kwarg_only],
                         **{s.name: a for a, s in zip(given, schema, strict=True) if s.kwarg_only})


def tensors(*args: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """Yield the tensors among arguments or results."""
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, (list, tuple)):
            yield from tensors(*a)


def each(function: Callable[[Tensor], Tensor], a: Any) -> Any:  # noqa: ANN401
    """Apply a function to each tensor among arguments or results."""
    return function(a) if isinstance(a, Tensor) else [each(function, b) for b in a] if isinstance(a, (list, tuple)) else a

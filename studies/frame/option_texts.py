"""What the help says of the options in a dataclass: the docstrings below its attributes."""

from __future__ import annotations

import dataclasses
from typing import Any


def option_texts(kind: type[Any]) -> dict[str, str]:
    """Return the text of each option of a class, those of its base classes too, in one line."""
    from docstring_parser import parse_from_object

    return {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for base in reversed(kind.__mro__)
        if dataclasses.is_dataclass(base)
        for parameter in parse_from_object(base).params
    }

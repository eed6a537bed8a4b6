"""The libraries of the extra `sd`, imported when they are needed: diffusers alone takes five
seconds.
"""

from importlib import import_module
from typing import Any

from jacobian_lab.errors import InputError


def diffusers() -> Any:
    """Return the module diffusers."""
    return _load("diffusers")


def transformers() -> Any:
    """Return the module transformers."""
    return _load("transformers")


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"latent models need {name}, which is not installed or does not load ({error}): "
            'pip install "jacobian-lab[sd]" (in a checkout: pip install -e ".[sd]")'
        ) from error

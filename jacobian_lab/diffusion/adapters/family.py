"""What the door knows of a family of models: its name, how it is recognised, and how it is
loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.latent import Latent
from jacobian_lab.errors import InputError

PAGE = 'the page "Bring your model" (studies/site/bring-your-model.md)'


@dataclass(frozen=True)
class Family:
    """A kind of model, and the function that makes a denoiser of one."""

    name: str
    """What `load(source, family=...)` takes."""
    about: str
    """Which models, in the words of the refusal."""
    recognises: Callable[[Any], bool]
    load: Callable[..., Denoiser | Latent]
    """`load(source, **options)`; its keyword-only parameters are the options."""


def classes(source: Any) -> set[str]:
    """Return the names of an object's class and of all classes above it."""
    return {kind.__name__ for kind in type(source).__mro__}


def packages(source: Any) -> set[str]:
    """Return the names of the packages that an object's class, and all above it, come from."""
    return {kind.__module__.split(".")[0] for kind in type(source).__mro__}


def has(source: Any, *names: str) -> bool:
    """Return whether an object has all these attributes."""
    return all(hasattr(source, name) for name in names)


def call_with(
    load: Callable[..., Denoiser | Latent], source: Any, options: Mapping[str, Any], what: str
) -> Denoiser | Latent:
    """Return `load(source, **options)`, or raise if an option is unknown, or one is missing.

    Parameters
    ----------
    load : callable
        Of a family, or of a kind of pipeline.
    source
        The model.
    options : dict
        As the user gave them.
    what : str
        The model's kind, for the message.
    """
    parameters = inspect.signature(load).parameters
    known = {
        name: of for name, of in parameters.items() if of.kind is inspect.Parameter.KEYWORD_ONLY
    }
    # options that are not known before the source is opened are checked there
    handed_on = any(of.kind is inspect.Parameter.VAR_KEYWORD for of in parameters.values())
    for name in options:
        if name not in known and not handed_on:
            raise InputError(
                f"{what} takes no option {name!r}: expected"
                f" {', '.join(known) if known else 'none'}. See {PAGE}"
            )
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise InputError(f"{what} needs the option {name}: see {PAGE}")
    return load(source, **options)


def ready(network: Any) -> Any:
    """Return a network in evaluation mode, its weights frozen, if it is a Module."""
    return network.eval().requires_grad_(False) if isinstance(network, nn.Module) else network


class Labelled(nn.Module):
    """A network with a class label that is held fixed: `network(x, t, labels)`.

    Parameters
    ----------
    network : callable
        Takes x (B, *shape), t (B,), and labels (B,) or (B, k) under the name `argument`.
    label : Tensor or int or None
        An index, or a row such as a one-hot vector, (k,); None is handed on.
    argument : str
        Name of the network's parameter.
    """

    label: Tensor | None

    def __init__(self, network: Any, label: Tensor | int | None, argument: str) -> None:
        super().__init__()
        self.network, self.argument = network, argument
        held = None if label is None else torch.as_tensor(label)[None]
        self.register_buffer("label", held)
        self.training = isinstance(network, nn.Module) and network.training

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """Return the network's output for x, (B, *shape), with the label."""
        labels = self.label
        if labels is not None:
            labels = labels.to(x.device).expand(len(x), *labels.shape[1:])
        return self.network(x, t, **{self.argument: labels})


def label_of(label: int | None, count: int | None) -> int | None:
    """Return a class label, or raise if the model has none, or not that many, or needs one."""
    if count:
        if label is None:
            raise InputError(f"the network is conditioned on a class: pass label=0 ... {count - 1}")
        return _require.integer("label", label, 0, count - 1)
    if label is not None:
        raise InputError(f"label is {label}, but the network has no classes: leave it out")
    return None


class UnitRange(nn.Module):
    """A function of pixels in [0, 1] and a noise level of them, for pixels in [-1, 1] and the noise
    level of those: `gain F((x + 1) / 2, sigma / 2) + offset`.

    A denoiser has gain 2 and offset -1, a score gain 1/2 and offset 0.

    Parameters
    ----------
    network : callable
        `network(x, sigma)`, x (B, *shape), sigma (B,).
    gain, offset : float
    """

    def __init__(self, network: Any, gain: float, offset: float) -> None:
        super().__init__()
        self.network, self.gain, self.offset = network, gain, offset
        self.training = isinstance(network, nn.Module) and network.training

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the output for pixels in [-1, 1], shape of x."""
        raw = self.network((x + 1) / 2, sigma / 2)
        return self.gain * (raw if isinstance(raw, Tensor) else raw.sample) + self.offset

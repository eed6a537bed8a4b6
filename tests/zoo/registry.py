"""The zoo's register: a named builder for each network, and the few wrappers that they share.

A builder returns a network `(x, t) -> raw output`; `Entry.denoiser()` seeds it, fills weights that
a package initialises to zero (such a network has J = c_x I, which any product finds), and makes it
float64 and ready for evaluation.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jacobian_lab import Denoiser, DiscreteSchedule, RectifiedFlow

ZOO: dict[str, Entry] = {}


@dataclass(frozen=True)
class Entry:
    """One network of the zoo."""

    name: str
    family: str
    build: Callable[[], Callable[[Tensor, Tensor], Tensor]]
    shape: tuple[int, int, int]
    prediction: str
    needs: str
    """The package without which it cannot be built."""
    outcome: str
    """"right": right or refused; "told": a number may only come with a word (a warning), or not at
    all; "audited": its state is such that few calls cannot tell, and `audit`, which calls it more
    often, has to.
    """
    twin: Callable[[], Callable[[Tensor, Tensor], Tensor]] | None
    """The same network in float64 throughout: the truth of one that computes more coarsely than
    x.
    """
    isolated: bool
    """Whether it may kill the process, or takes gigabytes, and runs in one of its own."""
    compiled: bool
    """Whether Dynamo runs inside."""

    @property
    def t(self) -> int | float:
        return 0.5 if self.prediction == "flow" else 500

    @property
    def missing(self) -> bool:
        return importlib.util.find_spec(self.needs) is None

    def denoiser(self, twin: bool = False) -> Denoiser:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what packages say of themselves
            torch.manual_seed(0)
            network = (self.twin if twin and self.twin else self.build)()
        if isinstance(network, nn.Module):
            settle(network)
        schedule = (
            RectifiedFlow() if self.prediction == "flow" else DiscreteSchedule.scaled_linear()
        )
        return Denoiser(network, schedule, self.prediction, self.shape)


def entry(
    family,
    shape=(4, 8, 8),
    prediction="epsilon",
    needs="torch",
    outcome="right",
    twin=None,
    isolated=False,
    compiled=False,
):
    """Enter the function below under its name."""

    def register(build):
        assert build.__name__ not in ZOO, build.__name__
        ZOO[build.__name__] = Entry(
            build.__name__,
            family,
            build,
            shape,
            prediction,
            needs,
            outcome,
            twin,
            isolated,
            compiled,
        )
        return build

    return register


def settle(network: nn.Module) -> nn.Module:
    """Make a network float64, ready for evaluation, and its zero weights random; what is kept
    coarse on purpose stays so.
    """
    network.eval()
    coarse = {
        id(tensor)
        for module in network.modules()
        if getattr(module, "coarse", False)
        for tensor in (*module.parameters(), *module.buffers())
    }
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if (
                tensor.is_floating_point()
                and id(tensor) not in coarse
                and tensor.layout == torch.strided
            ):
                tensor.data = tensor.data.double()
        for parameter in network.parameters():
            if parameter.layout == torch.strided and parameter.numel() and not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, dtype=torch.float64))
    return network


class Wrapped(nn.Module):
    """`call(net, x, t)` as a network; `net` is a module, whose weights it has."""

    def __init__(self, net, call):
        super().__init__()
        self.net, self.call = net, call

    def forward(self, x, t):
        return self.call(self.net, x, t)


def fixed(x, *shape):
    """Return a conditioning that never changes, (B, *shape), in the dtype of x."""
    one = torch.randn(
        1, *shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64
    )
    return one.to(x).expand(len(x), *shape)


def tokens(x, patch=1):
    """Cut images into patches: (B, C, H, W) -> (B, H W / p^2, C p^2)."""
    return torch.nn.functional.pixel_unshuffle(x, patch).flatten(2).mT


def image(h, like, patch=1):
    """Put patches together to an image of the shape of `like`: the inverse of `tokens`."""
    b, c, height, width = like.shape
    return torch.nn.functional.pixel_shuffle(
        h.mT.reshape(b, c * patch**2, height // patch, width // patch), patch
    )


def video(x, frames):
    """Unfold a video that lies in the channels: (B, c F, H, W) -> (B, c, F, H, W)."""
    return x.unflatten(1, (-1, frames))

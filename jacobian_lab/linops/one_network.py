"""That both ends of a difference, and all steps of a sampler, are of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from jacobian_lab.derivative.fingerprint import Weights
from jacobian_lab.derivative.guards import GAIN
from jacobian_lab.derivative.settings import Float32


class OneNetwork:
    """What is kept of a network to tell whether it is the same later.

    Weights and the precision of float32 are compared before each product. What else the network
    keeps, such as a guidance scale, shows in the difference itself, see `check_base`: on a CPU at
    once, elsewhere where `settle` is called, since it waits for the device.

    Parameters
    ----------
    kind : str
        Of the device.
    """

    def __init__(self, kind: str) -> None:
        self._float32, self._gain = Float32(kind), GAIN
        self._weights: Weights | None = None
        self._unsettled: Callable[[float], float] | None = None

    def watch(self, modules: Iterable[nn.Module]) -> None:
        """Keep what tells the weights of these modules from others."""
        self._weights = Weights({id(module): module for module in modules}.values())

    def check(self, eps: float) -> None:
        """Raise if the weights changed, or the precision of float32 where `eps` is coarse."""
        if self._weights is not None:
            self._weights.check()
        if eps > torch.finfo(torch.float64).eps:
            self._float32.check()

    def note(self, check: Callable[[float], float], kind: str) -> int:
        """Take note of a forward difference; return the passes that were spent.

        Parameters
        ----------
        check : callable
            `check_base` of it, but for the gain.
        kind : str
            Of the device that it is computed on.
        """
        self._unsettled = check
        return self.settle() if kind == "cpu" else 0

    def settle(self) -> int:
        """Raise if the last forward difference was not of one network; return the passes spent."""
        if self._unsettled is None:
            return 0
        check, known, self._unsettled = self._unsettled, self._gain, None
        self._gain = check(known)
        return int(self._gain != known)

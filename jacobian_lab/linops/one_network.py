"""That both ends of a difference, and all steps of a sampler, are of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from jacobian_lab.derivative.fingerprint import Weights
from jacobian_lab.derivative.guards import GAIN, check_base, check_run
from jacobian_lab.derivative.settings import Float32


class OneNetwork:
    """What is kept of a network to tell whether it is the same later.

    Weights and the precision of float32 are compared before each product. What else the network
    keeps, such as a guidance scale, shows in what the network is run for, see `check_base` and
    `check_run`: on a CPU at once, elsewhere where `settle` is called, since it waits for the
    device.

    Parameters
    ----------
    kind : str
        Of the device.
    """

    def __init__(self, kind: str) -> None:
        self._float32 = Float32(kind)
        self._weights: Weights | None = None
        self._known: dict[Callable[..., float], float] = {check_base: GAIN, check_run: 0.0}
        self._unsettled: dict[Callable[..., float], partial[float]] = {}

    def watch(self, modules: Iterable[nn.Module]) -> None:
        """Keep what tells the weights of these modules from others."""
        self._weights = Weights({id(module): module for module in modules}.values())

    def check(self, eps: float) -> None:
        """Raise if the weights changed, or the precision of float32 where `eps` is coarse."""
        if self._weights is not None:
            self._weights.check()
        if eps > torch.finfo(torch.float64).eps:
            self._float32.check()

    def note(self, check: partial[float], kind: str) -> int:
        """Take note of a run of the network; return the passes that were spent.

        Parameters
        ----------
        check : partial
            `check_base` or `check_run` of it, but for what is known.
        kind : str
            Of the device that it is computed on.
        """
        self._unsettled[check.func] = check
        return self.settle() if kind == "cpu" else 0

    def settle(self) -> int:
        """Raise if the last runs were not of one network; return the passes spent."""
        unsettled, self._unsettled, spent = self._unsettled, {}, 0
        for of, check in unsettled.items():
            known = self._known[of]
            self._known[of] = check(known)
            spent += self._known[of] != known
        return spent

"""What a contestant is: a way to run it, its authors' settings, the search around them, its
price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from torch import Tensor


@dataclass
class Passes:
    """Passes of the network, in units of the whole batch: forward, backward (vjp), and forward in
    forward mode (jvp).
    """

    forward: float = 0.0
    vjp: float = 0.0
    jvp: float = 0.0


@dataclass(frozen=True)
class Peer:
    """A method of the contest.

    Attributes
    ----------
    name, library
    run : callable
        `run(denoiser, problem, seeds, steps, **parameters) -> images`; see `peers_simple`.
    defaults : mapping
        The authors' own parameters.
    search : mapping
        Values worth trying; the defaults are among them.
    passes : Passes
        What a step costs with the defaults.
    steps : int
        Number of steps that the authors take.
    cite : str
    """

    name: str
    library: str
    run: Callable[..., Tensor]
    defaults: Mapping[str, float]
    search: Mapping[str, tuple[float, ...]]
    passes: Passes
    steps: int
    cite: str

    @property
    def has_authors(self) -> bool:
        """Whether somebody else published the method, with settings."""
        return self.cite != "this project"

    def combinations(self) -> Iterator[dict[str, float]]:
        """Yield the parameters of the search."""
        for values in product(*self.search.values()):
            yield {**self.defaults, **dict(zip(self.search, values, strict=True))}

r"""The other methods for linear inverse problems, each by its own library and with its authors'
settings; and what they cost.

>>> [peer.name for peer in PEERS if peer.library == "ours"]
['DDIM', 'MPGD', 'DDNM']

A contest is fair if every run is measured (`CountedDenoiser`), every method gets the same small
search (`Peer.search`, around its `defaults`) and the same noise. The methods are in `peers_simple`,
`peers_azula` and `peers_deepinv`, one file per library; each says what it leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from torch import Tensor, nn
from torch.autograd import forward_ad

from jacobian_lab.diffusion.denoiser import Denoiser, Network
from jacobian_lab.errors import InputError
from studies.contest import (
    peers_azula,
    peers_deepinv,
    peers_simple,
)


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

    def combinations(self) -> Iterator[dict[str, float]]:
        """Yield the parameters of the search."""
        for values in product(*self.search.values()):
            yield {**self.defaults, **dict(zip(self.search, values, strict=True))}


PEERS = (
    Peer(
        "DDIM", "ours", peers_simple.unconstrained, {}, {}, Passes(1), 50, "Song, Meng, Ermon 2021"
    ),
    Peer(
        "MPGD",
        "ours",
        peers_simple.mpgd,
        {"scale": 7.5, "eta": 0.5},
        {"scale": (0.5, 2.0, 7.5, 20.0), "eta": (0.5, 1.0)},
        Passes(1),
        100,
        "He et al. 2024",
    ),
    Peer(
        "DDNM",
        "ours",
        peers_simple.ddnm,
        {"eta": 0.85},
        {"eta": (0.0, 0.5, 0.85, 1.0)},
        Passes(1),
        100,
        "Wang, Yu, Zhang 2023",
    ),
    Peer(
        "DPS",
        "azula 0.11",
        peers_azula.dps,
        {"zeta": 1.0},
        {"zeta": (0.3, 1.0, 3.0, 10.0)},
        Passes(1, 1),
        1000,
        "Chung et al. 2023",
    ),
    Peer(
        "MMPS",
        "azula 0.11",
        peers_azula.mmps,
        {"iterations": 1, "eta": 0.0},
        {"iterations": (1, 3), "eta": (0.0, 1.0)},
        Passes(1, 2),
        64,
        "Rozet et al. 2024",
    ),
    Peer(
        "TMPD",
        "azula 0.11",
        peers_azula.tmpd,
        {"eta": 0.0},
        {"eta": (0.0, 1.0)},
        Passes(1, 2),
        1000,
        "Boys et al. 2024",
    ),
    Peer(
        "RePaint",
        "azula 0.11",
        peers_azula.repaint,
        {"iterations": 3, "eta": 0.0},
        {"iterations": (3, 10), "eta": (0.0, 1.0)},
        Passes(3),
        250,
        "Lugmayr et al. 2022",
    ),
    Peer(
        "DPS, annealed",
        "deepinv 0.5",
        peers_deepinv.dps_annealed,
        {"weight": 1.0},
        {"weight": (0.3, 1.0, 3.0, 10.0)},
        Passes(1, 1),
        1000,
        "Chung et al. 2023",
    ),
    Peer(
        "PiGDM",
        "deepinv 0.5",
        peers_deepinv.pigdm,
        {"weight": 1.0, "iterations": 3},
        {"weight": (0.3, 1.0, 3.0), "iterations": (3, 10)},
        Passes(1, 1),
        100,
        "Song et al. 2023",
    ),
    Peer(
        "DiffPIR",
        "deepinv 0.5",
        peers_deepinv.diffpir,
        {"lambda_": 7.0, "zeta": 0.1},
        {"lambda_": (1.0, 7.0, 25.0), "zeta": (0.1, 0.5, 1.0)},
        Passes(1),
        100,
        "Zhu et al. 2023",
    ),
    Peer(
        "DDRM",
        "deepinv 0.5",
        peers_deepinv.ddrm,
        {"eta": 0.85, "etab": 1.0},
        {"eta": (0.5, 0.85, 1.0), "etab": (0.5, 1.0)},
        Passes(1),
        20,
        "Kawar et al. 2022",
    ),
)


class CountedDenoiser(Denoiser):
    """A denoiser that counts the passes of its network in `passes`, whoever calls it, through
    whichever wrapper.

    A pass of part of the batch counts as that part. A backward pass through a graph that was kept
    counts each time; a pass in forward mode counts as one forward and one jvp. Products that are
    recorded once and applied without the network (`JacobianOperator`'s "exact") are out of its
    sight.

    Parameters
    ----------
    denoiser : Denoiser
    batch : int
        Samples of the whole batch.
    """

    def __init__(self, denoiser: Denoiser, batch: int) -> None:
        if batch < 1:
            raise InputError(f"the batch has at least one sample: got {batch}")
        passes = Passes()
        super().__init__(
            _CountedNetwork(denoiser.network, passes, batch),
            denoiser.schedule,
            denoiser.prediction,
            denoiser.shape,
        )
        self.passes = passes


class _CountedNetwork(nn.Module):
    def __init__(self, network: Network, passes: Passes, batch: int) -> None:
        super().__init__()
        self.network, self.passes, self.batch = network, passes, batch
        self.training = isinstance(network, nn.Module) and network.training

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output."""
        raw = self.network(x, t)
        share = len(x) / self.batch
        self.passes.forward += share
        if forward_ad.unpack_dual(raw).tangent is not None:  # type: ignore[no-untyped-call]
            self.passes.jvp += share
        if raw.requires_grad:
            raw.register_hook(lambda _: self._backward(share))  # type: ignore[no-untyped-call]
        return raw

    def _backward(self, share: float) -> None:
        self.passes.vjp += share

r"""The other methods for linear inverse problems, each by its own library and with its authors'
settings; and what they cost.

>>> sorted({peer.library for peer in PEERS})
['azula 0.11', 'deepinv 0.5', 'ours']

A contest is fair if every run is measured (`CountedDenoiser`), every method gets a search around
its authors' settings (`Peer.search`) and the same noise. Those of libraries are in `peers_azula`
and `peers_deepinv`, which say what they leave out; those that we wrote after their papers in
`peers_simple` and in `methods`, one file each, with their settings.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.autograd import forward_ad

from jacobian_lab.derivative.randomness import AGAIN
from jacobian_lab.diffusion.denoiser import Denoiser, Network
from jacobian_lab.errors import InputError
from studies.contest import (
    peers_azula,
    peers_deepinv,
    peers_simple,
)
from studies.contest.methods.clamp import CLAMP
from studies.contest.methods.daps import DAPS, LATENT_DAPS
from studies.contest.methods.ding import DING
from studies.contest.methods.fast_dips import FAST_DIPS
from studies.contest.methods.flow_chef import FLOW_CHEF
from studies.contest.methods.flow_dps import FLOW_DPS
from studies.contest.methods.peer import Passes, Peer
from studies.contest.methods.pnp_dm import PNP_DM
from studies.contest.methods.pnp_flow import PNP_FLOW
from studies.contest.methods.psld import PSLD
from studies.contest.methods.red_diff import RED_DIFF
from studies.contest.methods.resample import RESAMPLE
from studies.contest.methods.sitcom import SITCOM

__all__ = ["LATENT_PEERS", "PEERS", "CountedDenoiser", "Passes", "Peer"]

PEERS = (
    Peer(
        "DDIM", "ours", peers_simple.unconstrained, {}, {}, Passes(1), 50, "Song, Meng, Ermon 2021"
    ),
    Peer(
        "MPGD",
        "ours",
        peers_simple.mpgd,
        {"scale": 7.5, "eta": 0.5},
        {"scale": (0.5, 2.0, 7.5, 20.0, 50.0), "eta": (0.0, 0.5, 1.0)},
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
        {"zeta": (0.3, 1.0, 3.0, 10.0, 20.0, 40.0, 80.0)},
        Passes(1, 1),
        1000,
        "Chung et al. 2023",
    ),
    Peer(
        "MMPS",
        "azula 0.11",
        peers_azula.mmps,
        {"iterations": 1, "eta": 0.0},
        {"iterations": (1, 3, 5, 10), "eta": (0.0, 1.0)},
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
        {"weight": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0), "iterations": (1, 3, 10)},
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
    Peer(
        "ALD",
        "deepinv 0.5",
        peers_deepinv.ald,
        {"weight": 1.0},
        {"weight": (0.1, 0.3, 1.0, 3.0, 10.0)},
        Passes(1),
        1000,
        "Jalal et al. 2021",
    ),
    Peer(
        "JFPS",
        "azula 0.11",
        peers_azula.jfps,
        {"variance": 1.0, "iterations": 1, "eta": 0.0},
        {"variance": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), "iterations": (1, 5), "eta": (0.0, 1.0)},
        Passes(1),
        64,
        "Rozet, azula",
    ),
    Peer(
        "TDS",
        "azula 0.11",
        peers_azula.tds,
        {"particles": 8, "variance": 1.0},
        {"particles": (1, 2, 4, 8), "variance": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)},
        Passes(8, 8),
        64,
        "Wu et al. 2023",
    ),
    CLAMP,
    DAPS,
    DING,
    FAST_DIPS,
    FLOW_CHEF,
    FLOW_DPS,
    PNP_DM,
    PNP_FLOW,
    RED_DIFF,
    SITCOM,
)
LATENT_PEERS = (LATENT_DAPS, PSLD, RESAMPLE)
"""Methods on latents: their denoiser is of latents and their problem a `Decoded` one, of which
`constraint` tells what the decoded images shall be; they return latents.
"""


class CountedDenoiser(Denoiser):
    """A denoiser that counts the passes of its network in `passes`, whoever calls it, through
    whichever wrapper.

    A pass of part of the batch counts as that part. A backward pass through a graph that was kept
    counts each time; a pass in forward mode counts as one forward and one jvp. Products that are
    recorded once and applied without the network (`JacobianOperator`'s "exact") are out of its
    sight. Not counted are the runs by which a check tells its own draws from another thread's:
    whether they are needed is chance.

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
        if AGAIN.get():
            return raw
        share = len(x) / self.batch
        self.passes.forward += share
        if forward_ad.unpack_dual(raw).tangent is not None:  # type: ignore[no-untyped-call]
            self.passes.jvp += share
        if raw.requires_grad:
            raw.register_hook(lambda _: self._backward(share))  # type: ignore[no-untyped-call]
        return raw

    def _backward(self, share: float) -> None:
        self.passes.vjp += share

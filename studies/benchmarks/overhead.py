"""What of sampling's time is not the network: constrained sampling beside DDIM, pass for pass.

    jacobian-lab benchmark sampler

The ways take turns, and each is compared with the DDIM of its turn. Inside a way, the time within
the network is taken as well: what is over it is ours, the constraint's and the noise's. On a CPU
both are processor time, which other work on the machine hardly touches. Elsewhere the host waits
for the device before and after each pass, which hides nothing behind the network: what is found
over it is then the most that it can be. The check before sampling runs the network on one sample:
this is time within the network, and a small share of a pass.

A figure is the median over the rounds, with their least and most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

import mnist
from jacobian_lab import Denoiser, _require
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.diffusion.denoiser import Network
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from mnist.data import digits
from studies.contest.ours import inexact
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays, Config, Pieces, Study
from studies.sampling.inpaint import Inpaint

Run: TypeAlias = Callable[[], object]
DDIM = "DDIM"


@dataclass(frozen=True)
class SamplerBenchmark(Config):
    """Time constrained sampling beside DDIM, pass for pass. Example: jacobian-lab benchmark sampler
    --batches 4 --rounds 2.
    """

    batches: tuple[int, ...] = (1, 50)
    """Digits that are sampled together."""
    times: int = 4
    """Sampling times, of 5 Newton steps each: 11 passes; the others take about as many."""
    rounds: int = 3
    """Repetitions, after one that warms up."""
    model: str = "mnist"
    """mnist, mnist-flow, or the path of a denoiser that you trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for batch in self.batches or (0,):
            _require.integer("--batches", batch, 1, 5000)
        for name in ("times", "rounds"):
            _require.integer(f"--{name}", getattr(self, name), 1)


class TimedNetwork(nn.Module):
    """A network, how long it took, and of how many samples."""

    def __init__(self, network: Network, now: Callable[[], float]) -> None:
        super().__init__()
        self.inner, self.now = network, now
        self.reset()

    def reset(self) -> None:
        """Start to count."""
        self.seconds, self.samples = 0.0, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the network's output."""
        started = self.now()
        found = self.inner(x, t)
        self.seconds += self.now() - started
        self.samples += len(x)
        return found


def clock_of(device: str) -> Callable[[], float]:
    """Return what tells the time, in seconds: the processor's on a CPU, else the wall's once the
    device is done.
    """
    if device == "cpu":
        return time.process_time

    def now() -> float:
        torch.accelerator.synchronize(torch.device(device))
        return time.perf_counter()

    return now


def ways(denoiser: Denoiser, images: Tensor, times: int, seed: int) -> dict[str, Run]:
    """Return the ways of sampling as many images as are given, of which the left half is known."""
    config, seeds = Inpaint(), [seed_of(seed, i) for i in range(len(images))]
    noise = seeded_noise(seeds, denoiser.shape, images.device)
    goal, passes = Inpainting(images, half(denoiser.shape)), times * 11

    def drawn(times: int, newton: Newton | None, **options: object) -> Run:
        wanted, at = None if newton is None else goal, denoiser.schedule.times(times)
        return lambda: list(sample(denoiser, noise, at, wanted, newton, **options))  # type: ignore[arg-type]

    return {
        DDIM: drawn(passes, None),
        "inexact, forward difference": drawn(times, Newton()),
        "inpaint, defaults": drawn(
            times, config.newton(), eta=config.eta, temperature=config.noise_factor(), seeds=seeds
        ),
        "contest, inexact Newton": lambda: inexact(denoiser, goal, seeds, passes // 2),
    }


def compute(config: SamplerBenchmark, _pieces: Pieces) -> Arrays:
    """Return "passes", "seconds" and "inside", seconds within the network, (batches, ways,
    rounds).
    """
    plain, now = mnist.load_denoiser(config.model, config.device), clock_of(config.device)
    network = TimedNetwork(plain.network, now).eval()
    denoiser = Denoiser(network, plain.schedule, plain.prediction, plain.shape)
    images = digits("held-out")[0].to(config.device)
    names = list(ways(denoiser, images[:1], 1, config.seed))
    found = np.zeros((config.rounds + 1, len(config.batches), len(names), 3))
    for b, batch in enumerate(config.batches):
        runs = ways(denoiser, images[:batch], config.times, config.seed)
        for turn, name in tqdm(
            list(product(range(config.rounds + 1), names)), desc=f"{batch} digits", unit="run"
        ):
            network.reset()
            started = now()
            runs[name]()
            taken = now() - started
            found[turn, b, names.index(name)] = network.samples / batch, taken, network.seconds
    passes, seconds, inside = found[1:].transpose(3, 1, 2, 0)  # the first turn warms up
    measured = {"passes": passes, "seconds": seconds, "inside": inside}
    return measured | {"batch": np.array(config.batches), "way": np.array(names)}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each batch and way: medians over the rounds, and their range."""
    rows: list[Row] = []
    names = arrays["way"].tolist()
    each = arrays["seconds"] / arrays["passes"]
    over = arrays["seconds"] / arrays["inside"] - 1
    for b, batch in enumerate(arrays["batch"].tolist()):
        for w, way in enumerate(names):
            rows.append(
                {
                    "digits": batch,
                    "way": way,
                    "passes": float(arrays["passes"][b, w, 0]),
                    "milliseconds_per_pass": 1e3 * median(each[b, w].tolist()),
                    **_range("of_DDIMs", each[b, w] / each[b, names.index(DDIM)]),
                    **_range("percent_over_the_network", 100 * over[b, w]),
                }
            )
    return rows


def _range(name: str, values: NDArray[np.float64]) -> Row:
    return {
        name: median(values.tolist()),
        f"{name}_low": float(values.min()),
        f"{name}_high": float(values.max()),
    }


VARIABLES = {
    "batch": Variable("batch", "digits sampled together"),
    "way": Variable("way", "sampler"),
    "passes": Variable("batch way round", "forward passes of a digit"),
    "seconds": Variable("batch way round", "time of a run", "s"),
    "inside": Variable("batch way round", "time within the network", "s"),
}
STUDY = Study(
    "benchmark-sampler",
    SamplerBenchmark,
    compute,
    table,
    None,
    models=lambda config: {config.model: "denoiser"},
    measures_anew=True,
    variables=VARIABLES,
)

"""Peak memory of sampling: without a constraint, with inexact Newton steps, and with gradient
descent.

    jacobian-lab benchmark memory

Every figure comes from a process of its own, Linux's peak of its resident memory (VmHWM). The
process loads the denoiser and samples two images to have all code at hand, resets the peak, and
samples the batch at two times with two Newton steps at each: what is held from one step or time to
the next is counted. MB are 10^6 bytes. glibc keeps freed memory as it sees fit, which blurs the
peak: everything is measured with an allocator that hands back each block of 64 kB at once, so that
the figures are of what is alive, and then with glibc as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

import mnist
from jacobian_lab import Denoiser, InputError
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from mnist.weights import read_card
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.processes import STRICT, in_a_process, peak_of
from studies.frame.study import Arrays, Options, Pieces, Study

WAYS: dict[str, Newton | None] = {
    "unconstrained": None,
    "inexact": Newton("inexact", steps=2),
    "gradient": Newton("gradient", steps=2),
}

ALLOCATORS: dict[str, dict[str, str]] = {"hands back at once": STRICT, "glibc as it is": {}}


@dataclass(frozen=True)
class MemoryBenchmark(Options):
    """Measure the peak memory of sampling, on Linux. Example: jacobian-lab benchmark memory
    --batches 16 --limit 0.5.
    """

    batches: tuple[int, ...] = (16, 64, 256)
    """Images that are sampled together."""
    limit: float = 2.0
    """GB, 10^9 bytes, of the whole process, for which the largest batch is sought."""
    model: str = "mnist"
    """mnist, mnist-flow, or the path of a denoiser that you trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.batches or min(self.batches) < 1 or not self.limit > 0:
            raise InputError(
                f"--batches must be at least 1 and --limit positive: got {self.batches} and"
                f" {self.limit}"
            )
        if not Path("/proc/self/clear_refs").exists():
            raise InputError(
                "peak memory is read from /proc, which this system does not have: run it on Linux"
            )


def compare_peaks(config: MemoryBenchmark, _pieces: Pieces) -> Arrays:
    """Return "resident", MB before and at the peak, (allocators, batches, ways, 2), and "most", the
    largest batch within the limit, (allocators, ways).
    """
    # a model that is not there is refused here and not by a process of its own
    read_card(config.model, "denoiser")
    resident, most = [], []
    for environment in ALLOCATORS.values():
        pairs = [(batch, way) for batch in config.batches for way in WAYS]
        found = {
            pair: peak_memory(*pair, config.model, environment)
            for pair in tqdm(pairs, desc="memory", unit="process")
        }
        resident.append([[found[batch, way] for way in WAYS] for batch in config.batches])
        start = max(config.batches)
        most.append([largest(way, config, environment, *found[start, way]) for way in WAYS])
    return {
        "resident": np.array(resident),
        "most": np.array(most),
        "batch": np.array(config.batches),
        "allocator": np.array(list(ALLOCATORS)),
        "way": np.array(list(WAYS)),
        "limit": np.array(config.limit),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each allocator, batch and way in MB, with ratios to the unconstrained; then
    the largest batch of each way within the limit of the whole process, to 2 %.
    """
    rows: list[Row] = []
    for a, allocator in enumerate(ALLOCATORS):
        for b, batch in enumerate(arrays["batch"].tolist()):
            free_before, free_peak = arrays["resident"][a, b, 0].tolist()
            for w, way in enumerate(WAYS):
                before, peak = arrays["resident"][a, b, w].tolist()
                rows.append(
                    {
                        "allocator": allocator,
                        "batch": batch,
                        "method": way,
                        "before_MB": before,
                        "peak_MB": peak,
                        "above_MB": peak - before,
                        "peak_ratio": peak / free_peak,
                        "above_ratio": (peak - before) / (free_peak - free_before),
                        "limit_GB": "",
                    }
                )
        blank: Row = {**dict.fromkeys(rows[0], ""), "allocator": allocator}
        for way, most in zip(WAYS, arrays["most"][a].tolist(), strict=True):
            rows.append(blank | {"batch": most, "method": way, "limit_GB": float(arrays["limit"])})
    return rows


def largest(
    way: str, config: MemoryBenchmark, environment: dict[str, str], before: float, peak: float
) -> int:
    """Return a batch measured within the limit, and above 98 % of it; 0 if none is found.

    Memory is nearly linear in the batch, so that each measurement predicts the next, from the
    largest of the table on.
    """
    batch, limit, found = max(config.batches), 1e3 * config.limit, 0
    for _ in range(5):
        batch = int((0.995 * limit - before) / (peak - before) * batch)
        if batch < 1:
            break
        before, peak = peak_memory(batch, way, config.model, environment)
        if peak <= limit:
            found = max(found, batch)
            if peak > 0.98 * limit:
                break
    return found


def peak_memory(
    batch: int, way: str, model: str, environment: dict[str, str]
) -> tuple[float, float]:
    """Return MB resident before the batch is sampled, and at the peak, of a process that does only
    this.
    """
    before, peak = in_a_process(sample_one_way, batch, way, model, environment=environment)
    return before, peak


def sample_one_way(batch: int, way: str, model: str) -> tuple[float, float]:
    """Sample the batch in this process; return what `peak_memory` returns."""
    denoiser = mnist.load_denoiser(model)
    return peak_of(lambda size: _sample(denoiser, size, WAYS[way]), batch)


def _sample(denoiser: Denoiser, batch: int, newton: Newton | None) -> None:
    noise = seeded_noise(range(batch), denoiser.shape)
    constraint = None if newton is None else Inpainting(noise.clamp(-1, 1), half(denoiser.shape))
    for _ in sample(denoiser, noise, denoiser.schedule.times(2), constraint, newton):
        pass


VARIABLES = {
    "allocator": Variable("allocator", "what gives memory to the process"),
    "batch": Variable("batch", "samples drawn together"),
    "way": Variable("way", "how they are drawn"),
    "resident": Variable("allocator batch way moment", "memory before, and at the peak", "MB"),
    "most": Variable("allocator way", "largest batch within the limit"),
    "limit": Variable("", "limit of the whole process", "MB"),
}
MEMORY = Study(
    "benchmark-memory",
    MemoryBenchmark,
    compare_peaks,
    table,
    None,
    models=lambda config: {config.model: "denoiser"},
    measures_anew=True,
    variables=VARIABLES,
)

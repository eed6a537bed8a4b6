"""What the dense Jacobian costs, in time and memory, beside what one would otherwise write.

jacobian-lab benchmark dense
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import mnist
from jacobian_lab import InputError, JacobianOperator
from mnist.evaluate import noisy_digit
from studies.benchmarks.products import Way, on_math_kernel, time_in_turns
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.processes import in_a_process, status
from studies.frame.study import Arrays, Options, Pieces, Study


@dataclass(frozen=True)
class DenseBenchmark(Options):
    """Time the dense Jacobian beside PyTorch's, and its memory. Example: jacobian-lab benchmark
    dense --rounds 1.
    """

    time: int = 500
    """Noise level, 0 (clean) to 999 (noise)."""
    rounds: int = 5
    """Repetitions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise InputError(f"--rounds must be at least 1: got {self.rounds}")


FORWARD = "1024 forward passes, 64 at a time"


def dense_ways(t: int) -> dict[str, Way]:
    """Return the ways to the dense Jacobian of the shipped denoiser, n = 1024."""
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][0], t, 0)

    def function(x: Tensor) -> Tensor:
        return denoiser(x, t)

    def forward() -> None:
        with torch.no_grad():
            for _ in range(x_t.numel() // 64):
                function(x_t.expand(64, -1, -1, -1).contiguous())

    def vectorised() -> None:
        torch.autograd.functional.jacobian(function, x_t, vectorize=True)  # type: ignore[no-untyped-call]

    return {
        FORWARD: forward,
        "J.dense(), set-up included": lambda: JacobianOperator(denoiser, x_t, t).dense(),
        "torch.autograd.functional.jacobian(vectorize=True)": vectorised,
        "the same on the math kernel of attention": on_math_kernel(vectorised),
        "torch.func.jacrev(chunk_size=64)": on_math_kernel(
            lambda: torch.func.jacrev(function, chunk_size=64)(x_t)
        ),
        "torch.func.jacfwd": on_math_kernel(lambda: torch.func.jacfwd(function)(x_t)),
    }


def compute(config: DenseBenchmark, _pieces: Pieces) -> Arrays:
    """Return way, seconds and peak memory, one entry for each row of the table."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    seconds = time_in_turns(dense_ways(config.time), config.rounds)
    peaks = [in_a_process(peak_of_dense, name, config.time)[0] for name in seconds]
    return {
        "way": np.array(list(seconds)),
        "seconds": np.array(list(seconds.values())),
        "peak": np.array(peaks),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each way; the memory is that of a process that does only this."""
    ways, seconds = arrays["way"].tolist(), arrays["seconds"].tolist()
    return [
        {
            "way": way,
            "seconds": taken,
            "forward_passes_of_1024": taken / seconds[ways.index(FORWARD)],
            "peak_MB_of_its_process": float(peak),
        }
        for way, taken, peak in zip(ways, seconds, arrays["peak"], strict=True)
    ]


def peak_of_dense(name: str, t: int) -> tuple[int]:
    """Take one of the dense ways; return the process's peak memory in MB, Python and PyTorch
    included; on Linux.
    """
    dense_ways(t)[name]()
    return (int(status("VmHWM")) // 1024,)


VARIABLES = {
    "way": Variable("way", "what is timed"),
    "seconds": Variable("way", "median time", "s"),
    "peak": Variable("way", "peak memory of a process that does only this", "MB"),
}
DENSE = Study(
    "benchmark-dense",
    DenseBenchmark,
    compute,
    table,
    None,
    models=lambda _: {"mnist": "denoiser"},
    measures_anew=True,
    variables=VARIABLES,
)

"""Everything that a GPU has to show, in one command of a few minutes.

Is J right there in each precision, and what do products, spectra and sampling cost?

    jacobian-lab benchmark cuda
    jacobian-lab benchmark cuda --device cpu     # the same on the CPU

Without a GPU only what needs none is counted, which is said. Times are medians of rounds that take
turns; the host waits for the device at the end of each.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor
from tqdm import tqdm

import mnist
from jacobian_lab import (
    Denoiser,
    Inpainting,
    InputError,
    JacobianOperator,
    Newton,
    eigenpairs,
    masks,
    sample,
    seeded_noise,
)
from mnist.evaluate import noisy_digit
from studies.benchmarks.device_checks import PRECISIONS, Reading, Truth, dry_counts
from studies.benchmarks.products import Way, bare, on_math_kernel, time_in_turns
from studies.frame.answer import Answer, Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays, Options, Pieces, Study

UNIT = "forward pass"
PAIRS, DIGITS = 10, 16


@dataclass(frozen=True)
class CudaBenchmark(Options):
    """Check J on a GPU in each precision, and time it. Example: jacobian-lab benchmark cuda
    --precisions float32 --rounds 5.
    """

    device: str = "cuda"
    """The GPU: cuda, cuda:1; or cpu, to see the same there."""
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    """Of the network, where J is checked."""
    time: int = 500
    """Noise level, 0 (clean) to 999 (noise)."""
    batches: tuple[int, ...] = (1, 64)
    """Vectors of one product."""
    rounds: int = 15
    """Repetitions for one vector; a third for more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.precisions) - set(PRECISIONS)
        if unknown:
            raise InputError(
                f"--precisions {' '.join(sorted(unknown))}: expected some of"
                f" {', '.join(map(repr, PRECISIONS))}"
            )
        if self.rounds < 1 or not self.batches or min(self.batches) < 1:
            raise InputError(
                f"--rounds and --batches must be at least 1: got {self.rounds} and {self.batches}"
            )


def has_device(device: str) -> bool:
    """Return whether there is the device; say if not."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0].split(". ")[0]
        told = f"no {device} here ({why}): only what needs none is counted"
        print(told, file=sys.stderr)
        return False
    return True


def compute(config: CudaBenchmark, _pieces: Pieces) -> Arrays:
    """Return part, quantity, value, limit and units, one entry for each row of the table."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.func.jvp's own
    warnings.filterwarnings("ignore", "Attempted to insert a get_attr Node")
    found = dry_counts(config.time)
    card = "none"
    if has_device(config.device):
        place = torch.device(config.device)
        card = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
        truth = Truth(config.time)
        for name in tqdm(config.precisions, desc="checks", unit="precision"):
            found += truth.checks(config.device, name)
        found += timings(config)
    columns = zip(*found, strict=True)
    return {key: np.array(column) for key, column in zip(Reading._fields, columns, strict=True)} | {
        "subject": np.array(f"device {config.device}: {card}")
    }


def timings(config: CudaBenchmark) -> list[Reading]:
    """Return what products, spectra and sampling cost in float32, in passes and milliseconds."""
    denoiser = mnist.load_denoiser(device=config.device)
    image = mnist.digits("held-out")[0][0].to(config.device)
    x_t = noisy_digit(denoiser, image, config.time, 0)
    parts = {
        f"products, {count} vector{'s' * (count > 1)}": (
            product_ways(denoiser, x_t, config.time, count),
            config.rounds if count < 16 else max(3, config.rounds // 3),
        )
        for count in config.batches
    }
    parts["dense and spectra"] = (spectral_ways(denoiser, x_t, config.time), 3)
    parts["sampling"] = (sampling_ways(denoiser), 3)
    found = []
    for part, (ways, rounds) in tqdm(parts.items(), desc="timings", unit="part"):
        waiting = {name: _waited(way, config.device) for name, way in ways.items()}
        seconds = time_in_turns(waiting, rounds)
        unit = seconds[UNIT]
        for name, taken in seconds.items():
            found.append(Reading(part, name, 1e3 * taken, np.inf, "ms", taken / unit))
    return found


def _waited(way: Way, device: str) -> Way:
    def run() -> None:
        way()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    return run


def product_ways(denoiser: Denoiser, x_t: Tensor, t: int, count: int) -> dict[str, Way]:
    """Return the ways to products with so many vectors, ours and PyTorch's."""
    many = x_t.expand(count, *denoiser.shape).contiguous()
    v = seeded_noise(range(count), denoiser.shape, x_t.device)
    products = JacobianOperator(denoiser, x_t, t).products
    function = bare(denoiser, x_t, t)
    leaf = many.clone().requires_grad_()
    kept = function(leaf)
    ways: dict[str, Way] = {
        UNIT: lambda: _forward(denoiser, many, t),
        "set-up, once for x_t": lambda: JacobianOperator(denoiser, x_t, t),
        "J v": lambda: products.jvp(v),
        "J^T u": lambda: products.vjp(v),
        "J v, torch.func.jvp": on_math_kernel(lambda: torch.func.jvp(function, (many,), (v,))),
        "J^T u, torch.autograd.grad, kept": lambda: torch.autograd.grad(
            kept, leaf, v, retain_graph=True
        ),
    }
    if x_t.device.type == "cuda":
        replay = _captured(lambda: products.jvp(v))
        if replay is not None:
            ways["J v, replayed as a CUDA graph"] = replay
    return ways


@torch.no_grad()
def _forward(denoiser: Denoiser, x: Tensor, t: int) -> None:
    denoiser(x, t)


def _captured(way: Way) -> Way | None:
    """Return a way as a CUDA graph, or None where it cannot be captured, which is said."""
    try:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            way()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            way()
    except RuntimeError as error:
        print(f"no CUDA graph of J v: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    return graph.replay


def spectral_ways(denoiser: Denoiser, x_t: Tensor, t: int) -> dict[str, Way]:
    """Return the ways to the dense J and to ten eigenpairs, ours and others'."""
    J, function = JacobianOperator(denoiser, x_t, t), bare(denoiser, x_t, t)

    def vectorised() -> None:
        torch.autograd.functional.jacobian(function, x_t, vectorize=True)  # type: ignore[no-untyped-call]

    return {
        UNIT: lambda: _forward(denoiser, x_t, t),
        "J.dense(), set-up included": lambda: JacobianOperator(denoiser, x_t, t).dense(),
        "torch.autograd.functional.jacobian(vectorize=True)": on_math_kernel(vectorised),
        f"{PAIRS} eigenpairs to 1e-4, certified": lambda: eigenpairs(J, PAIRS, rtol=1e-4),
        f"{PAIRS} eigenvalues to 1e-4, ARPACK on J": lambda: scipy.sparse.linalg.eigs(
            J, PAIRS, tol=1e-4
        ),
    }


def sampling_ways(denoiser: Denoiser) -> dict[str, Way]:
    """Return DDIM and constrained sampling of half-known digits, of about as many passes."""
    place = next(denoiser.parameters()).device
    images = mnist.digits("held-out")[0][:DIGITS].to(place)
    noise = seeded_noise(range(DIGITS), denoiser.shape, place)
    constraint = Inpainting(images, masks.half(denoiser.shape))

    def run(steps: int, newton: Newton | None) -> None:
        wanted = constraint if newton is not None else None
        for _ in sample(denoiser, noise, denoiser.schedule.times(steps), wanted, newton):
            pass

    return {
        UNIT: lambda: _forward(denoiser, noise, 500),
        f"DDIM, {DIGITS} digits, 44 passes": lambda: run(44, None),
        f"inexact Newton, {DIGITS} digits, 4 times of 5 steps": lambda: run(4, Newton(steps=5)),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each check and time."""
    return [
        {
            "device": str(arrays["subject"]),
            "part": str(part),
            "quantity": str(quantity),
            "value": float(value),
            "limit": float(limit) if np.isfinite(limit) else "",
            "units": str(units) if units != "1" else "",
            "passes": float(passes) if np.isfinite(passes) else "",
            "right": ("yes" if value <= limit else "NO") if np.isfinite(limit) else "",
        }
        for part, quantity, value, limit, units, passes in zip(
            *(arrays[key] for key in Reading._fields), strict=True
        )
    ]


def failures(arrays: Arrays) -> list[str]:
    """Return the checks that are not right."""
    return [
        f"{row['part']}, {row['quantity']}: {row['value']:.1e}, at most {row['limit']:.1e}"
        for row in table(arrays)
        if row["right"] == "NO"
    ]


VARIABLES = {
    "subject": Variable("", "the device and its name"),
    "part": Variable("entry", "dry, the precision of a check, or what is timed", coordinate=True),
    "quantity": Variable("entry", "what is checked or timed", coordinate=True),
    "value": Variable("entry", "error relative to float64, time, or count"),
    "limit": Variable("entry", "largest value that is right; infinite where nothing is asked"),
    "units": Variable("entry", "unit of the value", coordinate=True),
    "passes": Variable("entry", "a time, in forward passes of the same batch", "passes"),
}
CUDA = Study(
    "benchmark-cuda",
    CudaBenchmark,
    compute,
    table,
    None,
    models=lambda _: {"mnist": "denoiser"},
    measures_anew=True,
    variables=VARIABLES,
    answer=Answer(("part", "quantity", "value", "units", "passes", "limit", "right")),
    failures=failures,
)

"""The price of the products, in forward passes of the same batch, beside what one would otherwise write.

    python -m studies.benchmark [--time 500]

Every figure of a table comes from one run, with the ways taken in turn, and is a median. Nothing here is a test.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import mnist
from jacobian_lab import JacobianOperator
from jacobian_lab.products import Products
from mnist.evaluate import noisy_digit


@dataclass(frozen=True)
class Benchmark:
    """Measure products and the dense Jacobian. Example: python -m studies.benchmark --batches 1 --rounds 5."""

    time: int = 500
    """Noise level."""
    batches: tuple[int, ...] = (1, 64)
    """Vectors of one product."""
    rounds: int = 15
    """Repetitions."""
    dense: bool = True
    """Also the dense Jacobian (about a minute)."""


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each way; the ways take turns, so that a disturbance hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    return {name: median(taken) for name, taken in seconds.items()}


def products(config: Benchmark, batch: int) -> None:
    """Print the table of products for one batch."""
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][0], config.time, 0)
    v = torch.randn(batch, *denoiser.shape, generator=torch.Generator().manual_seed(0))
    many = x_t.expand(batch, -1, -1, -1).contiguous()
    ours, difference = Products(denoiser, x_t, config.time), Products(denoiser, x_t, config.time, "forward")

    def function(x: Tensor) -> Tensor:
        return denoiser(x, config.time)

    with sdpa_kernel(SDPBackend.MATH):
        leaf = many.clone().requires_grad_()
        kept = function(leaf)
        pull = torch.func.vjp(function, many)[1]

    def forward() -> None:
        with torch.no_grad():
            function(many)

    def math(way: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            with sdpa_kernel(SDPBackend.MATH):
                way()
        return run

    seconds = measure({
        "forward pass": forward,
        "set-up": lambda: Products(denoiser, x_t, config.time),
        "J v, exact": lambda: ours.jvp(v),
        "J^T u": lambda: ours.vjp(v),
        "J v, forward difference (two passes as written here)": lambda: difference.jvp(v),
        "J v, torch.func.jvp": math(lambda: torch.func.jvp(function, (many,), (v,))),
        "J v, torch.autograd.functional.jvp": math(lambda: torch.autograd.functional.jvp(function, many, v)),  # type: ignore[no-untyped-call]
        "J^T u, torch.func.vjp, kept": math(lambda: pull(v)),
        "J^T u, torch.autograd.grad, kept": lambda: torch.autograd.grad(kept, leaf, v, retain_graph=True),
    }, config.rounds if batch < 16 else max(3, config.rounds // 3))
    unit = seconds["forward pass"]
    print(f"\nbatch {batch}, path {ours.path}; one forward pass {1e3 * unit:.1f} ms")
    for name, taken in seconds.items():
        print(f"  {taken / unit:6.2f}  {name}")


def dense(config: Benchmark) -> None:
    """Print the price of the dense Jacobian."""
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][0], config.time, 0)
    n, batch = x_t.numel(), 64
    J = JacobianOperator(denoiser, x_t, config.time)
    many = x_t.expand(batch, -1, -1, -1).contiguous()

    def forward() -> None:
        with torch.no_grad():
            for _ in range(n // batch):
                denoiser(many, config.time)

    def vectorised() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
                lambda x: denoiser(x, config.time), x_t, vectorize=True)

    seconds = measure({"1024 forward passes in batches of 64": forward, "J.dense()": J.dense,
                       "torch.autograd.functional.jacobian(vectorize=True)": vectorised}, 3)
    unit = seconds["1024 forward passes in batches of 64"]
    print(f"\ndense J, {n} x {n}")
    for name, taken in seconds.items():
        print(f"  {taken:6.2f} s  {taken / unit:6.2f}  {name}")


def main(config: Benchmark) -> None:
    """Print the tables."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.func.jvp's own
    print(f"{torch.get_num_threads()} threads; in units of one forward pass of the same batch")
    for batch in config.batches:
        products(config, batch)
    if config.dense:
        dense(config)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))

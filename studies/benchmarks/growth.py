"""How cost grows with the size of the sample, and with the tokens of attention.

    jacobian-lab benchmark growth

The shipped denoiser, which is convolutional, on canvases of many digits: n = 1,024 to 65,536
pixels, of which attention sees n / 16 tokens. One attention by itself: 64 to 4,096 tokens of three
heads. Each size has processes of its own: one for the times, and one for the memory, whose
allocator hands back what is freed. The exponent p of a size is that of cost ~ size^p from the size
before to this one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

import mnist
from jacobian_lab import (
    ConvergenceWarning,
    Denoiser,
    InputError,
    JacobianOperator,
    _require,
    eigenpairs,
)
from jacobian_lab.derivative.linearisation import Linearisation
from jacobian_lab.derivative.products import Products
from mnist.evaluate import noisy_digit
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.processes import STRICT, in_a_process, status
from studies.frame.study import Arrays, Options, Pieces, Study

SIZE = 32
"""Side of a digit."""
HEADS, WIDTH = 3, 32
"""Of the attention by itself, as in the shipped denoiser."""
PAIRS = 6
"""Eigenpairs."""
DENOISER, ATTENTION = "denoiser", "attention"


@dataclass(frozen=True)
class Growth(Options):
    """Measure how cost grows with pixels and tokens. Example: jacobian-lab benchmark growth --sides
    32 64 --tokens 64 256.
    """

    sides: tuple[int, ...] = (32, 64, 128, 256)
    """Sides of the canvas in pixels, rising multiples of 32."""
    tokens: tuple[int, ...] = (64, 256, 1024, 4096)
    """Tokens of the attention, rising."""
    time: int = 500
    """Noise level, 0 (clean) to 999 (noise)."""
    rounds: int = 5
    """Repetitions."""
    products: int = 300
    """Most products for the eigenpairs: where more would be needed, they are marked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("sides", SIZE), ("tokens", 1)):
            given = getattr(self, name)
            for one in given or (0,):
                _require.integer(f"--{name}", one, least, 4096)
            if list(given) != sorted(set(given)) or (
                name == "sides" and any(a % SIZE for a in given)
            ):
                raise InputError(
                    f"--{name} must rise{', in multiples of 32' if name == 'sides' else ''}:"
                    f" got {' '.join(map(str, given))}"
                )
        _require.integer("--rounds", self.rounds, 1)
        _require.integer("--products", self.products, PAIRS + 20)


def canvas(side: int, t: int) -> tuple[Denoiser, Tensor]:
    """Return the shipped denoiser for a larger canvas, and a noisy one full of digits."""
    plain = mnist.load_denoiser()
    denoiser = Denoiser(plain.network, plain.schedule, plain.prediction, (1, side, side))
    across = side // SIZE
    digits = mnist.digits("held-out")[0][: across**2].reshape(across, across, SIZE, SIZE)
    clean = digits.permute(0, 2, 1, 3).reshape(1, side, side)
    return denoiser, noisy_digit(denoiser, clean, t, 0, 0)


def attention(tokens: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return one attention as a function of the tokens, (1, heads, tokens, width), and these."""
    rng = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, WIDTH, WIDTH, generator=rng) / WIDTH**0.5

    def function(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x @ q, x @ k, x @ v)

    return function, torch.randn(1, HEADS, tokens, WIDTH, generator=rng)


def seconds_of(work: Callable[[], Any], rounds: int) -> float:
    """Return the median seconds of some work, after one turn that warms up."""
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken[1:])


def times_of_denoiser(side: int, t: int, rounds: int, products: int) -> list[float]:
    """Return the seconds of a forward pass, J v, J^T u and six eigenpairs, their products, and
    whether they converged.
    """
    denoiser, x_t = canvas(side, t)
    made, v = Products(denoiser, x_t, t), torch.randn(x_t.shape)
    with torch.no_grad():
        forward = seconds_of(lambda: denoiser(x_t, t), rounds)
    ways = [seconds_of(lambda: made.jvp(v), rounds), seconds_of(lambda: made.vjp(v), rounds)]
    J = JacobianOperator(denoiser, x_t, t)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the table says it
        found = eigenpairs(J, PAIRS, rtol=1e-3, max_products=products)
    spent = time.perf_counter() - started
    return [forward, *ways, spent, found.products, float(found.converged)]


def times_of_attention(tokens: int, rounds: int) -> list[float]:
    """Return the seconds of a forward pass, J v and J^T u."""
    function, x = attention(tokens)
    linear, v = Linearisation(function, x), torch.randn(x.shape)
    with torch.no_grad():
        return [
            seconds_of(work, rounds)
            for work in (lambda: function(x), lambda: linear.jvp(v), lambda: linear.vjp(v))
        ]


def memory_of_denoiser(side: int, t: int) -> list[float]:
    """Return the MB at the peak of set-up and J v, above what there was before."""
    denoiser, x_t = canvas(side, t)
    small, x = canvas(SIZE, t)
    Products(small, x, t).jvp(torch.randn(x.shape))  # all code at hand
    v = torch.randn(x_t.shape)
    return _above(lambda: Products(denoiser, x_t, t).jvp(v))


def memory_of_attention(tokens: int) -> list[float]:
    """Return the MB at the peak of the recording and J v, above what there was before."""
    function, x = attention(SIZE)
    Linearisation(function, x).jvp(x)
    function, x = attention(tokens)
    return _above(lambda: Linearisation(function, x).jvp(x))


def _above(work: Callable[[], Any]) -> list[float]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    work()
    return [1.024e-3 * (status("VmHWM") - before)]


def compute(config: Growth, _pieces: Pieces) -> Arrays:
    """Return what, size, quantity, cost and units, one entry for each row of the table."""
    rows: list[tuple[str, int, str, float, str]] = []
    sizes = [(DENOISER, side) for side in config.sides]
    sizes += [(ATTENTION, tokens) for tokens in config.tokens]
    for what, size in tqdm(sizes, desc="growth", unit="size"):
        if what == DENOISER:
            n, given = size**2, (size, config.time)
            names: tuple[str, ...] = ("forward pass", "J v", "J^T u", f"{PAIRS} eigenpairs")
            *seconds, products, converged = in_a_process(
                times_of_denoiser, *given, config.rounds, config.products
            )
            (memory,) = in_a_process(memory_of_denoiser, *given, environment=STRICT)
            of = "their products" if converged else "their products, not converged"
            counts = [(of, products)]
        else:
            n, names, counts = size, ("forward pass", "J v", "J^T u"), []
            seconds = in_a_process(times_of_attention, size, config.rounds)
            (memory,) = in_a_process(memory_of_attention, size, environment=STRICT)
        rows += [(what, n, name, 1e3 * s, "ms") for name, s in zip(names, seconds, strict=True)]
        rows += [(what, n, name, count, "1") for name, count in counts]
        rows.append((what, n, "memory of set-up and J v", memory, "MB"))
    keys = ("network", "size", "quantity", "cost", "units")
    return {key: np.array(found) for key, found in zip(keys, zip(*rows, strict=True), strict=True)}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each network, quantity and size, with the exponent from the size before."""
    rows: list[Row] = []
    before: dict[tuple[str, str], tuple[int, float]] = {}
    entries = zip(*(arrays[key].tolist() for key in VARIABLES), strict=True)
    for network, size, quantity, cost, units in sorted(
        entries, key=lambda entry: entry[:1] + entry[2:3]
    ):
        last = before.get((network, quantity))
        before[network, quantity] = size, cost
        rows.append(
            {
                "network": network,
                "quantity": quantity,
                "pixels_or_tokens": size,
                "cost": cost,
                "units": units,
                "exponent": ""
                if last is None
                else float(np.log(cost / last[1]) / np.log(size / last[0])),
            }
        )
    return rows


VARIABLES = {
    "network": Variable("entry", "the shipped denoiser, or one attention", coordinate=True),
    "size": Variable("entry", "pixels of the denoiser's canvas, or tokens", coordinate=True),
    "quantity": Variable("entry", "what is measured", coordinate=True),
    "cost": Variable("entry", "median time, memory, or count"),
    "units": Variable("entry", "units of the cost", coordinate=True),
}
STUDY = Study(
    "benchmark-growth",
    Growth,
    compute,
    table,
    None,
    models=lambda _: {"mnist": "denoiser"},
    measures_anew=True,
    variables=VARIABLES,
)

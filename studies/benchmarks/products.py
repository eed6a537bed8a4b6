"""What products cost, in forward passes of the same batch, beside what one would otherwise write.

    jacobian-lab benchmark products [--networks foreign]

Every figure of a table comes from one run and is a median; ours are taken in turn with forward
passes, then the peers, in turn with forward passes again. Nothing here is a test, and each run
measures anew.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import mnist
from jacobian_lab import Denoiser, InputError
from jacobian_lab.derivative.fallbacks import DoubleBackward
from jacobian_lab.derivative.products import Products
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.sampling.sampler import seeded_noise
from mnist.evaluate import noisy_digit
from studies.benchmarks.foreign_networks import foreign_networks
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays, Options, Pieces, Study

Way: TypeAlias = Callable[[], Any]


@dataclass(frozen=True)
class ProductsBenchmark(Options):
    """Time J v and J^T u beside PyTorch's. Example: jacobian-lab benchmark products --batches 1
    --rounds 5.
    """

    networks: Literal["mnist", "foreign"] = "mnist"
    """The shipped denoiser, or diffusers' UNet2DModel, UNet2DConditionModel and DiT with random
    weights (extra `sd`).
    """
    time: int = 500
    """Noise level, 0 (clean) to 999 (noise)."""
    batches: tuple[int, ...] = (1, 64)
    """Vectors of one product."""
    rounds: int = 15
    """Repetitions for one vector; a third for more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or not self.batches or min(self.batches) < 1:
            raise InputError(
                f"--rounds and --batches must be at least 1: got {self.rounds} and {self.batches}"
            )


def time_in_turns(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Return the median seconds of each way; the ways take turns, so that a disturbance hits
    all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    return {name: median(taken) for name, taken in seconds.items()}


UNIT = "one forward pass"


def compute_products(config: ProductsBenchmark, _pieces: Pieces) -> Arrays:
    """Return network, batch, path, way and price, one entry for each row of the table."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.func.jvp's own
    # torch.func.linearize's own
    warnings.filterwarnings("ignore", "Attempted to insert a get_attr Node")
    rows = []
    for name, (denoiser, x_t) in _points(config).items():
        for batch in config.batches:
            rounds = _fewer(config.rounds, batch)
            path, prices = _products_prices(denoiser, x_t, config.time, batch, rounds)
            rows += [(name, batch, path, way, price) for way, price in prices.items()]
    names = ("network", "batch", "path", "way", "price")
    return {key: np.array(found) for key, found in zip(names, zip(*rows, strict=True), strict=True)}


def _points(config: ProductsBenchmark) -> dict[str, tuple[Denoiser, Tensor]]:
    """Return the networks, and a noisy sample for each."""
    if config.networks == "foreign":
        networks = foreign_networks()
        return {name: (net, seeded_noise([0], net.shape)) for name, net in networks.items()}
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][0], config.time, 0)
    return {"shipped denoiser": (denoiser, x_t)}


def products_table(arrays: Arrays) -> list[Row]:
    """Return a row for each network, batch and way."""
    rows: list[Row] = []
    for i, price in enumerate(arrays["price"].tolist()):
        way = str(arrays["way"][i])
        rows.append(
            {
                "network": str(arrays["network"][i]),
                "batch": int(arrays["batch"][i]),
                "path": str(arrays["path"][i]),
                "way": way,
                "forward_passes": 1.0 if way == UNIT else price,
                "milliseconds": price if way == UNIT else "",
            }
        )
    return rows


VARIABLES = {
    "network": Variable("entry", "the network", coordinate=True),
    "batch": Variable("entry", "vectors of one product", coordinate=True),
    "path": Variable("entry", "path by which J v is computed", coordinate=True),
    "way": Variable("entry", "what is timed", coordinate=True),
    "price": Variable("entry", "median price; of one forward pass itself milliseconds", "passes"),
}
PRODUCTS = Study(
    "benchmark-products",
    ProductsBenchmark,
    compute_products,
    products_table,
    None,
    models=lambda config: {"mnist": "denoiser"} if config.networks == "mnist" else {},
    libraries=("diffusers",),
    measures_anew=True,
    variables=VARIABLES,
)


def _fewer(rounds: int, batch: int) -> int:
    return rounds if batch < 16 else max(3, rounds // 3)


def _products_prices(
    denoiser: Denoiser, x_t: Tensor, t: int, batch: int, rounds: int
) -> tuple[str, dict[str, float]]:
    """Return the path taken and the price of each way in forward passes, of one of these in ms;
    ours run before the peers' graphs fill the memory.
    """
    v = torch.randn(batch, *denoiser.shape, generator=torch.Generator().manual_seed(0))
    many = x_t.expand(batch, -1, -1, -1).contiguous()

    def forward() -> None:
        with torch.no_grad():
            denoiser(many, t)

    def prices(ways: dict[str, Way]) -> dict[str, float]:
        unit, *seconds = time_in_turns({"": forward} | ways, rounds).values()
        return {UNIT: 1e3 * unit} | {name: s / unit for name, s in zip(ways, seconds, strict=True)}

    ours, difference = Products(denoiser, x_t, t), Products(denoiser, x_t, t, "forward")
    found = prices(
        {
            "set-up, once for x_t": lambda: Products(denoiser, x_t, t),
            "J v": lambda: ours.jvp(v),
            "J^T u": lambda: ours.vjp(v),
            "J v, forward difference, D(x_t) included": lambda: difference.jvp(v),
        }
    )
    ways, note, traced = _peers(lambda x: denoiser(x, t), x_t, many, v)
    peers = prices(ways)
    unit = peers.pop(UNIT)
    return ours.path, found | peers | {
        f"set-up of torch.func.linearize, timed once{note}": 1e3 * traced / unit
    }


def _peers(
    function: Callable[[Tensor], Tensor], x_t: Tensor, many: Tensor, v: Tensor
) -> tuple[dict[str, Way], str, float]:
    """Return PyTorch's ways to the products, a note on torch.func.linearize, and the seconds that
    its tracing took.
    """
    with differentiable():
        leaf = many.clone().requires_grad_()
        kept = function(leaf)
        pull = torch.func.vjp(function, many)[1]
        push, traced = _linearized(function, many)
        twice = DoubleBackward(function, x_t)
    ways: dict[str, Way] = {
        "J v, torch.func.jvp": on_math_kernel(lambda: torch.func.jvp(function, (many,), (v,))),
        **({"J v, torch.func.linearize, kept": on_math_kernel(lambda: push(v))} if push else {}),
        "J v, torch.autograd.functional.jvp": on_math_kernel(
            lambda: torch.autograd.functional.jvp(function, many, v)  # type: ignore[no-untyped-call]
        ),
        "J v, double backward, kept": on_math_kernel(lambda: twice.jvp(v)),
        "J^T u, torch.func.vjp, kept": on_math_kernel(lambda: pull(v)),
        "J^T u, torch.func.vjp": on_math_kernel(lambda: torch.func.vjp(function, many)[1](v)),
        "J^T u, torch.autograd.grad, kept": lambda: torch.autograd.grad(
            kept, leaf, v, retain_graph=True
        ),
    }
    return ways, "" if push else ", until it failed", traced


def _linearized(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Callable[[Tensor], Tensor] | None, float]:
    """Return torch.func.linearize's `J v`, or None where its tracing fails, and the seconds it
    took.
    """
    started = time.perf_counter()
    try:
        push = torch.func.linearize(function, x)[1]
    except RuntimeError:  # it cannot trace what reads a number out of a tensor
        push = None
    return push, time.perf_counter() - started


def on_math_kernel(way: Way) -> Way:
    """Return the way on the math kernel of attention, without which forward mode fails."""

    def run() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            way()

    return run

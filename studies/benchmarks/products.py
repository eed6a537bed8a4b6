"""What products cost, in forward passes of the same batch, beside what one would otherwise write.

    jacobian-lab benchmark products [--networks foreign] [--networks plain --jax]

Every figure of a table comes from one run and is a median; ours are taken in turn with forward
passes, then the peers, in turn with forward passes again; JAX's in turn with its own. Nothing here
is a test, and each run measures anew.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import mnist
from jacobian_lab import Denoiser, DerivativeWarning, InputError
from jacobian_lab.derivative.fallbacks import DoubleBackward
from jacobian_lab.derivative.products import Products
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.sampling.sampler import seeded_noise
from mnist.evaluate import noisy_digit
from studies.benchmarks.foreign_networks import foreign_networks
from studies.benchmarks.products_jax import InJax, plain_denoiser
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays, Options, Pieces, Study

Way: TypeAlias = Callable[[], Any]


@dataclass(frozen=True)
class ProductsBenchmark(Options):
    """Time J v and J^T u beside PyTorch's. Example: jacobian-lab benchmark products --batches 1
    --rounds 5.
    """

    networks: Literal["mnist", "foreign", "plain"] = "mnist"
    """The shipped denoiser, or with random weights diffusers' UNet2DModel, UNet2DConditionModel and
    DiT (extra `sd`), or twelve convolutions of 64 channels.
    """
    jax: bool = False
    """Also the same network in JAX, which must be installed; for `--networks plain`."""
    compiled: bool = False
    """Also `torch.compile` of PyTorch's J v, which takes up to a minute to compile."""
    bfloat16: bool = False
    """Also our products made under autocast in bfloat16, which a CPU with AMX computes faster, with
    their distance to those in float32 and the error that is stated.
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
        if self.jax and self.networks != "plain":
            raise InputError(f"--jax is for --networks plain: got --networks {self.networks}")


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


UNIT, AGAIN = "one forward pass", "one forward pass, beside PyTorch's ways"


class Price(NamedTuple):
    """What a way costs."""

    way: str
    passes: float
    """In forward passes of the same framework and batch."""
    milliseconds: float


def compute_products(config: ProductsBenchmark, _pieces: Pieces) -> Arrays:
    """Return network, batch, path, way, price and milliseconds, one entry for each row of the
    table.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.func.jvp's own
    # torch.func.linearize's own
    warnings.filterwarnings("ignore", "Attempted to insert a get_attr Node")
    rows = []
    for name, (denoiser, x_t) in _points(config).items():
        for batch in config.batches:
            rounds = _fewer(config.rounds, batch)
            v = torch.randn(batch, *denoiser.shape, generator=torch.Generator().manual_seed(0))
            path, prices = _products_prices(denoiser, x_t, config, v, rounds)
            rows += [(name, batch, path, *price) for price in prices]
            if config.jax:
                others = _prices_in_jax(denoiser, x_t, config.time, v, rounds)
                rows += [(name, batch, "JAX", *price) for price in others]
    names = ("network", "batch", "path", "way", "price", "milliseconds")
    return {key: np.array(found) for key, found in zip(names, zip(*rows, strict=True), strict=True)}


def _points(config: ProductsBenchmark) -> dict[str, tuple[Denoiser, Tensor]]:
    """Return the networks, and a noisy sample for each."""
    if config.networks == "foreign":
        networks = foreign_networks()
        return {name: (net, seeded_noise([0], net.shape)) for name, net in networks.items()}
    if config.networks == "plain":
        plain = plain_denoiser()
        return {"12 convolutions": (plain, seeded_noise([0], plain.shape))}
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][0], config.time, 0)
    return {"shipped denoiser": (denoiser, x_t)}


def products_table(arrays: Arrays) -> list[Row]:
    """Return a row for each network, batch and way."""
    return [
        {
            "network": str(arrays["network"][i]),
            "batch": int(arrays["batch"][i]),
            "path": str(arrays["path"][i]),
            "way": str(arrays["way"][i]),
            "forward_passes": price,
            "milliseconds": float(arrays["milliseconds"][i]),
        }
        for i, price in enumerate(arrays["price"].tolist())
    ]


VARIABLES = {
    "network": Variable("entry", "the network", coordinate=True),
    "batch": Variable("entry", "vectors of one product", coordinate=True),
    "path": Variable("entry", "path by which our J v is computed, or JAX", coordinate=True),
    "way": Variable("entry", "what is timed", coordinate=True),
    "price": Variable("entry", "median price, of the framework's own forward pass", "passes"),
    "milliseconds": Variable("entry", "median time", "ms"),
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


def _priced(seconds: dict[str, float], unit: float) -> list[Price]:
    return [Price(name, taken / unit, 1e3 * taken) for name, taken in seconds.items()]


def _prices_in_jax(denoiser: Denoiser, x_t: Tensor, t: int, v: Tensor, rounds: int) -> list[Price]:
    """Return the prices in JAX of the same network, whose products are checked to be ours."""
    peer, ours = InJax(denoiser, x_t, t, v), Products(denoiser, x_t, t)
    peer.check(ours.d, ours.jvp(v))
    ways = dict(peer.ways())
    found = time_in_turns(ways, rounds)
    return _priced(found, found[next(iter(ways))])


def _products_prices(
    denoiser: Denoiser, x_t: Tensor, config: ProductsBenchmark, v: Tensor, rounds: int
) -> tuple[str, list[Price]]:
    """Return the path taken and the price of each way; ours run before the peers' graphs fill the
    memory. The unit of all is the faster one of the forward passes beside ours and beside theirs.
    """
    many, t = x_t.expand(len(v), -1, -1, -1).contiguous(), config.time

    def forward() -> None:
        with torch.no_grad():
            denoiser(many, t)

    ours, difference = Products(denoiser, x_t, t), Products(denoiser, x_t, t, "forward")
    own = {
        "set-up, once for x_t": lambda: Products(denoiser, x_t, t),
        "J v": lambda: ours.jvp(v),
        "J^T u": lambda: ours.vjp(v),
        "J v, forward difference, D(x_t) included": lambda: difference.jvp(v),
    }
    if config.bfloat16:
        own |= _in_bfloat16(denoiser, x_t, t, v, ours)
    found = time_in_turns({UNIT: forward} | own, rounds)
    function = bare(denoiser, x_t, t)
    ways, note, traced = _peers(function, x_t, many, v)
    if config.compiled:
        compiled = torch.compile(lambda x, v: torch.func.jvp(function, (x,), (v,)))
        ways["J v, torch.compile of torch.func.jvp"] = on_math_kernel(lambda: compiled(many, v))
    found |= time_in_turns({AGAIN: forward} | ways, rounds)
    found[f"set-up of torch.func.linearize, timed once{note}"] = traced
    return ours.path, _priced(found, min(found[UNIT], found[AGAIN]))


def _in_bfloat16(
    denoiser: Denoiser, x_t: Tensor, t: int, v: Tensor, ours: Products
) -> dict[str, Way]:
    """Return products made under autocast; they stay in it outside."""
    with torch.autocast(x_t.device.type, torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore", DerivativeWarning)  # the error is in the table
        coarse = Products(denoiser, x_t, t)
    pairs = {"J v": (coarse.jvp, ours.jvp), "J^T u": (coarse.vjp, ours.vjp)}
    off = {key: float((a(v) - b(v)).norm() / b(v).norm()) for key, (a, b) in pairs.items()}
    return {
        f"{key}, bfloat16, off by {off[key]:.1e}, stated {coarse.error:.1e}": partial(product, v)
        for key, (product, _) in pairs.items()
    }


def bare(denoiser: Denoiser, x_t: Tensor, t: int) -> Callable[[Tensor], Tensor]:
    """Return D(., t) as one would write it for a tracer: what depends on the time alone is there
    before, and nothing is checked.
    """
    c_x, c_out = denoiser.coefficients(x_t, t)
    network, time_of_all = denoiser.network, denoiser.schedule.time_tensor(t)
    return lambda x: c_x * x + c_out * network(x, time_of_all.expand(len(x)))


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

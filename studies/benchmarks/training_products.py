"""What `J v` in a loss costs a step of training, beside what one would otherwise write.

jacobian-lab benchmark training

A step is the forward pass of a batch, the loss `|D|^2 + |J v|^2`, and the gradient of all weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import mnist
from jacobian_lab import BatchJacobian, Denoiser, InputError, linearise, seeded_noise
from studies.benchmarks.products import on_math_kernel, time_in_turns
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays, Options, Pieces, Study

Both = Callable[[], tuple[Tensor, Tensor]]
ALONE = "training step without J v"
EXACT = "linearise"


@dataclass(frozen=True)
class TrainingBenchmark(Options):
    """Time a step of training with J v in its loss. Example: jacobian-lab benchmark training
    --batch 4 --rounds 1.
    """

    time: int = 500
    """Noise level, 0 (clean) to 999 (noise)."""
    batch: int = 16
    """Samples of a step."""
    rounds: int = 5
    """Repetitions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1: got {getattr(self, name)}")


def training_ways(denoiser: Denoiser, x: Tensor, v: Tensor, t: int) -> dict[str, Both]:
    """Return the ways to D and `J v` of a batch, name -> function; all but the first and the last
    have the graph of the weights.
    """

    def function(x: Tensor) -> Tensor:
        return denoiser(x, t)

    def linearised(check: bool) -> tuple[Tensor, Tensor]:
        linear = linearise(function, x, check=check)
        return linear.value, linear.jvp(v)

    def differences() -> tuple[Tensor, Tensor]:
        h = 1e-2
        return function(x), (function(x + h * v) - function(x - h * v)) / (2 * h)

    def forward_mode() -> tuple[Tensor, Tensor]:
        found = torch.func.jvp(function, (x,), (v,))
        return found[0], found[1]

    def without_graph() -> tuple[Tensor, Tensor]:
        return function(x), BatchJacobian(denoiser, x, t, "exact").jvp(v)

    return {
        ALONE: lambda: (function(x), torch.zeros(())),
        EXACT: partial(linearised, False),
        "linearise, checked": partial(linearised, True),
        "torch.func.jvp, math kernel": forward_mode,
        "central difference, two more passes": differences,
        "J v without the weights' graph": without_graph,
    }


def step_of(both: Both, weights: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Return J v and the gradient of the loss by all weights, flat."""
    value, product = both()
    loss = value.square().mean() + product.square().mean()
    found = torch.autograd.grad(loss, weights, materialize_grads=True)
    return product.detach(), torch.cat([g.flatten() for g in found])


def compute(config: TrainingBenchmark, _pieces: Pieces) -> Arrays:
    """Return way, seconds and errors, one entry for each row of the table."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.func.jvp's own
    denoiser = mnist.load_denoiser().requires_grad_(True)
    weights = list(denoiser.parameters())
    images = mnist.digits("held-out")[0][: config.batch]
    x = denoiser.schedule.add_noise(
        images, config.time, seeded_noise(range(config.batch), denoiser.shape)
    )
    v = seeded_noise(range(1000, 1000 + config.batch), denoiser.shape)
    ways = training_ways(denoiser, x, v, config.time)
    steps = {name: on_math_kernel(partial(step_of, both, weights)) for name, both in ways.items()}
    steps[ALONE] = partial(step_of, ways[ALONE], weights)
    seconds = time_in_turns(steps, config.rounds)
    truth = true_step(config, x, v)
    with sdpa_kernel(SDPBackend.MATH):
        found = {name: step_of(both, weights) for name, both in ways.items()}
    return {
        "way": np.array(list(seconds)),
        "seconds": np.array(list(seconds.values())),
        **{
            name: np.array([_apart(found, way, part, truth) for way in seconds])
            for part, name in enumerate(("product_error", "gradient_error"))
        },
    }


def true_step(config: TrainingBenchmark, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return J v and the gradient in float64, by PyTorch's forward mode."""
    wide = mnist.load_denoiser(dtype=torch.float64).requires_grad_(True)
    ways = training_ways(wide, x.double(), v.double(), config.time)
    with sdpa_kernel(SDPBackend.MATH):
        return step_of(ways["torch.func.jvp, math kernel"], list(wide.parameters()))


def _apart(
    found: dict[str, tuple[Tensor, Tensor]], way: str, part: int, truth: tuple[Tensor, Tensor]
) -> float:
    if way == ALONE or (part and "without" in way):
        return float("nan")
    gap = (found[way][part].double() - truth[part]).norm() / truth[part].norm()
    return float(gap)


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each way: its price in steps without J v, and its errors against float64."""
    alone = float(arrays["seconds"][arrays["way"].tolist().index(ALONE)])
    return [
        {
            "way": str(way),
            "steps_without_J_v": float(taken) / alone,
            "milliseconds": 1e3 * float(taken),
            "error_of_J_v": float(error),
            "error_of_gradient": float(of_gradient),
        }
        for way, taken, error, of_gradient in zip(
            arrays["way"],
            arrays["seconds"],
            arrays["product_error"],
            arrays["gradient_error"],
            strict=True,
        )
    ]


VARIABLES = {
    "way": Variable("way", "what is timed"),
    "seconds": Variable("way", "median time of a step", "s"),
    "product_error": Variable("way", "relative error of J v, against float64"),
    "gradient_error": Variable("way", "relative error of the loss's gradient, against float64"),
}
TRAINING = Study(
    "benchmark-training",
    TrainingBenchmark,
    compute,
    table,
    None,
    models=lambda _: {"mnist": "denoiser"},
    measures_anew=True,
    variables=VARIABLES,
)

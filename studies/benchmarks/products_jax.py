"""The same network in JAX, and what its products cost there, in passes of JAX's own forward.

A plain residual network without normalisation: twelve convolutions of 64 channels on 32x32, random
weights, the same in both. Channels come last in JAX, which its convolutions on a CPU prefer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, _require

Way: TypeAlias = Callable[[], Any]
SEED, CHANNELS, DEPTH = 0, 64, 12
AGREE = 1e-4
"""How far D and J v may lie apart in both, relative: float32, and another order of summation."""


class PlainResidual(nn.Module):
    """Convolutions with residual connections; it looks at x_t alone."""

    def __init__(self) -> None:
        super().__init__()
        channels = [1, *[CHANNELS] * (DEPTH - 1), 1]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(channels)
        )

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        """Return the raw output, shape of x."""
        first, *middle, last = self.layers
        x = first(x)
        for layer in middle:
            x = x + layer(F.silu(x))
        return last(F.silu(x))


def plain_denoiser() -> Denoiser:
    """Return a denoiser of 1x32x32 images with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = PlainResidual()
    schedule = DiscreteSchedule.scaled_linear()
    return Denoiser(network.eval().requires_grad_(False), schedule, "epsilon", (1, 32, 32))


def twin(denoiser: Denoiser, x_t: Tensor, t: int) -> Callable[[Any], Any]:
    """Return D(., t) of a plain denoiser as a function of JAX, from (32, 32, 1) to the same."""
    jax = _require.library("jax", "", "networks in JAX")
    network = denoiser.network
    assert isinstance(network, PlainResidual)
    own = list(network.parameters())  # weight and bias of each layer
    weights = [w.numpy().transpose(2, 3, 1, 0) for w in own[::2]]  # HWIO
    biases = [b.numpy() for b in own[1::2]]
    c_x, c_out = (float(c.squeeze()) for c in denoiser.coefficients(x_t, t))

    def convolved(x: Any, i: int) -> Any:
        y = jax.lax.conv_general_dilated(
            x, weights[i], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + biases[i]

    def function(x: Any) -> Any:
        y = convolved(x[None], 0)
        for i in range(1, len(weights) - 1):
            y = y + convolved(jax.nn.silu(y), i)
        return c_x * x + c_out * convolved(jax.nn.silu(y), len(weights) - 1)[0]

    return function


class InJax:
    """The ways to the products in JAX, for the vectors v of torch, (K, 1, 32, 32), jitted and
    checked equal.
    """

    def __init__(self, denoiser: Denoiser, x_t: Tensor, t: int, v: Tensor) -> None:
        jax = _require.library("jax", "", "networks in JAX")
        self.jax, self.function = jax, twin(denoiser, x_t, t)
        self.x, self.V = (jax.numpy.asarray(a.numpy().transpose(0, 2, 3, 1)) for a in (x_t, v))
        self.x = self.x[0]
        self.many = jax.numpy.broadcast_to(self.x, self.V.shape)
        self.forward = jax.jit(jax.vmap(self.function))
        self.push = self.linearised()
        pull = jax.vjp(self.function, self.x)[1]
        self.pull = jax.jit(jax.vmap(lambda u: pull(u)[0]))
        self.jvp = jax.jit(jax.vmap(lambda v: jax.jvp(self.function, (self.x,), (v,))[1]))

    def linearised(self) -> Callable[[Any], Any]:
        """Return J v for many v, from `jax.linearize`, not yet compiled."""
        jax = self.jax
        linear: Callable[[Any], Any] = jax.jit(jax.vmap(jax.linearize(self.function, self.x)[1]))
        return linear

    def check(self, d: Tensor, product: Tensor) -> None:
        """Raise unless D and J v are those of torch."""
        for name, found, expected in (
            ("D", self.function(self.x)[None], d),
            ("J v", self.push(self.V), product),
        ):
            other = np.asarray(found).transpose(0, 3, 1, 2)
            gap = float(np.linalg.norm(other - expected.numpy()) / np.linalg.norm(expected.numpy()))
            if not gap <= AGREE:
                raise InputError(f"{name} of JAX differs from torch's by {gap:.1e} of its size")

    def ways(self) -> Iterator[tuple[str, Way]]:
        """Yield the name of each way and how it is run; the forward pass first."""

        def done(run: Callable[[], Any]) -> Way:
            return lambda: run().block_until_ready()

        yield "one forward pass, JAX", done(lambda: self.forward(self.many))
        yield "J v, jax.linearize, kept, jitted", done(lambda: self.push(self.V))
        yield "J v, jax.jvp, jitted", done(lambda: self.jvp(self.V))
        yield "J^T u, jax.vjp, kept, jitted", done(lambda: self.pull(self.V))
        yield (
            "set-up and first J v, jax.linearize, compilation included",
            done(lambda: self.linearised()(self.V)),
        )

"""Noise of each sample from its own seed, whoever draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.sampling.sampler import seed_of, seeded_noise


def start_noise(denoiser: Denoiser, seeds: Sequence[int]) -> Tensor:
    """Return the noise that a run starts from, where the denoiser's weights are and in their
    precision.
    """
    weights = next(chain(denoiser.parameters(), denoiser.buffers()), torch.zeros(()))
    return seeded_noise(seeds, denoiser.shape, weights.device, weights.dtype)


class SeededNoise(TorchFunctionMode):
    """Inside, `torch.randn_like`, `torch.normal` and `Tensor.normal_` draw each sample from its own
    seed, whoever calls them, and `torch.multinomial` from the first one's.

    The libraries draw a batch from PyTorch's global generator; this leaves that alone and makes
    their samples independent of each other. It follows `seeded_noise(seeds)`, which the runs start
    from, without repeating it.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed_of(seed, 1)) for seed in seeds]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Draw in place of these functions; call any other."""
        if func is torch.randn_like:
            return self._draw(args[0])
        if func is torch.Tensor.normal_:
            return args[0].copy_(self._draw(args[0]))
        if func is torch.normal:
            mean, deviation = args
            return (mean + deviation * self._draw(mean)).to(mean)
        if func is torch.multinomial:
            weights, *rest = args
            return func(weights.cpu(), *rest, **(kwargs or {}), generator=self.generators[0]).to(
                weights.device
            )
        return func(*args, **(kwargs or {}))

    def _draw(self, like: Tensor) -> Tensor:
        if len(like) != len(self.generators):
            raise InputError(
                f"noise for a batch of {len(like)} was asked for, and there are"
                f" {len(self.generators)} seeds"
            )
        return torch.stack(
            [torch.randn(like.shape[1:], generator=generator) for generator in self.generators]
        ).to(like)

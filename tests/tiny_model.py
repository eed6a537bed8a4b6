"""A small model that tests name by this file: its Jacobian is not symmetric, it notes by whom it is
opened, and is as slow as the environment says.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule


class Tiny(nn.Module):
    """A network of samples 1x8x8, with a Jacobian that is not symmetric."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(64, 64, generator=generator) / 8)

    def forward(self, x, t):
        time.sleep(float(os.environ.get("TINY_SECONDS", 0)))
        return torch.tanh(x.flatten(1) @ self.weight).reshape(x.shape)


class Broken(Tiny):
    """A network that fails at t = 500."""

    def forward(self, x, t):
        until = time.monotonic() + 60 * float(t.max() == 500)
        while time.monotonic() < until and not keeps_pieces():
            time.sleep(0.05)  # what is at other times is finished, and kept, before
        return super().forward(x, t) * torch.where(t == 500, torch.nan, 1.0).reshape(-1, 1, 1, 1)


def keeps_pieces():
    """Return whether the broken model's own run has kept a piece at t = 300."""
    claims = [path.parent / "config.json" for path in Path("runs").glob("*.partial/*-300-*.npz")]
    return any("broken" in path.read_text() for path in claims if path.is_file())


def images(count=1):
    """Clean images for it, (count, 1, 8, 8), in [-1, 1]."""
    values = np.random.default_rng(0).standard_normal((count, 1, 8, 8)).clip(-1, 1)
    return values.astype(np.float32)


def opened(network):
    if "TINY_NOTES" in os.environ:
        with Path(os.environ["TINY_NOTES"]).open("a") as notes:
            notes.write(f"{os.getpid()}\n")
    return Denoiser(network, DiscreteSchedule.linear(), "epsilon", (1, 8, 8))


def make():
    return opened(Tiny(0))


def other():
    return opened(Tiny(1))


def broken():
    return opened(Broken(0))

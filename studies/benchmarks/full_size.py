"""What the published models cost, on paper: their configurations at full size, counted without
weights or memory.

    jacobian-lab benchmark full-size

The networks are built on PyTorch's `meta` device, where tensors have shapes and no content. Counted
are parameters, floating point operations of a forward pass and of J^T u, and the most bytes that
activations take at one time (weights aside, half precision, attention by the math kernel, which
exact derivatives need). The passes of a constrained sample are counted by running the sampler on an
oracle. Seconds are operations divided by what the device is said to achieve.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from jacobian_lab import DiscreteSchedule, InputError
from jacobian_lab._require import diffusers
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.diffusion.oracle import gaussian
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays, Options, Pieces, Study

DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
BLOCKS = {
    "down_block_types": (DOWN, DOWN, DOWN, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", UP, UP, UP),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
}
UNET_1: dict[str, Any] = {
    **BLOCKS,
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
UNET_2: dict[str, Any] = {
    **BLOCKS,
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
TRANSFORMER_3: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
TIMES, NEWTON_STEPS = 20, 5


@dataclass(frozen=True)
class FullSize(Options):
    """Count what the published models cost. Example: jacobian-lab benchmark full-size --flops
    5e13.
    """

    flops: float = 1e14
    """Operations per second that the device achieves in half precision: 1e14 is a third of an
    A100's peak.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.flops > 0 and math.isfinite(self.flops)):
            raise InputError(f"--flops must be positive: got {self.flops}")


@dataclass(frozen=True)
class Count:
    """What one call of a network costs, for one sample."""

    parameters: int
    forward: int
    """Floating-point operations of a forward pass."""
    forward_bytes: int
    """Most bytes alive at one time, weights aside."""
    vjp: int
    """Floating-point operations of a forward pass and J^T u."""
    vjp_bytes: int


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that are alive, but for those that were there before; a
    peak, and what is there now.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {tensor.untyped_storage()._cdata for tensor in before}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the operation, and count the storages that it makes."""
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if (
                isinstance(tensor, Tensor)
                and (key := (storage := tensor.untyped_storage())._cdata) not in self.known
            ):
                self.known.add(key)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        return found

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def count(network: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> Count:
    """Return what `call(x)`, made of the network, costs, and what it costs with a product J^T u."""
    before = [*network.parameters(), *network.buffers(), x]

    def back() -> None:
        leaf = x.detach().requires_grad_()
        found = call(leaf)
        found.backward(torch.empty_like(found))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def forward() -> None:
        call(x)

    operations, peaks = [], []
    for work in (forward, back):
        with FlopCounterMode(display=False) as counter:
            work()
        operations.append(counter.get_total_flops())
        with Alive(before) as alive:
            work()
        peaks.append(alive.peak)
    return Count(
        sum(p.numel() for p in network.parameters()),
        operations[0],
        peaks[0],
        operations[1],
        peaks[1],
    )


def networks() -> dict[str, Count]:
    """Return the counts of the published denoisers and of Stable Diffusion's decoder, one sample
    each.
    """
    library = diffusers()
    t = torch.empty(1, device="meta", dtype=torch.long)
    first = _build(library.UNet2DConditionModel, UNET_1)
    second = _build(library.UNet2DConditionModel, UNET_2)
    third = _build(library.SD3Transformer2DModel, TRANSFORMER_3)
    decoder = _build(library.AutoencoderKL, AUTOENCODER)
    return {
        "SD 1.5, InstaFlow, 512 px": count(
            first, lambda x: first(x, t, _meta(1, 77, 768)).sample, _meta(1, 4, 64, 64)
        ),
        "SD 2.1-v, 768 px": count(
            second, lambda x: second(x, t, _meta(1, 77, 1024)).sample, _meta(1, 4, 96, 96)
        ),
        "SD 3 medium, 1024 px": count(
            third,
            lambda x: third(x, _meta(1, 333, 4096), _meta(1, 2048), t).sample,
            _meta(1, 16, 128, 128),
        ),
        "SD 1.5's decoder, 512 px": count(
            decoder, lambda z: decoder.decode(z).sample, _meta(1, 4, 64, 64)
        ),
    }


def _meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", dtype=torch.half)


def _build(kind: Any, config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return kind(**config).half().eval().requires_grad_(False)


def passes() -> dict[str, float]:
    """Return the forward passes of a sample: free, and constrained with inexact Newton steps, as
    the sampler counts them.
    """
    schedule = DiscreteSchedule.scaled_linear()
    denoiser = gaussian(torch.zeros(16), torch.eye(16), schedule, (1, 4, 4)).denoiser()
    noise, times = seeded_noise([0], denoiser.shape), schedule.times(TIMES)
    *_, free = sample(denoiser, noise, times)
    wanted = Inpainting(torch.zeros(1, *denoiser.shape), half(denoiser.shape))
    *_, constrained = sample(denoiser, noise, times, wanted, Newton("inexact", NEWTON_STEPS))
    return {"free": free.spent.forward, "constrained": constrained.spent.forward}


def compute(config: FullSize, _pieces: Pieces) -> Arrays:
    """Return the counts, (networks, fields of `Count`), and the passes of a sample."""
    counts = networks()
    return {
        "network": np.array(list(counts)),
        "counts": np.array([astuple(c) for c in counts.values()]),
        "flops": np.array(config.flops),
        "passes": np.array(list(passes().values())),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each network: of one sample in half precision, GB being 10^9 bytes of
    activations; without guidance, which doubles the seconds.
    """
    rows: list[Row] = []
    free, constrained = (arrays["passes"] / float(arrays["flops"])).tolist()
    for name, values in zip(arrays["network"].tolist(), arrays["counts"].tolist(), strict=True):
        c, denoises = Count(*values), "decoder" not in name
        rows.append(
            {
                "network": name,
                "parameters_M": c.parameters / 1e6,
                "weights_GB": 2 * c.parameters / 1e9,
                "D_TFLOP": c.forward / 1e12,
                "D_GB": c.forward_bytes / 1e9,
                "with_J^T_u_TFLOP": c.vjp / 1e12,
                "with_J^T_u_GB": c.vjp_bytes / 1e9,
                "seconds_free": free * c.forward if denoises else "",
                "seconds_constrained": constrained * c.forward if denoises else "",
            }
        )
    return rows


VARIABLES = {
    "network": Variable("network", "published model"),
    "counts": Variable("network count", "weights; operations and bytes of D, and of J^T u"),
    "flops": Variable("", "operations of the machine in a second", "1/s"),
    "passes": Variable("way", "forward passes of a sample: free, constrained"),
}
STUDY = Study(
    "benchmark-full-size",
    FullSize,
    compute,
    table,
    None,
    models=lambda _: {},
    libraries=("diffusers",),
    variables=VARIABLES,
)

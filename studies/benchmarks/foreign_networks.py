"""Networks that the products were not written for, with random weights: diffusers' U-Nets and a
diffusion transformer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jacobian_lab import Denoiser, DiscreteSchedule, InputError

SEED = 0
UNET: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 16,
}
CONDITIONAL: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (64, 128),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 4,
    "sample_size": 16,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
}


class FixedInputs(nn.Module):
    """A network of diffusers as `network(x, t)`, what else it takes held fixed."""

    def __init__(self, inner: nn.Module, **given: Any) -> None:
        super().__init__()
        self.inner, self.names = inner, tuple(given)
        for name, value in given.items():
            self.register_buffer(name, value)  # so that .to() and .double() reach it

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output, shape of x."""
        given = {
            name: getattr(self, name).expand(len(x), *getattr(self, name).shape[1:])
            for name in self.names
        }
        return self.inner(x, t, **given).sample[:, : x.shape[1]]


def foreign_networks() -> dict[str, Denoiser]:
    """Return three denoisers with random weights: UNet2DModel, UNet2DConditionModel,
    DiTTransformer2DModel.
    """
    try:
        import diffusers
    except ImportError as error:
        raise InputError('diffusers is missing: pip install -e ".[sd]"') from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        unet = diffusers.UNet2DModel(**UNET)
        conditional = diffusers.UNet2DConditionModel(**CONDITIONAL)
        transformer = diffusers.DiTTransformer2DModel(**TRANSFORMER)
        for parameter in transformer.parameters():  # a fresh DiT is zero at its end
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        prompt, label = torch.randn(1, 8, 64), torch.zeros(1, dtype=torch.long)
    schedule = DiscreteSchedule.scaled_linear()
    made = {
        "UNet2DModel": (FixedInputs(unet), (1, 32, 32)),
        "UNet2DConditionModel": (FixedInputs(conditional, encoder_hidden_states=prompt), (4, 8, 8)),
        "DiTTransformer2DModel": (FixedInputs(transformer, class_labels=label), (4, 16, 16)),
    }
    return {
        name: Denoiser(network.eval().requires_grad_(False), schedule, "epsilon", shape)
        for name, (network, shape) in made.items()
    }

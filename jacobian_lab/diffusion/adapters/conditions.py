"""Conditions that are held fixed: what a network is given beside (x, t), so that it is a function
of these two.

    Conditioned   keyword arguments: embeddings of a prompt, class labels, added time ids
    Beside        channels beside the latent: the mask and the masked image of an inpainting model
    Controlled    a ControlNet with its image; its residuals depend on x, and are part of J
    Packed        latents as a sequence of 2 x 2 patches, with their positions: FLUX

All are called as diffusers calls its networks, `network(x, timestep=..., **given)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from jacobian_lab.diffusion.adapters.conventions import Convention

Held: TypeAlias = Mapping[str, Any]
"""Keyword arguments: tensors (1, ...), None, and dictionaries and lists of them."""


class Conditioned(nn.Module):
    """A network with one condition, in our convention: `(x, t) -> raw output`.

    Parameters
    ----------
    network : nn.Module
        Called with diffusers' keyword arguments.
    held : dict
        Keyword arguments that carry the condition, each tensor of shape (1, ...); they become
        buffers.
    convention : Convention
        What the network predicts, and at which time.
    """

    def __init__(self, network: nn.Module, held: Held, convention: Convention) -> None:
        super().__init__()
        self.network, self.convention = network, convention

        def register(name: str, value: Tensor) -> str:
            self.register_buffer(name, value)
            return name

        self.held: dict[str, Any] = {name: _each(of, register, name) for name, of in held.items()}
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output, shape of `x`; t has the shape (B,)."""

        def expanded(_: str, name: str) -> Tensor:
            value: Tensor = getattr(self, name)
            return value.expand(len(x), *[-1] * (value.ndim - 1))

        given = {name: _each(of, expanded, name) for name, of in self.held.items()}
        time = self.convention.time(t)
        raw: Tensor = self.network(x, timestep=time, return_dict=False, **given)[0]
        return raw if self.convention.sign == 1 else -raw


def _each(value: Any, act: Callable[[str, Any], Any], name: str) -> Any:
    """Return a tree of dictionaries and lists with `act(name, leaf)` for its leaves; None stays."""
    if isinstance(value, Mapping):
        return {key: _each(of, act, f"{name}/{key}") for key, of in value.items()}
    if isinstance(value, list):
        return [_each(of, act, f"{name}/{i}") for i, of in enumerate(value)]
    return None if value is None else act(name, value)


class Beside(nn.Module):
    """A network that takes more channels than the latent has: `channels`, (1, k, h, w), are put
    after it.
    """

    channels: Tensor

    def __init__(self, network: nn.Module, channels: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("channels", channels)

    def forward(self, x: Tensor, **given: Any) -> Any:
        """Return the network's output for x, (B, C, h, w)."""
        beside = self.channels.expand(len(x), -1, -1, -1)
        return self.network(torch.cat([x, beside], dim=1), **given)


class Controlled(nn.Module):
    """A U-Net with the residuals of a ControlNet.

    Parameters
    ----------
    network, controlnet : nn.Module
    image : Tensor, shape (1, c, H, W)
        The control image, in [0, 1].
    scale : float
        diffusers' `controlnet_conditioning_scale`.
    """

    image: Tensor

    def __init__(
        self, network: nn.Module, controlnet: nn.Module, image: Tensor, scale: float
    ) -> None:
        super().__init__()
        self.network, self.controlnet, self.scale = network, controlnet, scale
        self.register_buffer("image", image)

    def forward(
        self, x: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **given: Any
    ) -> Any:
        """Return the network's output for x, (B, C, h, w)."""
        text = {"timestep": timestep, "encoder_hidden_states": encoder_hidden_states}
        down, middle = self.controlnet(
            x,
            **text,
            controlnet_cond=self.image.expand(len(x), -1, -1, -1),
            conditioning_scale=self.scale,
            return_dict=False,
        )
        return self.network(
            x,
            **text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **given,
        )


class Packed(nn.Module):
    """A transformer over 2 x 2 patches of the latent, (B, C, h, w) -> (B, h w / 4, 4 C), with the
    patches' rows and columns.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, encoder_hidden_states: Tensor, **given: Any) -> tuple[Tensor]:
        """Return the network's output, (B, C, h, w), in a tuple."""
        b, c, h, w = x.shape
        patches = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        rows, columns = torch.meshgrid(
            torch.arange(h // 2, device="cpu"), torch.arange(w // 2, device="cpu"), indexing="ij"
        )
        positions = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
        out = self.network(
            patches.reshape(b, h * w // 4, 4 * c),
            encoder_hidden_states=encoder_hidden_states,
            img_ids=positions.to(x),
            txt_ids=x.new_zeros(encoder_hidden_states.shape[1], 3),
            **given,
        )[0]
        unpacked = out.reshape(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return (unpacked.reshape(x.shape),)

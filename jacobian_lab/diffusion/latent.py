"""A latent-diffusion model: what the rest of the library needs, and no more.

latent = load_latent("folder", prompt="a photo of a seven", guidance=4.0)
z = latent.encode(images)
x_t = latent.denoiser.schedule.add_noise(z, 500, noise)
images = latent.decode(latent.denoiser(x_t, 500))
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import InputError


class Latent:
    """A latent-diffusion model: the denoiser of its latents, and the autoencoder. Made by `load` or
    `load_latent`.

    Parameters
    ----------
    pipeline
        A diffusers object with an `AutoencoderKL` or an `AutoencoderDC`, `vae`.
    denoiser : Denoiser
        The denoiser of its latents, (C, h, w).
    factor : int
        Pixels per latent pixel, in each direction.

    Attributes
    ----------
    denoiser : Denoiser
        In latent space, `denoiser.shape` is (C, h, w).
    image_shape : (int, int, int)
        Shape (c, H, W) of an image; pixels are in [-1, 1].
    factor : int
        Pixels per latent pixel, in each direction.
    pipeline
        The diffusers object.
    """

    def __init__(self, pipeline: Any, denoiser: Denoiser, factor: int) -> None:
        self.pipeline, self.denoiser, self.factor = pipeline, denoiser, factor
        config = pipeline.vae.config
        self._steady = steady(pipeline.vae)
        # one number for all channels, or, as in some of SDXL's kin, one for each
        mean, std = config.get("latents_mean"), config.get("latents_std")
        shift = [float(config.get("shift_factor") or 0.0)] if mean is None else mean
        self._shift = torch.tensor(shift, dtype=torch.float64, device="cpu").reshape(-1, 1, 1)
        spread = torch.tensor([1.0] if std is None else std, dtype=torch.float64, device="cpu")
        self._scale = float(config.scaling_factor) / spread.reshape(-1, 1, 1)
        _, h, w = denoiser.shape
        self.image_shape = (int(config.in_channels), h * factor, w * factor)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of images: (B, c, H, W) in [-1, 1] -> (B, C, h, w).

        The mode of the encoder's Gaussian, if it has one, shifted and scaled as the denoiser wants
        it; differentiable. The images must be on the model's device and in its dtype.
        """
        _check_batch(images, self.image_shape, "images")
        vae, given = self._computing(images)
        encoded = vae.encode(given)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
        found: Tensor = (latents - self._shift.to(latents)) * self._scale.to(latents)
        return found.to(images.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents: (B, C, h, w) -> (B, c, H, W), not clamped to [-1, 1];
        differentiable.
        """
        _check_batch(latents, self.denoiser.shape, "latents")
        vae, given = self._computing(latents)
        own = given / self._scale.to(given) + self._shift.to(given)
        images: Tensor = vae.decode(own, return_dict=False)[0]
        return images.to(latents.dtype)

    def _computing(self, x: Tensor) -> tuple[Any, Tensor]:
        """Return the autoencoder that computes, and x as it takes it."""
        own = self.pipeline.vae
        return (own, x) if self._steady is own else (self._steady.to(own.device), x.float())


def steady(vae: Any) -> Any:
    """Return an autoencoder, or a copy in float32 of one that overflows in float16, as diffusers'
    `force_upcast` says; one that is offloaded stays as it is, and so does the pipeline's own.
    """
    overflows = vae.config.get("force_upcast", False) and vae.dtype == torch.float16
    return copy.deepcopy(vae).float() if overflows and not hasattr(vae, "_hf_hook") else vae


def _check_batch(x: Tensor, shape: tuple[int, ...], name: str) -> None:
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        raise InputError(
            f"{name} have shape {tuple(x.shape)}: expected (B, {', '.join(map(str, shape))})"
        )

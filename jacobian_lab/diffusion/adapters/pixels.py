"""diffusers' pipelines of pixels, and a bare `UNet2DModel` with its scheduler.

    scheduler                       schedule        network gets            and returns
    DDPM, DDIM, DPM-Solver, ...     alphas_cumprod  (x, t)                  as the scheduler says
    score-SDE VE                    sigma           (x, sigma)              the score, in [0, 1]
    EDM (Euler, DPM-Solver)         sigma           (c_in x, ln(sigma) / 4)  F of `EDM`
    consistency (CMStochastic...)   sigma           (c_in x, 250 ln(sigma))  F of `Consistency`
    flow matching                   rectified flow  (x, 1000 t)             noise - x_0

Pixels are in [-1, 1] here, whatever the family's own range is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.conventions import is_flow, read_table
from jacobian_lab.diffusion.adapters.family import Labelled, UnitRange, classes, label_of, ready
from jacobian_lab.diffusion.adapters.pipelines import PIXELS, open_pipeline
from jacobian_lab.diffusion.continuous import RectifiedFlow, VarianceExploding
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import EDM, Scalings
from jacobian_lab.errors import InputError


@dataclass(frozen=True)
class Consistency(EDM):
    """The preconditioning of consistency models, for which D is the identity at sigma_min.

    As `EDM`, with `sigma - sigma_min` for sigma in c_skip and in the first factor of c_out, and the
    time `250 ln(sigma)`.

    References
    ----------
    Song, Dhariwal, Chen, Sutskever (2023), *Consistency models*, appendix C.
    """

    sigma_min: float = 0.002

    def __call__(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Scalings:
        """Return c_skip, c_out, c_in and `250 ln(sigma)`; alpha_t is 1."""
        edm, above = super().__call__(t, alpha_t, sigma_t), sigma_t - self.sigma_min
        return Scalings(
            self.sigma_data**2 / (above**2 + self.sigma_data**2),
            edm.c_out * above / sigma_t,
            edm.c_in,
            1000 * edm.time,
        )


def load_pixels(
    source: Any,
    *,
    label: int | None = None,
    shape: Shape | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    download: bool = False,
) -> Denoiser:
    """Return the denoiser of a pipeline of pixels: DDPM, DDIM, score-SDE VE, consistency models.

    Parameters
    ----------
    source : str, Path or pipeline
    label : int, optional
        The class, where the network is conditioned on one.
    shape : tuple of int, optional
        Of a sample, (C, H, W); by default as the network's configuration says.
    device, dtype, download
        As in `load_latent`.
    """
    opened = open_pipeline(source, device, dtype, download)
    if opened.kind not in PIXELS:
        raise InputError(f"the source is a {opened.kind}: expected a pipeline of pixels")
    return load_pair((opened.network, opened.pipeline.scheduler), label=label, shape=shape)


def load_pair(pair: Any, *, label: int | None = None, shape: Shape | None = None) -> Denoiser:
    """Return the denoiser of a `UNet2DModel` and a scheduler.

    Parameters
    ----------
    pair : (UNet2DModel, scheduler)
    label : int, optional
        The class, where the network is conditioned on one.
    shape : tuple of int, optional
        Of a sample, (C, H, W); by default as the network's configuration says.
    """
    unet, scheduler = pair
    config, size = unet.config, unet.config.sample_size
    if shape is None:
        if size is None:
            raise InputError(
                "the network's configuration has no sample_size: pass"
                f" shape=({config.in_channels}, H, W)"
            )
        h, w = (size, size) if isinstance(size, int) else size
        shape = (config.in_channels, h, w)
    shape = _require.sizes("shape", shape)
    network = Labelled(ready(unet), label_of(label, config.get("num_class_embeds")), "class_labels")
    twice = int(config.out_channels) == 2 * shape[0]
    return _denoiser(network, scheduler, shape, twice).eval()


def _denoiser(network: Labelled, scheduler: Any, shape: Shape, twice: bool) -> Denoiser:
    """Return the denoiser by what the scheduler says."""
    kind, said = type(scheduler).__name__, scheduler.config
    if kind == "ScoreSdeVeScheduler":
        score = UnitRange(network, gain=0.5, offset=0.0)
        sigmas = VarianceExploding(2 * said.sigma_max, 2 * said.sigma_min)
        return Denoiser(score, sigmas, "score", shape)
    if kind == "CMStochasticIterativeScheduler" or kind.startswith("EDM"):
        sigmas = VarianceExploding(said.sigma_max, said.sigma_min, said.rho)
        if kind.startswith("EDM"):
            if said.prediction_type != "epsilon":
                raise InputError(
                    f"{kind} has prediction_type {said.prediction_type!r}: expected 'epsilon',"
                    " which is Karras's F"
                )
            return Denoiser(network, sigmas, EDM(said.sigma_data), shape)
        return Denoiser(network, sigmas, Consistency(said.sigma_data, said.sigma_min), shape)
    if is_flow(scheduler):
        return Denoiser(Times(network, said.num_train_timesteps), RectifiedFlow(), "flow", shape)
    table = read_table(scheduler)
    return Denoiser(network, table.schedule, table.prediction, shape, learned_variance=twice)


class Times(torch.nn.Module):
    """A network that takes `scale t`."""

    def __init__(self, network: torch.nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: Tensor, t: Tensor) -> Any:
        """Return the network's output at `scale t`."""
        return self.network(x, t * self.scale)


def is_pair(source: Any) -> bool:
    """Return whether a source is a `UNet2DModel` and a scheduler."""
    return (
        isinstance(source, tuple)
        and len(source) == 2
        and "UNet2DModel" in classes(source[0])
        and "SchedulerMixin" in classes(source[1])
    )

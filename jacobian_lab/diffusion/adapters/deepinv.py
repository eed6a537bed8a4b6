"""deepinv's denoisers in our operator, and ours in deepinv's algorithms.

A denoiser of deepinv is `D(x, sigma)` of pixels in [0, 1], and sigma is on their scale: half of
that of our pixels in [-1, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.family import UnitRange, classes, packages, ready
from jacobian_lab.diffusion.continuous import VarianceExploding
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.schedule import per_sample
from jacobian_lab.errors import InputError


def is_deepinv(source: Any) -> bool:
    """Return whether a source is a denoiser of deepinv."""
    return "deepinv" in packages(source) and "Denoiser" in classes(source)


def load_deepinv(
    source: Any, *, shape: Shape, sigma_max: float = 1.0, sigma_min: float = 0.002
) -> Denoiser:
    """Return a denoiser of deepinv as ours, of pixels in [-1, 1]; its time is sigma of these.

    Parameters
    ----------
    source : deepinv.models.Denoiser
    shape : tuple of int
        Of a sample, (C, H, W).
    sigma_max, sigma_min : float
        The range of noise levels, for pixels in [-1, 1]: most of these networks are trained up to
        about 50 of 255, 0.4 here.
    """
    network = UnitRange(ready(source), gain=2.0, offset=-1.0)
    schedule = VarianceExploding(sigma_max, sigma_min)
    return Denoiser(network, schedule, "sample", _require.sizes("shape", shape)).eval()


class DeepinvDenoiser(nn.Module):
    """A denoiser as deepinv's algorithms call it: `self(x, sigma)`, pixels in [0, 1].

    Parameters
    ----------
    denoiser : Denoiser
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.training = denoiser.training

    def forward(self, x: Tensor, sigma: float | Tensor, *_: Any, **__: Any) -> Tensor:
        """Return the denoised images, (B, C, H, W), at sigma of one number for all or one for
        each.

        A noise level becomes the time of a table that is nearest, or that of a continuous schedule
        which has it.
        """
        level = torch.as_tensor(sigma, dtype=torch.float64).flatten()
        schedule = self.denoiser.schedule
        alpha_1, sigma_1 = schedule(schedule.times(1)[0])
        if not (2 * level * alpha_1 <= 1.01 * sigma_1).all():
            raise InputError(
                f"sigma = {float(level.max()):g} is beyond the model's noisiest time, which has"
                f" {float(sigma_1 / alpha_1) / 2:g} for pixels in [0, 1]"
            )
        t = schedule.time_of(2 * level)
        alpha_t = per_sample(self.denoiser.schedule(t)[0], x)
        return (self.denoiser(alpha_t * (2 * x - 1), t) + 1) / 2


def to_deepinv(denoiser: Denoiser) -> DeepinvDenoiser:
    """Return a denoiser of images in [-1, 1] as deepinv's algorithms call it.

    Parameters
    ----------
    denoiser : Denoiser

    References
    ----------
    Tachella et al., deepinv; its `deepinv.models.Denoiser`.
    """
    _require.instance("denoiser", denoiser, Denoiser)
    return DeepinvDenoiser(denoiser)

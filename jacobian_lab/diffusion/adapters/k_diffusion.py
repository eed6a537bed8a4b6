"""k-diffusion's wrappers (Crowson): `D(x, sigma)` around a network, with time sigma.

`layers.Denoiser` and kin give their network sigma itself, and are taken apart; the others, around
networks of discrete times, are taken whole, as "sample".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.edm import check_call
from jacobian_lab.diffusion.adapters.family import classes, has, ready
from jacobian_lab.diffusion.continuous import VarianceExploding
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import EDM, Scalings


class SigmaEDM(EDM):
    """`EDM` for a network whose time is sigma itself."""

    def __call__(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> Scalings:
        """Return EDM's scalings with `sigma_t / alpha_t` as the time."""
        return super().__call__(t, alpha_t, sigma_t)._replace(time=sigma_t / alpha_t)


def is_k_diffusion(source: Any) -> bool:
    """Return whether a source is a wrapper of k-diffusion."""
    return has(source, "inner_model", "get_scalings")


def load_k_diffusion(
    source: Any, *, shape: Shape, sigma_max: float = 80.0, sigma_min: float = 0.002
) -> Denoiser:
    """Return the denoiser of a wrapper of k-diffusion.

    Parameters
    ----------
    source : nn.Module
    shape : tuple of int
        Of a sample.
    sigma_max, sigma_min : float
        The range of noise levels, where the wrapper has no table of them.
    """
    ready(source)
    if has(source, "sigma_max", "sigma_min"):
        sigma_max, sigma_min = float(source.sigma_max), float(source.sigma_min)
    schedule = VarianceExploding(sigma_max, sigma_min)
    shape = _require.sizes("shape", shape)
    if classes(source) & {"Denoiser"}:
        scalings = SigmaEDM(float(source.sigma_data))
        denoiser = Denoiser(source.inner_model, schedule, scalings, shape).eval()
        check_call(source, denoiser)
        return denoiser
    return Denoiser(source, schedule, "sample", shape).eval()

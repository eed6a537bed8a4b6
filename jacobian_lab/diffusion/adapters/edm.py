"""Networks in Karras's preconditioning: EDM and EDM2 (NVlabs), and others with a `sigma_data` and a
raw network inside.

    EDMPrecond, EDM2's Precond, ElucidatedDiffusion   the raw network, in `EDM(sigma_data)`
    VPPrecond, VEPrecond, iDDPMPrecond                D(x, sigma) as it is: "sample"

The classes of NVlabs round to float32 on their way; the raw network does not, and its derivative is
checked where no `c_skip x` hides errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.family import Labelled, classes, has, label_of, ready
from jacobian_lab.diffusion.continuous import VarianceExploding
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import EDM
from jacobian_lab.errors import InputError

INNER = {"model": "class_labels", "unet": "class_labels", "net": "x_self_cond"}
"""Names of the raw network in EDM, EDM2 and denoising-diffusion-pytorch, and of the argument after
its time.
"""
AGREEMENT = 1e-2
"""Relative difference from the object's own call that half precision inside may leave."""
COMPARED = (0.2, 1.7, 9.0)
"""Noise levels of the comparison: at 1 every multiple of ln(sigma) is the same time."""
WHOLE = {"VPPrecond", "VEPrecond", "iDDPMPrecond"}


def is_edm(source: Any) -> bool:
    """Return whether a source is a preconditioned network of this kind."""
    inner = any(callable(getattr(source, name, None)) for name in INNER)
    return (has(source, "sigma_data") and inner) or bool(classes(source) & WHOLE)


def load_edm(source: Any, *, label: int | None = None, shape: Shape | None = None) -> Denoiser:
    """Return the denoiser of an EDM-like network; its time is sigma.

    Parameters
    ----------
    source : nn.Module
    label : int, optional
        The class; None is the zero vector of a conditional network, which means no class.
    shape : tuple of int, optional
        Of a sample, where the object does not tell.

    References
    ----------
    Karras, Aittala, Aila, Laine (2022), *Elucidating the design space of diffusion-based
    generative models*; Karras et al. (2024), *Analyzing and improving the training dynamics of
    diffusion models*.
    """
    ready(source)
    classes_known = int(getattr(source, "label_dim", 0) or 0)
    row: Tensor | None = None
    if classes_known:
        row = torch.zeros(classes_known, device="cpu")
        if label is not None:
            row[label_of(label, classes_known)] = 1
    else:
        label_of(label, None)
    schedule = VarianceExploding(*_range(source))
    if classes(source) & WHOLE:
        network = Labelled(source, row, "class_labels")
        return Denoiser(network, schedule, "sample", _shape(source, shape)).eval()
    name = next(name for name in INNER if hasattr(source, name))
    network = Labelled(getattr(source, name), row, INNER[name])
    scalings = EDM(float(source.sigma_data))
    denoiser = Denoiser(network, schedule, scalings, _shape(source, shape)).eval()
    # ElucidatedDiffusion's own call is its loss
    own = getattr(source, "preconditioned_network_forward", source)
    check_call(own, denoiser, *([] if row is None else [row[None]]))
    return denoiser


@torch.no_grad()
def check_call(own: Callable[..., Any], denoiser: Denoiser, *labels: Tensor) -> None:
    """Raise unless D is an object's own `own(x, sigma, *labels)` at random points of several noise
    levels: it may have other scalings, or another time.
    """
    z = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    weight = next(denoiser.parameters(), z)
    given = [label.to(weight.device) for label in labels]
    for wanted in COMPARED:
        sigma = min(wanted, float(denoiser.schedule.times(1)[0]))
        x = (sigma * z).to(weight)
        theirs = own(x, torch.full((1,), sigma, device=weight.device), *given)
        off = float((denoiser(x, sigma) - theirs).norm() / theirs.norm())
        if not off < AGREEMENT:
            what = type(getattr(own, "__self__", own)).__name__
            raise InputError(
                f"the {what} has a sigma_data, but its own D(x, {sigma:g}) is not what it should be"
                f" by its scalings and the time of its family: they differ by {off:.1e}. Take it"
                " whole: Denoiser(network, VarianceExploding(), 'sample', shape)"
            )


def _range(source: Any) -> tuple[float, float]:
    """Return sigma_max and sigma_min; Karras's where the object says infinity and 0."""
    high, low = (float(getattr(source, name, 0)) for name in ("sigma_max", "sigma_min"))
    return (high if 0 < high < math.inf else 80.0), (low if low > 0 else 0.002)


def _shape(source: Any, shape: Shape | None) -> Shape:
    """Return the shape of a sample, as given, or as the object tells."""
    if shape is not None:
        return _require.sizes("shape", shape)
    for channels, size in (("img_channels", "img_resolution"), ("channels", "image_size")):
        if has(source, channels, size):
            side = getattr(source, size)
            return (int(getattr(source, channels)), int(side), int(side))
    raise InputError(f"a {type(source).__name__} does not tell its shape: pass shape=(C, H, W)")

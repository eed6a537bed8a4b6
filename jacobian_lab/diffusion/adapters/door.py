"""The one door: `load(source, ...)` picks the family, and its adapter makes the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.dit import load_dit
from jacobian_lab.diffusion.adapters.family import PAGE, Family, call_with, classes
from jacobian_lab.diffusion.adapters.pipelines import (
    CLASSES,
    NETWORKS,
    PIXELS,
    open_pipeline,
)
from jacobian_lab.diffusion.adapters.pixels import is_pair, load_pair, load_pixels
from jacobian_lab.diffusion.adapters.text_to_image import load_latent
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.latent import Latent
from jacobian_lab.errors import InputError

Loader = Callable[..., Denoiser | Latent]


def load_pipeline(
    source: Any,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    download: bool = False,
    **options: Any,
) -> Denoiser | Latent:
    """Return the model of a pipeline of diffusers, by the adapter of its class."""
    opened = open_pipeline(source, device, dtype, download)
    loader: Loader = load_latent
    if opened.kind in CLASSES:
        loader = load_dit
    elif opened.kind in PIXELS:
        loader = load_pixels
    return call_with(loader, opened, options, f"a {opened.kind}")


def _is_pipeline(source: Any) -> bool:
    return isinstance(source, str | Path) or bool(classes(source) & set(NETWORKS))


FAMILIES = (
    Family(
        "diffusers",
        f"a folder or hub id in diffusers' format, or one of its pipelines: {', '.join(NETWORKS)}",
        _is_pipeline,
        load_pipeline,
    ),
    Family("unet", "a pair (UNet2DModel, scheduler) of diffusers", is_pair, load_pair),
)


def load(source: Any, *, family: str | None = None, **options: Any) -> Denoiser | Latent:
    """Return a model that people have as a `Denoiser` of pixels, or a `Latent` with encode and
    decode.

    Parameters
    ----------
    source
        A folder, a hub id, a pipeline, a network or an object of another library; the page "Bring
        your model" has the table of families, with the lines of code for each.
    family : str, optional
        By default found by the source's class and attributes. A bare network, such as torchcfm's,
        says nothing of its convention: then name the family.
    **options
        Of the family: `prompt`, `guidance`, `label`, `shape`, `schedule`, ...; `device`, `dtype`
        and `download` for pipelines.

    Raises
    ------
    InputError
        If no family recognises the source, or an option is unknown or missing; the message lists
        what is known.
    """
    known = {of.name: of for of in FAMILIES}
    if family is not None:
        _require.one_of("family", family, known)
        return _load(known[family], source, options)
    for of in FAMILIES:
        if of.recognises(source):
            return _load(of, source, options)
    listed = "\n".join(f"  {of.name}: {of.about}" for of in FAMILIES)
    raise InputError(
        f"no adapter recognises {_require.shown(source)}. Known are:\n{listed}\n"
        "Name one by family=..., or write Denoiser(network, schedule, prediction, shape) yourself:"
        f" see {PAGE}"
    )


def _load(family: Family, source: Any, options: dict[str, Any]) -> Denoiser | Latent:
    if family.load is load_pipeline:  # its options are known once the pipeline is open
        return load_pipeline(source, **options)
    return call_with(family.load, source, options, f"the family {family.name!r}")

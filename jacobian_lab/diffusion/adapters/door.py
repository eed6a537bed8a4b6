"""The one door: `load(source, ...)` picks the family, and its adapter makes the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters import (
    arrays,
    azula,
    deepinv,
    denoising_diffusion,
    dit,
    edm,
    flows,
    guided_diffusion,
    k_diffusion,
    pixels,
    sit,
    text_to_image,
)
from jacobian_lab.diffusion.adapters.family import PAGE, Family, call_with, classes
from jacobian_lab.diffusion.adapters.pipelines import CLASSES, NETWORKS, PIXELS, open_pipeline
from jacobian_lab.diffusion.adapters.single_file import is_file, open_file
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.latent import Latent
from jacobian_lab.errors import InputError

Model = Denoiser | Latent


def load_pipeline(
    source: Any,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    download: bool = False,
    **options: Any,
) -> Model:
    """Return the model of a pipeline of diffusers, by the adapter of its class."""
    opened = open_pipeline(source, device, dtype, download)
    loader: Callable[..., Model] = text_to_image.load_latent
    if opened.kind in CLASSES:
        loader = dit.load_dit
    elif opened.kind in PIXELS:
        loader = pixels.load_pixels
    return call_with(loader, opened, options, f"a {opened.kind}")


def load_file(
    source: Any, *, config: str | Path, dtype: torch.dtype = torch.float32, **options: Any
) -> Model:
    """Return the model of one safetensors file; `config` is a folder of the same kind."""
    return load_pipeline(open_file(source, config, dtype), **options)


def _is_pipeline(source: Any) -> bool:
    return isinstance(source, str | Path) or bool(classes(source) & set(NETWORKS))


FAMILIES = (
    Family("file", "a pipeline in one .safetensors file, with config=FOLDER", is_file, load_file),
    Family(
        "diffusers",
        f"a folder, a hub id or a pipeline of diffusers: {', '.join(NETWORKS)}",
        _is_pipeline,
        load_pipeline,
    ),
    Family(
        "unet", "a pair (UNet2DModel, scheduler) of diffusers", pixels.is_pair, pixels.load_pair
    ),
    Family(
        "denoising-diffusion",
        "a GaussianDiffusion of denoising-diffusion-pytorch",
        denoising_diffusion.is_denoising_diffusion,
        denoising_diffusion.load_denoising_diffusion,
    ),
    Family(
        "k-diffusion",
        "a wrapper of k-diffusion, with shape=",
        k_diffusion.is_k_diffusion,
        k_diffusion.load_k_diffusion,
    ),
    Family(
        "edm",
        "EDMPrecond, EDM2's Precond, VPPrecond, VEPrecond, iDDPMPrecond, ElucidatedDiffusion: an"
        " object with sigma_data and a network inside",
        edm.is_edm,
        edm.load_edm,
    ),
    Family(
        "guided-diffusion",
        "a UNetModel of guided-diffusion with its diffusion object, or with schedule=",
        guided_diffusion.is_guided_diffusion,
        guided_diffusion.load_guided_diffusion,
    ),
    Family("sit", "a SiT or DiT of the authors' code, with label=", sit.is_sit, sit.load_sit),
    Family(
        "torchcfm",
        "a network (t, x) -> velocity of torchcfm",
        flows.is_torchcfm,
        flows.load_torchcfm,
    ),
    Family(
        "flow-matching",
        "a ModelWrapper of flow_matching, or any (x, t) -> velocity whose time is 1 for data, with"
        " shape=",
        flows.is_flow_matching,
        flows.load_flow_matching,
    ),
    Family("azula", "a denoiser of azula, with shape=", azula.is_azula, azula.load_azula),
    Family(
        "deepinv", "a denoiser of deepinv, with shape=", deepinv.is_deepinv, deepinv.load_deepinv
    ),
    Family(
        "arrays",
        "a function of numpy or JAX arrays, with schedule=, prediction=, shape= (by name only)",
        lambda _: False,
        arrays.load_function,
    ),
)


def load(source: Any, *, family: str | None = None, **options: Any) -> Model:
    """Return a model that people have as a `Denoiser`, or as a `Latent` with encode and decode.

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
    found = known[family] if family else next((f for f in FAMILIES if f.recognises(source)), None)
    if found is not None:
        return call_with(found.load, source, options, f"the family {found.name!r}")
    listed = "\n".join(f"  {of.name}: {of.about}" for of in FAMILIES)
    raise InputError(
        f"no adapter recognises {_require.shown(source)}. Known are:\n{listed}\n"
        "Name one by family=..., or write Denoiser(network, schedule, prediction, shape) yourself:"
        f" see {PAGE}"
    )

"""A diffusers pipeline from a folder, a hub id or an object: safely, and whole or not at all.

Safetensors only, no code from a repository, nothing is downloaded unasked, and a weight that is
missing is an error where diffusers would draw it at random; so is a damaged file, where a checksum
is known. The safety checker is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jacobian_lab import _require
from jacobian_lab._checksums import check_folder
from jacobian_lab._files import read_json
from jacobian_lab._require import diffusers, transformers
from jacobian_lab.errors import InputError

INSTAFLOW = ("RectifiedFlowPipeline", "InstaFlowPipeline")
"""Class names of InstaFlow's own releases, and of the pipeline in diffusers' community folder."""
TEXT = {
    "StableDiffusionPipeline": "unet",
    "StableDiffusionInpaintPipeline": "unet",
    "StableDiffusionControlNetPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
    "PixArtAlphaPipeline": "transformer",
    "PixArtSigmaPipeline": "transformer",
    "FluxPipeline": "transformer",
    "SanaPipeline": "transformer",
    "AuraFlowPipeline": "transformer",
    "Lumina2Pipeline": "transformer",
    **dict.fromkeys(INSTAFLOW, "unet"),
}
"""Pipelines of latents with a prompt; InstaFlow's is a `StableDiffusionPipeline` whose network
predicts a velocity.
"""
CLASSES = {"DiTPipeline": "transformer"}
"""Pipelines of latents with a class."""
PIXELS = dict.fromkeys(
    ("DDPMPipeline", "DDIMPipeline", "ScoreSdeVePipeline", "ConsistencyModelPipeline"), "unet"
)
"""Pipelines of pixels."""
NETWORKS = TEXT | CLASSES | PIXELS
"""Pipeline class -> its component that denoises."""
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that are neither fetched nor loaded: they do not enter the denoiser."""
MODELS = (
    "unet",
    "transformer",
    "controlnet",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
)
"""Components with weights, which are loaded one by one, so that a missing weight is noticed."""


@dataclass(frozen=True)
class Opened:
    """A diffusers pipeline, its networks in evaluation mode and frozen."""

    pipeline: Any
    kind: str
    """Name of its class, a key of NETWORKS; the class that a folder states may be InstaFlow's."""
    origin: str
    """Where its weights come from, as far as diffusers noted it."""

    @property
    def network(self) -> Any:
        """The network that denoises."""
        return getattr(self.pipeline, NETWORKS[self.kind])


def open_pipeline(
    source: Any, device: torch.device | str | None, dtype: torch.dtype | None, download: bool
) -> Opened:
    """Open a source; `jacobian_lab.load_latent` says what is refused.

    Parameters
    ----------
    source : str, Path, pipeline or Opened
        A folder in diffusers' format, a hub id, or a loaded pipeline; what is opened stays as it
        is.
    device, dtype : optional
        By default the CPU and float32 for what is loaded here; a loaded pipeline stays as it is.
    download : bool
        Whether a hub id may be fetched.
    """
    if isinstance(source, Opened):
        return source
    diffusers(), transformers()  # if one is missing, say so first
    if device is not None:
        _require.device(device)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(
            f"dtype must be a floating-point type such as torch.float32: got {dtype!r}"
        )
    if isinstance(source, (str, Path)):
        opened = _load(_folder(source, download), dtype or torch.float32)
        dtype = None  # some parts may keep float32 on purpose (T5 in half precision)
    else:
        kind = next((c.__name__ for c in type(source).__mro__ if c.__name__ in NETWORKS), None)
        if kind is None:
            raise InputError(
                f"the source is a {type(source).__name__}: expected a folder, a hub id, or one of "
                f"{', '.join(NETWORKS)}"
            )
        opened = Opened(source, kind, _noted(source.config, getattr(source, NETWORKS[kind]).config))
    modules = [part for part in opened.pipeline.components.values() if isinstance(part, nn.Module)]
    move: dict[str, Any] = {
        key: value for key, value in (("device", device), ("dtype", dtype)) if value is not None
    }
    if move:
        _check_not_offloaded(modules)
    for part in modules:
        (part.to(**move) if move else part).eval().requires_grad_(False)
    return opened


def _folder(source: str | Path, download: bool) -> Path:
    """Return the folder of a pipeline: itself, or the snapshot of a hub id."""
    folder = Path(source).expanduser()
    if str(source) and folder.is_dir():
        return folder
    if isinstance(source, Path) or source.count("/") != 1 or source[0] in "./~":
        raise InputError(
            f"there is no folder {str(source)!r}: expected a folder in diffusers' format, or a hub"
            " id OWNER/NAME"
        )
    return _snapshot(source, download)


def _snapshot(hub_id: str, download: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    options: dict[str, Any] = {"local_files_only": not download}
    try:
        index = hf_hub_download(hub_id, "model_index.json", **options)
        unused = dict.fromkeys(UNUSED)
        kind = pipeline_class(read_index(Path(index).parent))
        return Path(
            kind.download(
                hub_id, use_safetensors=True, trust_remote_code=False, **options, **unused
            )
        )
    except (OSError, HFValidationError) as error:
        remedy = (
            "the hub said: " + _first_line(error) if download else "pass download=True to fetch it"
        )
        raise InputError(
            f"{hub_id!r} is no folder, and not in the hub's cache: {remedy}"
        ) from error


def read_index(folder: Path) -> dict[str, Any]:
    """Return model_index.json of a folder whose class and network are known."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise InputError(
            f"{str(folder)!r} has no model_index.json: it is no pipeline in diffusers' format "
            "(pipeline.save_pretrained writes one)"
        )
    index = read_json(path, "JSON")
    if not any(
        isinstance(index.get(network), list) and index[network][:1] not in ([], [None])
        for network in ("unet", "transformer")
    ):
        raise InputError(
            f"{str(folder)!r} has no unet and no transformer in its model_index.json: nothing there"
            " denoises"
        )
    if str(index.get("_class_name")) not in NETWORKS:
        raise InputError(
            f"{str(folder)!r} is a {index.get('_class_name')}: expected one of"
            f" {', '.join(NETWORKS)}"
        )
    return index


def pipeline_class(index: dict[str, Any]) -> Any:
    """Return diffusers' class for a folder's index."""
    name = index["_class_name"]
    return getattr(diffusers(), "StableDiffusionPipeline" if name in INSTAFLOW else name)


def _load(folder: Path, dtype: torch.dtype) -> Opened:
    check_folder(folder)
    index = read_index(folder)
    parts = {
        name: (str(entry[0]), str(entry[-1]))
        for name, entry in index.items()
        if isinstance(entry, list) and any(entry) and name not in UNUSED
    }
    places = {name: _place(folder, name) for name in parts}
    given: dict[str, Any] = {name: None for name in UNUSED if name in index}
    if "safety_checker" in given:
        given["requires_safety_checker"] = False
    try:
        given |= {
            name: _load_model(places[name], dtype, *parts[name]) for name in MODELS if name in parts
        }
        pipeline = pipeline_class(index).from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, **given
        )
    except InputError:
        raise
    except Exception as error:  # a damaged configuration can raise nearly anything
        raise InputError(f"diffusers cannot load {str(folder)!r}: {_first_line(error)}") from error
    # what its file notes, diffusers overwrites by the folder
    network = NETWORKS[index["_class_name"]]
    config = read_json(
        places.get(network, folder / network) / "config.json", "the configuration of a network"
    )
    return Opened(pipeline, index["_class_name"], _noted(index, config, str(folder)))


def _place(folder: Path, name: str) -> Path:
    """Return where a part of a pipeline lies: in its own folder, or, of the first pipelines of
    pixels, beside the index.
    """
    beside = {"unet": "config.json", "scheduler": "scheduler_config.json"}.get(name, "")
    if (folder / name).is_dir():
        return folder / name
    if not beside or not (folder / beside).is_file():
        raise InputError(f"{str(folder)!r} has no folder {name}, which its model_index.json names")
    return folder


def _load_model(folder: Path, dtype: torch.dtype, library: str, kind: str) -> nn.Module:
    """Return one network; unlike diffusers, refuse a file that lacks some of its weights."""
    libraries = {"diffusers": diffusers(), "transformers": transformers()}
    model_class = getattr(libraries.get(library), kind, None)
    if model_class is None:
        raise InputError(
            f"{str(folder)!r} is a {library}.{kind}: expected a class of diffusers or transformers;"
            " other code is not run"
        )
    model, found = model_class.from_pretrained(
        folder,
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
        variant=_variant(folder),
        output_loading_info=True,
    )
    if found["missing_keys"]:
        raise InputError(
            f"{str(folder)!r} lacks {len(found['missing_keys'])} weights, the first of them "
            f"{min(found['missing_keys'])}: the file is damaged, or of another model"
        )
    return model


def _variant(folder: Path) -> str | None:
    """Return None if the folder has weights of the plain name, or the variant that it has instead,
    such as "fp16".

    Raises
    ------
    InputError
        If it has no safetensors.
    """
    names = [path.name for path in folder.iterdir()]
    variants = sorted(
        name.removesuffix(".safetensors").partition(".")[2].partition("-")[0]
        for name in names
        # "model.fp16-00001-of-00002.safetensors" is of "fp16"
        if name.endswith(".safetensors")
    )
    if variants:
        return variants[0] or None
    pickled = [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickled:
        raise InputError(
            f"{str(folder)!r} has pickled weights only ({pickled[0]}), which can run code when they"
            " are read: save the pipeline anew with save_pretrained, which writes safetensors"
        )
    raise InputError(f"{str(folder)!r} has no weights: expected a .safetensors file")


def _check_not_offloaded(modules: list[nn.Module]) -> None:
    if any(
        hasattr(module, hook)
        for part in modules
        for module in part.modules()
        for hook in ("_hf_hook", "_diffusers_hook")
    ):
        raise InputError(
            "this pipeline is offloaded: its hooks place the weights. Leave device and dtype out"
        )


def _noted(*configs: Any) -> str:
    """Return the names that configurations note, or strings."""
    names = [
        config if isinstance(config, str) else str(config.get("_name_or_path") or "")
        for config in configs
    ]
    return ", ".join(dict.fromkeys(name for name in names if name))


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

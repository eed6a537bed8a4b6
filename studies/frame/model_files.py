"""Where a pipeline's weights lie, and their SHA-256: what names a model in a manifest, and tells
one run from another.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from jacobian_lab import InputError
from jacobian_lab._checksums import LOADED
from jacobian_lab._checksums import file_hash as file_hash

LATENT = "mnist-latent"
"""The miniature Stable Diffusion that ships."""


def pipeline_folder(name: str) -> Path:
    """Return the folder of a pipeline: of the miniature that ships, the user's own, or a hub id's
    in the local cache.

    Raises
    ------
    InputError
        If a hub id was not downloaded before: studies fetch nothing.
    """
    if name == LATENT:
        from mnist.latent import PIPELINE

        return PIPELINE
    return cached_folder(name, f"--model {name}", f"no denoiser {name}.json, ")


def cached_folder(name: str, option: str, also: str = "") -> Path:
    """Return a folder in the hub's format: the user's own, or a hub id's in the local cache.

    Raises
    ------
    InputError
        If there is none: `option` is how the user named it, `also` what else was looked for.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(
            f"{option} is a hub id, which needs diffusers and transformers ({error}): "
            'pip install "jacobian-lab[sd]"'
        ) from error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(
            f"{option}: there is no such folder, {also}and no such hub id in the local cache. "
            f"`hf download {name}` fetches it"
        ) from error


def pipeline_hash(name: str) -> str:
    """Return one SHA-256 over what a pipeline is made of: weights, configurations, tokenizers."""
    return folder_hash(pipeline_folder(name), LOADED)


def is_gray(name: str) -> bool:
    """Return whether a pipeline's images are gray, as digits are; of a broken one too, which is
    refused once it is opened.
    """
    try:
        return (
            int(
                json.loads((pipeline_folder(name) / "vae" / "config.json").read_text())[
                    "in_channels"
                ]
            )
            == 1
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True


def folder_hash(folder: Path, endings: tuple[str, ...]) -> str:
    """Return one SHA-256 over the files of a folder with one of these endings, their places
    included.
    """
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in endings):
        total.update(f"{path.relative_to(folder).as_posix()} {file_hash(path)}\n".encode())
    return total.hexdigest()

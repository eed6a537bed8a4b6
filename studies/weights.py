"""Where a pipeline's weights lie, and their SHA-256: what names a model in a manifest, and tells one run from another."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from jacobian_lab import InputError

LATENT = "mnist-latent"
"""The miniature Stable Diffusion that ships."""


def pipeline_folder(name: str) -> Path:
    """Return the folder of a pipeline: of the miniature that ships, the user's own, or a hub id's in the local cache.

    Raises
    ------
    InputError
        If a hub id was not downloaded before: studies fetch nothing.
    """
    if name == LATENT:
        from mnist.latent import PIPELINE

        return PIPELINE
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(f"--model {name} is a hub id, which needs diffusers and transformers ({error}): "
                         'pip install "jacobian-lab[sd]"') from error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(f"--model {name}: there is no such folder, no denoiser {name}.json, and no such hub id in the "
                         f"local cache. `hf download {name}` fetches it, as does load_latent(..., download=True)") from error


def pipeline_hash(name: str, ending: str = ".safetensors") -> str:
    """Return one SHA-256 over the files of a pipeline with this ending, their places in the folder included."""
    folder, total = pipeline_folder(name), hashlib.sha256()
    for path in sorted(folder.rglob(f"*{ending}")):
        total.update(f"{path.relative_to(folder).as_posix()} {file_hash(path)}\n".encode())
    return total.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file; of a large one that has not changed since, without reading it again."""
    state = path.stat()
    return _read(path.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _read(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - they say whether the file is still the same
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

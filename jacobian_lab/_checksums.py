"""Checksums of a model's folder: its SHA256SUMS, as `sha256sum -c` reads it, or the hub's cache."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from jacobian_lab._files import write_whole
from jacobian_lab.errors import InputError

SUMS = "SHA256SUMS"
"""Name of the file of checksums in a folder: the usual one, which `sha256sum -c` reads."""
LOADED = (".safetensors", ".json", ".txt", ".model")
"""Endings of the files that make a pipeline: the last two are of tokenizers."""


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file; of a large one that has not changed since, without reading it
    again.
    """
    state = path.stat()
    return _read(path.resolve(), state.st_mtime_ns, state.st_size)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS: the checksums of the files of a folder that `check_folder` checks."""
    lines = [
        f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in _loaded(folder)
    ]
    write_whole(folder / SUMS, "".join(lines).encode())


def read_sums(path: Path) -> dict[str, str]:
    """Return the checksums in a file SHA256SUMS, name -> digest."""
    found = re.findall(
        r"^(?:([0-9a-f]{64}) [ *])?(.*)$", path.read_text(errors="replace"), re.MULTILINE
    )
    return {name: digest for digest, name in found if name}


def check_folder(folder: Path) -> None:
    """Raise if a file of a model's folder is damaged, as far as checksums are known: by its
    SHA256SUMS, or the hub's cache.

    Raises
    ------
    InputError
        If a file differs from its checksum, is missing, or is none of those that SHA256SUMS names.
    """
    try:
        named = read_sums(folder / SUMS) if (folder / SUMS).is_file() else None
        for path in _loaded(folder):
            name = path.relative_to(folder).as_posix()
            expected, found = (
                _hub_hash(path) if named is None else (named.pop(name, "none"), file_hash(path))
            )
            if expected != found:
                raise InputError(
                    f"{path} is damaged: its checksum is {found}, expected {expected}. Fetch or"
                    " save it again"
                    + (
                        ""
                        if named is None
                        else f"; if you changed it on purpose, correct {folder / SUMS}"
                    )
                )
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be read: {error.strerror}. Fetch or save it again"
        ) from error
    if named:
        raise InputError(
            f"{folder / min(named)} is missing, which {folder / SUMS} names. Fetch or save it again"
        )


def _loaded(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in LOADED and path.is_file())


def _hub_hash(path: Path) -> tuple[str, str]:
    """Return which hash a file in the hub's cache should have, the name of its blob, and has; twice
    nothing elsewhere.
    """
    name = (
        path.resolve().name if path.is_symlink() and path.resolve().parent.name == "blobs" else ""
    )
    if re.fullmatch("[0-9a-f]{64}", name):
        return name, file_hash(path)
    if re.fullmatch("[0-9a-f]{40}", name):  # a small file: Git's hash
        content = path.read_bytes()
        return (
            name,
            hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest(),
        )
    return "", ""


@lru_cache(maxsize=256)
def _read(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - they say whether the file is still the same
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

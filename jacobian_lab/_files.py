"""Files: written whole, and known to be undamaged when they are read again.

What this project reads back carries its SHA-256. Archives (.npz, .pt; both are zip) have it as
their comment, which every reader of zip files skips; a folder has a file SHA256SUMS, which
`sha256sum -c` reads too; in the hub's cache each file is named by it. So every changed bit and
every lost byte is noticed before a parser sees the file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jacobian_lab.errors import InputError

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
"""Locks; Windows has none."""

Arrays: TypeAlias = dict[str, NDArray[Any]]
SEAL = b"sha256:"
SUMS = "SHA256SUMS"
LOADED = (".safetensors", ".json", ".txt", ".model")
"""Endings of the files that make a pipeline: the last two are of tokenizers."""
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.partial")
"""Names of files that are being written, or that a kill left behind."""
NO_SPACE, NO_LOCKS = (errno.ENOSPC, errno.EDQUOT), (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def unwritable(path: Path, error: OSError) -> InputError:
    """Return what to raise where writing failed: with the path and the remedy."""
    remedy = (
        "Free some space there"
        if error.errno in NO_SPACE
        else "Choose another --out, or another folder"
    )
    return InputError(f"cannot write to {path}: {error.strerror or error}. {remedy}")


@contextmanager
def whole_file(path: Path) -> Iterator[BufferedRandom]:
    """Open a file to be written; at the end of the block it takes the place of `path`.

    A reader, at any moment and after a crash, finds the old content or the new, never a part; of
    two writers at once, each has a file of its own, and the last one stays. After an exception
    nothing is left.

    Raises
    ------
    InputError
        If the file cannot be written: the disk is full, the folder is read-only.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as `whole_file` does."""
    with whole_file(path) as file:
        file.write(content)


def write_archive(path: Path, write: Callable[[Any], None]) -> None:
    """Write a zip archive whole, with its SHA-256 as its comment; `write` gets the open file."""
    with whole_file(path) as file:
        write(file)
        file.seek(0)
        seal = _seal(hashlib.file_digest(file, "sha256").hexdigest())
        file.seek(-2, os.SEEK_END)  # the length of the comment, which was zero
        file.write(seal)


@contextmanager
def open_archive(path: Path, remedy: str) -> Iterator[BinaryIO]:
    """Open an archive that `write_archive` wrote, undamaged.

    Raises
    ------
    InputError
        If it cannot be read, or is damaged; with the remedy.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. {remedy}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. {remedy}") from error
    with file:
        digest, left = hashlib.sha256(), file.seek(0, os.SEEK_END) - len(_seal("0" * 64))
        file.seek(0)
        while left > 0 and (part := file.read(min(left, 2**20))):
            digest.update(part)
            left -= len(part)
        digest.update(b"\0\0")
        if file.read() != _seal(digest.hexdigest()):
            raise InputError(
                f"{path} is damaged, or this version did not write it: its content is not that of"
                f" its checksum. {remedy}"
            )
        file.seek(0)
        yield file


def save_arrays(path: Path, arrays: Mapping[str, Any], compressed: bool = True) -> None:
    """Write arrays to a .npz file, whole and with its checksum; `numpy.load` reads it."""
    save: Any = np.savez_compressed if compressed else np.savez
    write_archive(path, lambda file: save(file, **arrays))


def load_arrays(path: Path, remedy: str) -> Arrays:
    """Return the arrays of a file that `save_arrays` wrote.

    Raises
    ------
    InputError
        If it is missing, damaged, or no archive of arrays; nothing in it is executed.
    """
    with open_archive(path, remedy) as file:
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored)
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise TypeError("a member is no array")
            return arrays
        # a file that was made to harm has a true checksum, and can raise nearly anything
        except Exception as error:
            raise InputError(
                f"{path} is no archive of arrays ({type(error).__name__}: {error}). {remedy}"
            ) from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Return the object in a JSON file, or raise that it is not `what`, such as "a model card;
    train the model again".
    """
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not {what} ({type(error).__name__}: {error})") from error


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a JSON file's content."""
    return (json.dumps(content, indent=2) + "\n").encode()


def json_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what JSON says, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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


@contextmanager
def locked(path: Path, told: str) -> Iterator[None]:
    """Hold the lock file `path`, made with its folder, in this block; print `told` and wait if
    another process holds it.

    The system frees the lock of a process that was killed. The file may be moved or removed by
    whoever holds it.

    Raises
    ------
    InputError
        If the folder or the file cannot be made.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path.parent, error) from error
        try:
            file = path.open("ab")
        except FileNotFoundError:  # the folder was moved away in this moment
            continue
        except OSError as error:
            raise unwritable(path.parent, error) from error
        with file:
            _lock(file, told)
            if _is_at(path, file):
                yield
                return


def remove_unfinished(folder: Path) -> None:
    """Remove the files that a kill left unfinished; for who holds the folder's lock."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _lock(file: BinaryIO, told: str) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(told, file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise unwritable(Path(file.name), error) from error
        print(
            "this file system has no locks: let no second process run the same command",
            file=sys.stderr,
            flush=True,
        )


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Say whether the open file still lies at the path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _seal(digest: str) -> bytes:
    """Return the end of a zip archive of this SHA-256: the comment, and its length before it."""
    comment = SEAL + digest.encode()
    return len(comment).to_bytes(2, "little") + comment


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

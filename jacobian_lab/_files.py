"""Files: written whole, and known to be undamaged when they are read again.

What this project reads back carries its SHA-256. Archives (.npz, .pt; both are zip) have it as
their comment, which every reader of zip files skips; a folder has a file SHA256SUMS, which
`sha256sum -c` reads too; in the hub's cache each file is named by it (both:
`jacobian_lab._checksums`). So every changed bit and every lost byte is noticed before a parser sees
the file.
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
"""How the comment of an archive begins; the digest follows."""
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
    """Write arrays to a .npz file, whole and with its checksum; `numpy.load` reads it.

    Parameters
    ----------
    path : Path
    arrays : mapping
        Name -> array, or what `numpy.asarray` takes.
    compressed : bool
        Deflate the members; without, the file is written faster and larger.
    """
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

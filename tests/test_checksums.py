"""The checksums of a model's folder: those that are written hold, and every damage is noticed."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from jacobian_lab import InputError, _checksums
from jacobian_lab._checksums import check_folder, file_hash, read_sums, write_sums

from damage import unnoticed


@pytest.fixture
def folder(tmp_path):
    """A folder as of a pipeline, with its checksums."""
    folder = tmp_path / "pipeline"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "X"}))
    (folder / "unet" / "weights.safetensors").write_bytes(os.urandom(500))
    (folder / "unet" / "merges.txt").write_text("a b")
    (folder / "README.md").write_text("not checked")
    write_sums(folder)
    return folder


def test_a_folder_is_checked_by_its_sums(folder):
    for path in (
        *(path for path in folder.rglob("*") if path.suffix in _checksums.LOADED),
        folder / "SHA256SUMS",
    ):
        assert not unnoticed(
            path, lambda: check_folder(folder), f"{folder}.* (is damaged|is missing)"
        )
        check_folder(folder)
    (folder / "README.md").unlink()
    check_folder(folder)
    (folder / "unet" / "more.json").touch()
    with pytest.raises(InputError, match=r"more\.json is damaged: .*, expected none"):
        check_folder(folder)
    (folder / "unet" / "more.json").unlink()
    (folder / "unet" / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"merges\.txt is missing, which .*SHA256SUMS names"):
        check_folder(folder)


def test_the_hubs_cache_is_checked_by_the_names_of_its_blobs(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    names = {
        "config.json": "ce013625030ba8dba906f756967f9e9ca394464a",  # Git's hash of "hello\n"
        # SHA-256 of it
        "weights.safetensors": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    }
    for name, blob in names.items():
        (blobs / blob).write_bytes(b"hello\n")
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / blob)
    check_folder(snapshot)
    for name, blob in names.items():
        assert not unnoticed(
            blobs / blob,
            lambda: check_folder(snapshot),
            f"{snapshot / name} is damaged: its checksum is",
        )
        check_folder(snapshot)


def test_the_sums_written_are_those_of_hashlib_and_read_back(folder):
    expected = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model_index.json", "unet/merges.txt", "unet/weights.safetensors")
    }
    assert read_sums(folder / _checksums.SUMS) == expected
    lines = [f"{digest}  {name}\n" for name, digest in expected.items()]
    assert (folder / _checksums.SUMS).read_text() == "".join(lines)


def test_sums_are_read_as_sha256sum_writes_them_and_a_line_without_one_stays(tmp_path):
    digest = 64 * "a"
    (tmp_path / "sums").write_text(f"{digest}  a b.json\n{digest} *c.txt\n\nno digest\n")
    assert read_sums(tmp_path / "sums") == {"a b.json": digest, "c.txt": digest, "no digest": ""}


def test_a_file_is_read_once_until_it_changes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    assert file_hash(path) == hashlib.sha256(b"first").hexdigest()
    before = _checksums._read.cache_info()
    assert file_hash(path) == hashlib.sha256(b"first").hexdigest()
    after = _checksums._read.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    path.write_bytes(b"other")
    os.utime(path, ns=(0, 0))  # of the same size, at another time
    assert file_hash(path) == hashlib.sha256(b"other").hexdigest()


def test_a_folder_without_sums_outside_the_hubs_cache_is_taken_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    check_folder(tmp_path)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / (64 * "0")).write_text("not linked")
    check_folder(tmp_path)

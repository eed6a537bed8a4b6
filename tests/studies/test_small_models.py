"""Small denoisers that studies train."""

import numpy as np
import pytest
import torch

from jacobian_lab import InputError
from mnist.evaluate import squared_errors
from studies.claims.small_models import (
    SMALL,
    Trains,
    doubled,
    halved,
    small_denoiser,
    small_recipe,
    trained,
    with_weights,
)


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    """Without MNIST's training set in the cache."""
    real = __import__("mnist").digits

    def digits(split, folder=None, download=False):
        if split == "train":
            raise InputError("MNIST was not found")
        return real(split, folder, download)

    monkeypatch.setattr("mnist.digits", digits)


def test_without_mnist_there_are_4000_digits_and_another_1000_to_test(no_mnist, capsys, tmp_path):
    config = Trains()
    images, labels = config.digits()
    assert images.shape == (4000, *SMALL)
    assert config.test_digits.shape == (1000, *SMALL)
    assert labels[:12].tolist() == [*range(10), 0, 1]
    assert config.hashes["digits"].startswith("4000 training digits, SHA-256 ")
    assert "--data-folder" in capsys.readouterr().err
    with pytest.raises(InputError, match="not found"):
        Trains(data_folder=tmp_path)
    with pytest.raises(InputError, match="--updates must be at least 1"):
        Trains(updates=0)


def test_other_digits_of_the_same_number_are_another_run(monkeypatch):
    images, labels = torch.zeros(6, 1, 32, 32), torch.arange(6)
    monkeypatch.setattr("mnist.digits", lambda *_: (images, labels))
    first = Trains().hashes
    images[3, 0, 5, 5] = 0.5
    assert Trains().hashes != first


def test_halving_takes_means_and_doubling_keeps_the_range():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert halved(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert doubled(torch.full((2, 1, 16, 16), -1.0)).shape == (2, 1, 32, 32)


def test_a_training_lowers_the_error_and_its_weights_make_the_same_denoiser(no_mnist):
    config = Trains(updates=12)
    recipe = small_recipe(config, ema_decay=0.5)
    images = config.digits()[0][:128]
    weights = trained(recipe, images)
    again = trained(recipe, images)
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    denoiser = with_weights(small_denoiser(recipe), weights)
    assert not denoiser.network.training
    before, after = (
        float(squared_errors(d.eval(), config.test_digits[:64], 500, 0).mean())
        for d in (small_denoiser(recipe), denoiser)
    )
    assert after < before

"""What a study of constrained sampling looks at: held-out digits, or the user's image."""

import hashlib

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.sampling.sampler import seed_of
from studies.frame.models import Model
from studies.sampling.inputs import OfDigits

from conftest import as_bytes, png


def model(shape=(1, 32, 32), encode=lambda x: x):
    """A model whose denoiser is not asked."""
    digits = shape == (1, 32, 32)
    return Model(None, shape, "cpu", torch.float32, "latent", encode, digits=digits)


def test_files_are_checked_in_python_too(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        OfDigits(images=(tmp_path / "none.png",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digit": 5000}, "--digit 5000 is not a held-out digit: expected 0 to 4999"),
        ({"digit": -1}, "--digit -1 is not a held-out digit"),
        ({"digits": 0}, "--digits must lie from 1 to 5000: got 0"),
        ({"digit": 4990, "digits": 11}, "--digits must lie from 1 to 10: got 11"),
    ],
)
def test_digits_that_are_not_there_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        OfDigits(**options)
    assert OfDigits(digit=4990, digits=10).digits == 10


def test_digits_come_with_their_labels_and_in_the_models_space():
    found = OfDigits(digit=13, digits=3).inputs(model(encode=lambda x: x[..., ::2, ::2] / 2))
    images = mnist.digits("held-out")[0][13:16]
    assert torch.equal(found.images, images)
    assert torch.equal(found.clean, images[..., ::2, ::2] / 2)
    assert found.labels.tolist() == [3, 4, 5]
    assert found.numbers == [13, 14, 15]
    assert found.names == ["digit 13", "digit 14", "digit 15"]


def test_an_image_takes_the_place_of_digits_and_names_the_run(tmp_path):
    digit = mnist.digits("held-out")[0][4]
    path = png(tmp_path / "four.png", as_bytes(digit))
    config = OfDigits(images=(path,), digit=2)
    assert config.hashes["images"] == hashlib.sha256(path.read_bytes()).hexdigest()
    found = config.inputs(model())
    np.testing.assert_allclose(found.images[0], digit, atol=1e-5)
    assert found.labels.tolist() == [4]  # as the classifier sees it
    assert (found.numbers, found.names) == ([2], ["four.png"])


def test_an_image_of_other_things_has_no_label_and_digits_do_not_fit_its_model(tmp_path):
    path = png(tmp_path / "large.png", np.full((20, 40), 255))
    found = OfDigits(images=(path,), model="mnist-latent").inputs(model((3, 16, 16)))
    assert found.images.shape == (1, 3, 16, 16)
    assert torch.allclose(found.images, torch.ones(1))
    assert found.labels is None
    with pytest.raises(InputError, match="is not of our digits, but of samples of 3x16x16"):
        OfDigits().inputs(model((3, 16, 16)))


def test_the_noise_of_a_digits_samples_does_not_depend_on_the_other_digits():
    config = OfDigits(samples=2, seed=5)
    seeds = config.seeds([3, 4])
    assert seeds == [seed_of(5, number, k) for number in (3, 4) for k in (0, 1)]
    assert config.seeds([4]) == seeds[2:]
    assert len(set(seeds)) == 4

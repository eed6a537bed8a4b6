"""What the page looks at."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import mnist
from jacobian_lab import InputError
from studies.explore import choice
from studies.explore.choice import Look, Upload, carried, clean_image, read_upload, taken, times_of
from studies.frame.models import open_model

from conftest import as_bytes


def as_png(gray):
    held = io.BytesIO()
    Image.fromarray(np.asarray(gray, np.uint8)).save(held, "PNG")
    return held.getvalue()


def test_a_digit_uploaded_as_a_file_is_the_digit(model):
    digit = mnist.digits("held-out")[0][7]
    opened = open_model(model, "cpu")
    found, number = clean_image(
        Look(model, 3, upload=Upload("seven.png", as_png(as_bytes(digit)))), opened
    )
    assert number == 0
    assert (found - digit).abs().max() < 1 / 127
    assert torch.equal(clean_image(Look(model, 7), opened)[0], digit)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"no image", r"^a\.png is not an image that can be read"),
        ("b.png", as_png(np.eye(32) * 255)[:45], r"^b\.png (cannot be read|is not an image)"),
        ("../c.png", as_png(np.eye(20) * 255), r"^c\.png has 20x20 pixels: .* 32x32 or 28x28"),
        ("d.png", b"x" * (choice.MOST_BYTES + 1), r"^d\.png has 4,194,305 bytes: expected at most"),
        ("e.png", as_png(np.zeros((4001, 4001))), r"^e\.png has 4001x4001 pixels: expected at mos"),
        ("f.npy", b"\x93NUMPY", r"^f\.npy is not an image that can be read"),
        ("", b"", r"^upload is not an image"),
        ("..", b"", r"^\.\. is not an image"),
    ],
    ids=["text", "cut", "size", "bytes", "pixels", "array", "empty", "parent"],
)
def test_a_broken_or_oversized_upload_is_refused_in_one_sentence(model, name, data, message):
    with pytest.raises(InputError, match=message) as refused:
        read_upload(Upload(name, data), open_model(model, "cpu"))
    assert "/tmp" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [96 * "ひ" + ".png", "..", "\n\0", "\ud800", "x.npy"],
    ids=["long", "parent", "unprintable", "surrogate", "array"],
)
def test_an_upload_may_have_any_name(model, name):
    digit = mnist.digits("held-out")[0][7]
    found = read_upload(Upload(name, as_png(as_bytes(digit))), open_model(model, "cpu"))
    assert (found[0] - digit).abs().max() < 1 / 127


def test_another_model_is_looked_at_where_noise_is_as_strong(model, flow):
    ddpm, rectified = (open_model(name, "cpu") for name in (model, flow))
    assert carried(0, ddpm, rectified) == 0.01
    assert carried(1.0, rectified, ddpm) == 999
    for t in (1, 300, 700):
        alpha_t, sigma_t = ddpm.denoiser.schedule(t)
        sigma = carried(t, ddpm, rectified)
        assert sigma == pytest.approx(float(sigma_t / (alpha_t + sigma_t)), rel=1e-6)
        assert carried(sigma, rectified, ddpm) == t


def test_times_are_the_schedule_s_own_and_carried_between_schedules(model, flow):
    discrete, continuous = (times_of(open_model(name, "cpu")) for name in (model, flow))
    assert (discrete.first, discrete.last, discrete.step) == (0, 999, 1)
    assert (continuous.first, continuous.last) == (0.01, 1.0)
    assert continuous.carried(500) == 0.5
    assert continuous.carried(0.3) == 0.3
    assert discrete.carried(0.5) == 500
    assert isinstance(discrete.carried(500.0), int)
    assert discrete.carried(1e9) == 999


def test_the_point_that_was_chosen_has_its_digit_time_and_seed(model):
    point = taken(Look(model, 4, 300, 2), "cpu")
    assert torch.equal(point.clean, mnist.digits("held-out")[0][4])
    assert (point.t, point.seed, point.number) == (300, 2, 4)
    for slip in (Look(model, 5000), Look("nothing"), Look(model, 0, 300, -1)):
        with pytest.raises(InputError):
            taken(slip, "cpu")
